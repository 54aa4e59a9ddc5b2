package trust_test

import (
	"crypto/fips140"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
	"github.com/fleetkey/fleetkey/internal/trust"
)

var (
	noon  = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	now   = trust.Moment{Wall: noon, Monotonic: time.Hour}
	month = 30 * keysettest.Day
)

// key returns a key that began a while ago, or that begins soon if that is negative.
func key(t testing.TB, ago time.Duration) *keyset.Key {
	t.Helper()
	return keysettest.Key(t, "ES256", noon.Add(-ago))
}

// former returns the key of another system, under a kid if that is given.
func former(t testing.TB, ago time.Duration, kid string) *keyset.Key {
	t.Helper()
	k := key(t, ago)
	k.Private = nil
	if kid != "" {
		k.ID = kid
	}
	return k
}

func viewAt(t testing.TB, at trust.Moment, version string, old *trust.View, keys ...*keyset.Key) *trust.View {
	t.Helper()
	v, err := trust.FromSet(keyset.New(keys...), version, old, at, keysettest.Policy())
	require.NoError(t, err)
	return v
}

func view(t testing.TB, keys ...*keyset.Key) *trust.View {
	t.Helper()
	return viewAt(t, now, "1", nil, keys...)
}

// namesOf returns the kids that a key is known by if its system numbers certificates.
func namesOf(k *keyset.Key) []string {
	var thumb [20]byte
	fips140.WithoutEnforcement(func() { thumb = sha1.Sum(k.Cert.Raw) })
	thumb256 := sha256.Sum256(k.Cert.Raw)
	upper := strings.ToUpper(hex.EncodeToString(thumb[:]))
	return []string{jws.Thumbprint(k.Public), base64.RawURLEncoding.EncodeToString(thumb[:]),
		base64.RawURLEncoding.EncodeToString(thumb256[:]), upper, upper + "ES256", strings.ToLower(upper)}
}

func TestNames(t *testing.T) {
	own, other, given := key(t, month), former(t, 2*month, ""), former(t, 3*month, "key-2019/a")
	v := view(t, own, other, given)
	for i, name := range namesOf(own) {
		assert.Equal(t, i == 0, v.ByName(name) != nil, "a fleet key has one name, not %s", name)
	}
	for _, name := range namesOf(other) {
		require.NotNil(t, v.ByName(name), name)
		assert.Equal(t, other, v.ByName(name).Source)
	}
	for _, name := range namesOf(given) {
		assert.Nil(t, v.ByName(name), "who gives a name means that name")
	}
	assert.Equal(t, given, v.ByName("key-2019/a").Source)
	assert.Nil(t, v.ByName(""))
	assert.Nil(t, v.ByName(strings.ToUpper(own.ID)))
}

// header encodes a JOSE header of names and values.
func header(pairs ...string) string {
	var members []string
	for i := 0; i < len(pairs); i += 2 {
		members = append(members, `"`+pairs[i]+`":"`+pairs[i+1]+`"`)
	}
	return base64.RawURLEncoding.EncodeToString([]byte("{" + strings.Join(members, ",") + "}"))
}

