package trust_test

import (
	"crypto"
	"crypto/fips140"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
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

// key returns a key that began the given time ago, or that begins later if ago is negative.
func key(t testing.TB, ago time.Duration) *keyset.Key {
	t.Helper()
	return keysettest.Key(t, "ES256", noon.Add(-ago))
}

// former returns a key of another system, under kid if that is not empty.
func former(k *keyset.Key, kid string) *trust.Key {
	return trust.Former(k.Public, k.Alg, k.Cert, kid)
}

func retired(k *keyset.Key, until time.Time) keyset.Retired {
	return keyset.Retired{ID: k.ID, Alg: k.Alg, Public: k.Public, Until: until}
}

func setOf(keys ...*keyset.Key) *keyset.Set { return keyset.New(keys, nil, nil) }

func viewAt(t testing.TB, at trust.Moment, version string, old *trust.View, set *keyset.Set, others ...*trust.Key) *trust.View {
	t.Helper()
	v, err := trust.New(trust.Source{Set: set, Version: version, Others: others}, old, at, keysettest.Policy())
	require.NoError(t, err)
	return v
}

func view(t testing.TB, set *keyset.Set, others ...*trust.Key) *trust.View {
	t.Helper()
	return viewAt(t, now, "1", nil, set, others...)
}

// namesOf returns the kids that other systems derive for a key.
func namesOf(k *keyset.Key) []string {
	var thumb [20]byte
	fips140.WithoutEnforcement(func() { thumb = sha1.Sum(k.Cert.Raw) })
	thumb256 := sha256.Sum256(k.Cert.Raw)
	upper := strings.ToUpper(hex.EncodeToString(thumb[:]))
	return []string{jws.Thumbprint(k.Public), base64.RawURLEncoding.EncodeToString(thumb[:]),
		base64.RawURLEncoding.EncodeToString(thumb256[:]), upper, upper + "ES256", strings.ToLower(upper)}
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
	own, gone, other, stolen := key(t, month), key(t, 2*month), key(t, month), key(t, month)
	v := view(t, keyset.New([]*keyset.Key{own, gone}, nil, []string{stolen.ID}), former(other, ""))
	es256 := func(kid string, more ...string) string {
		return header(append([]string{"alg", "ES256", "kid", kid}, more...)...)
	}
	for _, test := range []struct {
		want    *keyset.Key
		err     error
		ask     bool
		headers []string
	}{
		{own, nil, false, []string{es256(own.ID, "typ", "at+jwt"), es256(own.ID, "typ", "application/AT+jwt"), header("kid", own.ID, "typ", "at+jwt", "alg", "ES256")}},
		{other, nil, false, []string{es256(other.ID, "typ", "at+jwt"), es256(other.ID, "typ", "JWT"), es256(other.ID), es256(namesOf(other)[1], "x5t", namesOf(other)[1])}},
		{nil, jws.ErrWrongType, false, []string{es256(own.ID, "typ", "JWT"), es256(own.ID), es256(other.ID, "typ", "logout+jwt")}},
		{nil, jws.ErrWrongAlgorithm, false, []string{
			header("alg", "ES384", "kid", own.ID, "typ", "at+jwt"), header("alg", "none", "kid", own.ID, "typ", "at+jwt"), header("alg", "RS256", "kid", other.ID)}},
		{nil, jws.ErrMalformed, false, []string{es256(own.ID, "typ", "at+jwt", "x5t", "x"), header("alg", "ES256", "typ", "at+jwt"), "e30x"}},
		{nil, jws.ErrUnknownKey, false, []string{es256("x", "typ", "JWT"), es256("x"), es256(stolen.ID, "typ", "at+jwt")}},
		{nil, jws.ErrUnknownKey, true, []string{es256("x", "typ", "at+jwt"), es256(gone.ID, "typ", "at+jwt"), header("kid", gone.ID, "typ", "at+jwt", "alg", "ES256")}},
	} {
		for i, text := range test.headers {
			k, ask, err := v.KeyFor(text, noon)
			require.ErrorIs(t, err, test.err, i)
			require.Equal(t, test.ask, ask, i)
			require.Equal(t, test.want == nil, k == nil, i)
			require.True(t, k == nil || test.want.Public == k.Public, i)
		}
	}
	end := v.ByName(own.ID).Until
	for at, want := range map[time.Time]bool{end.Add(-1): true, end: false} {
		k, _, err := v.KeyFor(v.ByName(own.ID).Header, at)
		require.Equal(t, want, k != nil && err == nil)
	}
}

// TestNamesAndRules: the fleet's key takes precedence for a name. The former rules apply only
// to the names of former keys. Several certificates of one key add names.
func TestNamesAndRules(t *testing.T) {
	own, brought, thief := key(t, time.Hour), key(t, month), key(t, month)
	renewal := &keyset.Key{Public: brought.Public, Alg: brought.Alg, Cert: key(t, 0).Cert} // only its bytes matter
	old := keyset.New([]*keyset.Key{own}, []keyset.Retired{retired(brought, noon.Add(month))}, nil)
	for name, set := range map[string]*keyset.Set{"signs": setOf(own, brought), "retired": old, "elsewhere": setOf(own)} {
		v := view(t, set, former(brought, ""), former(renewal, ""), former(thief, own.ID))
		untyped := func(kid string) error {
			k, _, err := v.KeyFor(header("alg", "ES256", "kid", kid), noon)
			require.True(t, err != nil || k.Public == brought.Public)
			return err
		}
		for _, kid := range append(namesOf(brought)[1:], namesOf(renewal)[1:]...) {
			require.NoError(t, untyped(kid), name)
		}
		require.Equal(t, set.Mentions(brought.ID), untyped(brought.ID) != nil, name)
		for _, text := range []string{v.ByName(own.ID).Header, header("kid", own.ID, "alg", "ES256", "typ", "at+jwt")} {
			k, _, err := v.KeyFor(text, noon)
			require.NoError(t, err)
			require.Equal(t, own.Public, k.Public)
		}
		require.ErrorIs(t, untyped(own.ID), jws.ErrWrongType)
		require.Len(t, published(t, v), 1+len(namesOf(brought))+len(namesOf(renewal))-1, "each name once")
	}
	revoked := keyset.New([]*keyset.Key{own}, nil, []string{brought.ID})
	v := view(t, revoked, append(trust.Adopted(setOf(brought), noon, noon.Add(month)), former(brought, ""), former(renewal, ""), former(brought, "x"))...)
	require.Equal(t, []string{own.ID}, kids(published(t, v)), "a revoked key must stay revoked")
	require.Len(t, v.Keys, 1)
}

func TestFindNames(t *testing.T) {
	a, b := key(t, month), key(t, month)
	abroad := former(a, "w")
	abroad.Issuer = "https://old.example"
	for want, keys := range map[string][]*trust.Key{
		"":                       {former(a, ""), former(a, ""), former(a, "x"), former(a, "x"), former(b, ""), former(b, "y")},
		"w":                      {former(a, "w"), abroad},
		"z":                      {former(a, "z"), former(b, "z")},
		namesOf(a)[1]:            {former(a, ""), former(b, namesOf(a)[1])},
		jws.Thumbprint(b.Public): {former(a, b.ID), former(b, "")},
	} {
		name, found := trust.FindNames(keys)
		require.Equal(t, want, name)
		require.Equal(t, want != "", found)
	}
}

func TestFromKeys(t *testing.T) {
	a := key(t, month)
	plain := former(a, "a")
	plain.Former = false
	v, err := trust.FromKeys([]*trust.Key{plain, former(key(t, month), "b")}, "etag", false, now)
	require.NoError(t, err)
	later := noon.AddDate(100, 0, 0)
	k, _, err := v.KeyFor(plain.Header, later)
	require.NoError(t, err)
	require.Equal(t, a.Public, k.Public)
	_, _, err = v.KeyFor(header("kid", "a", "alg", "ES256"), noon)
	require.ErrorIs(t, err, jws.ErrWrongType)
	require.Equal(t, "etag", v.Version)
	signing, _ := v.Signing(noon)
	require.Nil(t, signing)
	require.False(t, v.Outdated(later))
	require.Equal(t, []string{"a", "b"}, kids(published(t, v)))
	size, err := trust.JWKSSize(v.Keys)
	require.NoError(t, err)
	require.Len(t, v.JWKS, size)
	_, err = trust.JWKSSize([]*trust.Key{{Public: "no key"}})
	require.Error(t, err)
}

// published returns the JSON Web Key Set of a view, as go-jose reads it.
func published(t testing.TB, v *trust.View) []jose.JSONWebKey {
	t.Helper()
	var set jose.JSONWebKeySet
	require.NoError(t, json.Unmarshal(v.JWKS, &set))
	return set.Keys
}

func kids(keys []jose.JSONWebKey) (kids []string) {
	for _, k := range keys {
		kids = append(kids, k.KeyID)
	}
	return kids
}

// TestJWKS: the set contains every trusted key that is not hidden, and certificates only of
// keys that sign or will sign.
func TestJWKS(t *testing.T) {
	next, own := keysettest.Key(t, "EdDSA", noon.Add(time.Hour)), keysettest.Key(t, "PS256", noon.Add(-time.Hour))
	old, gone := keysettest.Key(t, "ES384", noon.Add(-month)), key(t, 2*month)
	other, secret, bare := key(t, 3*month), key(t, month), key(t, month)
	hidden := former(secret, "")
	hidden.Hidden = true
	set := keyset.New([]*keyset.Key{next, own, old, gone}, []keyset.Retired{retired(secret, noon), retired(key(t, 0), noon.Add(1))}, nil)
	v := view(t, set, former(secret, "key-2019/a"), trust.Former(bare.Public, bare.Alg, nil, ""), former(other, ""), hidden)
	keys := published(t, v)
	want := []string{next.ID, own.ID, old.ID, set.Retired[0].ID, "key-2019/a", bare.ID} // a given kid is the only name
	require.Equal(t, append(want, namesOf(other)...), kids(keys))
	for i, k := range keys {
		trusted := v.ByName(k.KeyID)
		require.True(t, k.Valid() && k.IsPublic() && trusted.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Key), k.KeyID)
		require.Equal(t, []string{trusted.Alg.Name, "sig"}, []string{k.Algorithm, k.Use})
		require.Equal(t, []bool{i < 2, i < 2}, []bool{len(k.Certificates) == 1, len(k.CertificateThumbprintSHA256) > 0}, i)
	}
	require.Equal(t, own.Cert.Raw, keys[1].Certificates[0].Raw)
	require.Equal(t, namesOf(own)[2], base64.RawURLEncoding.EncodeToString(keys[1].CertificateThumbprintSHA256))
	k, _, err := v.KeyFor(header("alg", "ES256", "kid", namesOf(secret)[1]), noon)
	require.NoError(t, err, "hidden keys must still be trusted")
	require.Equal(t, secret.Public, k.Public)

	before, same, after := view(t, setOf(own)), view(t, setOf(own)), view(t, setOf(next, own))
	require.NotEmpty(t, before.ETag)
	require.Equal(t, before.ETag, same.ETag)
	require.NotEqual(t, before.ETag, after.ETag)
	late := trust.Moment{Wall: noon.AddDate(20, 0, 0)}
	require.Nil(t, viewAt(t, late, "1", nil, setOf(own)).JWKS, "clients would understand an empty set as \"trust nothing\"")
	early := published(t, viewAt(t, trust.Moment{Wall: noon.AddDate(-10, 0, 0)}, "1", nil, setOf(next, own)))
	require.True(t, len(early[0].Certificates) == 1 && len(early[1].Certificates) == 1, "no key signs")
}