func TestKeyFor(t *testing.T) {
	own, gone, other := key(t, month), key(t, 2*month), former(t, month, "")
	v := view(t, own, gone, other)
	for name, test := range map[string]struct {
		header string
		want   *keyset.Key
		err    error
	}{
		"as the fleet writes it":         {header("alg", "ES256", "kid", own.ID, "typ", "at+jwt"), own, nil},
		"an ID token":                    {header("alg", "ES256", "kid", own.ID, "typ", "JWT"), nil, jws.ErrWrongType},
		"no typ":                         {header("alg", "ES256", "kid", own.ID), nil, jws.ErrWrongType},
		"another algorithm":              {header("alg", "ES384", "kid", own.ID, "typ", "at+jwt"), nil, jws.ErrWrongAlgorithm},
		"no algorithm":                   {header("alg", "none", "kid", own.ID, "typ", "at+jwt"), nil, jws.ErrWrongAlgorithm},
		"a thumbprint in the header":     {header("alg", "ES256", "kid", own.ID, "typ", "at+jwt", "x5t", "x"), nil, jws.ErrMalformed},
		"unknown kid":                    {header("alg", "ES256", "kid", "x", "typ", "at+jwt"), nil, jws.ErrUnknownKey},
		"unknown kid of an ID token":     {header("alg", "ES256", "kid", "x", "typ", "JWT"), nil, jws.ErrWrongType},
		"no kid":                         {header("alg", "ES256", "typ", "at+jwt"), nil, jws.ErrMalformed},
		"no JSON":                        {"e30x", nil, jws.ErrMalformed},
		"trust has ended":                {header("alg", "ES256", "kid", gone.ID, "typ", "at+jwt"), nil, jws.ErrUnknownKey},
		"trust has ended, another order": {header("kid", gone.ID, "typ", "at+jwt", "alg", "ES256"), nil, jws.ErrUnknownKey},
		"former, of RFC 9068":            {header("alg", "ES256", "kid", other.ID, "typ", "at+jwt"), other, nil},
		"former, of typ JWT":             {header("alg", "ES256", "kid", other.ID, "typ", "JWT"), other, nil},
		"former, of no typ":              {header("alg", "ES256", "kid", other.ID), other, nil},
		"former, of another typ":         {header("alg", "ES256", "kid", other.ID, "typ", "logout+jwt"), nil, jws.ErrWrongType},
		"former, by x5t":                 {header("alg", "ES256", "kid", namesOf(other)[1], "x5t", namesOf(other)[1]), other, nil},
		"former, of another algorithm":   {header("alg", "RS256", "kid", other.ID), nil, jws.ErrWrongAlgorithm},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := v.KeyFor(test.header, noon)
			require.ErrorIs(t, err, test.err)
			if test.want == nil {
				require.Nil(t, k)
				return
			}
			require.Equal(t, test.want, k.Source)
		})
	}
	end := v.Keys[len(v.Keys)-1].Until
	for at, want := range map[time.Time]bool{end.Add(-1): true, end: false} {
		k, err := v.KeyFor(v.Keys[len(v.Keys)-1].Header, at)
		require.Equal(t, want, k != nil && err == nil)
	}
}

// TestOneKeyForAName: the newest key has a name that two were given, whether the header
// is one that the fleet writes or not.
func TestOneKeyForAName(t *testing.T) {
	older, newer := former(t, 2*month, "idp"), former(t, month, "idp")
	v := view(t, older, newer)
	for _, text := range []string{v.Keys[0].Header, header("kid", "idp", "alg", "ES256")} {
		k, err := v.KeyFor(text, noon)
		require.NoError(t, err)
		require.Equal(t, newer, k.Source)
	}
	require.Len(t, published(t, v), 1)
}

func TestFromKeys(t *testing.T) {
	a, b := key(t, month), key(t, month)
	v, err := trust.FromKeys([]trust.PublicKey{{ID: "a", Alg: a.Alg, Key: a.Public}, {ID: "b", Alg: b.Alg, Key: b.Public, Former: true}}, "etag", now)
	require.NoError(t, err)
	later := noon.AddDate(100, 0, 0)
	k, err := v.KeyFor(header("kid", "a", "alg", "ES256", "typ", "at+jwt"), later)
	require.NoError(t, err)
	require.Equal(t, a.Public, k.Public)
	k, err = v.KeyFor(v.Keys[0].Header, later)
	require.NoError(t, err)
	require.Equal(t, a.Public, k.Public)
	_, err = v.KeyFor(header("kid", "a", "alg", "ES256"), noon)
	require.ErrorIs(t, err, jws.ErrWrongType)
	_, err = v.KeyFor(header("kid", "b", "alg", "ES256"), noon)
	require.NoError(t, err, "by the former rules")
	require.Equal(t, "etag", v.Version)
	require.Nil(t, v.Signing(noon))
	require.False(t, v.Outdated(later))
	require.Equal(t, []string{"a", "b"}, kids(published(t, v)))
	for _, k := range v.Keys {
		require.Equal(t, trust.RoleFormer, k.Role(noon, nil))
	}
}

// A publicKey is an entry of a JSON Web Key Set.
type publicKey struct {
	Kid, Alg, Use, D string
	X5c              []string
	X5t256           string `json:"x5t#S256"`
}

func published(t testing.TB, v *trust.View) []publicKey {
	t.Helper()
	if v.JWKS == nil {
		require.Empty(t, v.ETag)
		return nil
	}
	var set struct{ Keys []publicKey }
	require.NoError(t, json.Unmarshal(v.JWKS, &set))
	return set.Keys
}

func kids(keys []publicKey) (kids []string) {
	for _, k := range keys {
		kids = append(kids, k.Kid)
	}
	return kids
}

func TestJWKS(t *testing.T) {
	next, own, gone, other := key(t, -time.Hour), key(t, month), key(t, 2*month), former(t, 3*month, "")
	keys := published(t, view(t, next, own, gone, other))
	require.Equal(t, append([]string{next.ID, own.ID}, namesOf(other)...), kids(keys))
	for i, k := range keys {
		require.Equal(t, []string{"ES256", "sig", ""}, []string{k.Alg, k.Use, k.D})
		require.Equal(t, i < 3, len(k.X5c) == 1 && k.X5t256 != "", "the certificate is under the first name")
	}
	require.Equal(t, base64.StdEncoding.EncodeToString(own.Cert.Raw), keys[1].X5c[0])

	before, same, after := view(t, own), view(t, own), view(t, next, own)
	require.NotEmpty(t, before.ETag)
	require.Equal(t, before.ETag, same.ETag)
	require.NotEqual(t, before.ETag, after.ETag)
	late := trust.Moment{Wall: noon.AddDate(20, 0, 0)}
	require.Empty(t, published(t, viewAt(t, late, "1", nil, own)), "nothing is trusted")
}

func TestOutdated(t *testing.T) {
	own, old := key(t, time.Hour), key(t, month) // old is trusted for a day after own began
	v := view(t, own, old)
	// -1: the clock was set back.
	for after, want := range map[time.Duration]bool{0: false, -1: true, 23*time.Hour - 1: false, 23 * time.Hour: true, 20 * 12 * month: true} {
		require.Equal(t, want, v.Outdated(noon.Add(after)), "after %v", after)
	}
	v = viewAt(t, trust.Moment{Wall: noon.Add(23 * time.Hour)}, "1", v, own, old)
	require.False(t, v.Outdated(noon.AddDate(5, 0, 0)), "a key whose end has passed changes nothing more")
	require.True(t, v.Outdated(own.Cert.NotAfter))
}

func TestRoles(t *testing.T) {
	date := func(text string) time.Time { return keysettest.Date(t, text) }
	x := keysettest.KeyUntil(t, "ES256", date("2026-05-01"), date("2026-08-01"))
	x.Private = nil
	names := map[*keyset.Key]string{x: "x"}
	for name, begin := range map[string]string{"old": "2026-01-01", "now": "2026-04-01", "next": "2026-07-01"} {
		names[keysettest.Key(t, "ES256", date(begin))] = name
	}
	for when, want := range map[string]string{
		"2025-12-31": "next announced, x former, now announced, old announced",
		"2026-03-01": "next announced, x former, now announced, old signing",
		"2026-04-01": "next announced, x former, now signing, old retired",
		"2026-04-02": "next announced, x former, now signing, old gone",
		"2026-07-01": "next signing, x former, now retired, old gone",
		"2026-08-01": "next signing, x gone, now gone, old gone",
	} {
		var set []*keyset.Key
		for k := range names {
			set = append(set, k)
		}
		at := date(when)
		v := viewAt(t, trust.Moment{Wall: at}, "1", nil, set...)
		var got []string
		for _, k := range v.Keys {
			got = append(got, names[k.Source]+" "+k.Role(at, v.Signing(at)))
		}
		assert.Equal(t, want, strings.Join(got, ", "), when)
	}
}