// TestOutdated: a view is outdated when a key begins to sign or stops being trusted, and when
// the clock was set back.
func TestOutdated(t *testing.T) {
	next, own, old := key(t, -2*time.Hour), key(t, time.Hour), key(t, month)
	x := former(key(t, month), "")
	x.Until = noon.AddDate(0, 2, 0)
	at := noon
	for _, want := range []time.Time{
		next.Cert.NotBefore,
		own.Cert.NotBefore.Add(keysettest.Day), // old stays trusted for a day
		next.Cert.NotBefore.Add(keysettest.Day),
		x.Until,
		next.Cert.NotAfter,
	} {
		v := viewAt(t, trust.Moment{Wall: at}, "1", nil, setOf(next, own, old), x)
		require.Equal(t, want, v.NextChange(at))
		require.False(t, v.Outdated(at) || v.Outdated(want.Add(-1)))
		require.True(t, v.Outdated(want) && v.Outdated(at.Add(-1)))
		at = want
	}
	require.False(t, viewAt(t, trust.Moment{Wall: at}, "1", nil, setOf(next, own, old), x).Outdated(at.AddDate(90, 0, 0)))
}

func TestRoles(t *testing.T) {
	date := func(text string) time.Time { return keysettest.Date(t, text) }
	names := map[string]string{}
	begins := func(name, begin string) *keyset.Key {
		k := keysettest.Key(t, "ES256", date(begin))
		names[k.ID] = name
		return k
	}
	keys := []*keyset.Key{begins("old", "2026-01-01"), begins("now", "2026-04-01"), begins("next", "2026-07-01")}
	set := keyset.New(keys, []keyset.Retired{retired(begins("z", "2026-01-01"), date("2026-05-01"))}, nil)
	other := former(begins("x", "2026-01-01"), "")
	other.Until = date("2026-08-01")
	adopted := trust.Adopted(setOf(begins("y", "2026-01-01")), noon, date("2026-07-15"))
	for when, want := range map[string]string{
		"2026-03-01": "next announced, now announced, old signing, z retired, x former, y former",
		"2026-04-01": "next announced, now signing, old retired, z retired, x former, y former",
		"2026-04-02": "next announced, now signing, old gone, z retired, x former, y former",
		"2026-07-01": "next signing, now retired, old gone, z gone, x former, y former",
		"2026-08-01": "next signing, now gone, old gone, z gone, x gone, y gone",
	} {
		at := date(when)
		v := viewAt(t, trust.Moment{Wall: at}, "1", nil, set, append([]*trust.Key{other}, adopted...)...)
		signing, _ := v.Signing(at)
		var got []string
		for _, k := range v.Keys {
			got = append(got, names[k.ID]+" "+k.Role(at, signing))
		}
		assert.Equal(t, want, strings.Join(got, ", "), when)
	}
}

// TestAdopted: an instance's earlier keys verify the tokens that it has issued, for a while,
// and are not published. If the fleet's set has one of them, the set takes precedence.
func TestAdopted(t *testing.T) {
	own, mine, brief, old, until := key(t, time.Hour), key(t, month), key(t, month), key(t, 2*month), noon.Add(2*time.Hour)
	set := keyset.New([]*keyset.Key{mine, keysettest.KeyUntil(t, "ES256", noon.Add(-month), noon.Add(time.Hour))}, []keyset.Retired{retired(old, noon.Add(month)), retired(brief, noon.Add(time.Minute))}, nil)
	keys := trust.Adopted(set, noon, until)
	ends := map[string]time.Time{mine.ID: until, set.Keys[1].ID: noon.Add(time.Hour), old.ID: until, brief.ID: noon.Add(time.Minute)}
	require.Len(t, keys, len(ends))
	v := view(t, setOf(own), keys...)
	require.Equal(t, []string{own.ID}, kids(published(t, v)))
	for id, end := range ends {
		k, _, err := v.KeyFor(jws.EncodeHeader(own.Alg, id, jws.AccessTokenType), noon)
		require.NoError(t, err)
		require.Equal(t, []any{end, noon, false}, []any{k.Until, k.IssuedBefore, k.Former})
	}
	v = view(t, keyset.New([]*keyset.Key{mine, own}, []keyset.Retired{retired(old, noon.Add(-1))}, []string{brief.ID}), keys...)
	require.True(t, v.ByName(mine.ID).IssuedBefore.IsZero())
	require.False(t, v.ByName(old.ID).Trusted(noon), "retired by the fleet")
	require.Nil(t, v.ByName(brief.ID))
}
