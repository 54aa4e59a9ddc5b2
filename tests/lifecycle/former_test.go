package lifecycle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // names a certificate
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A system is another token server: one key, and certificates for it.
type system struct{ private *ecdsa.PrivateKey }

func newSystem(t *testing.T) system {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return system{private}
}

// certificate returns one of the certificates of the system's key.
func (s system) certificate(t *testing.T, end time.Time) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{NotBefore: end.AddDate(-2, 0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.private.Public(), s.private)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// token is one as systems from before RFC 9068 write it.
func (s system) token(t *testing.T, kid string, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"iss": testkit.Issuer, "aud": testkit.Issuer, "exp": time.Now().Add(8 * time.Hour).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	token.Header["kid"] = kid
	signed, err := token.SignedString(s.private)
	require.NoError(t, err)
	return signed
}

func sha1Name(cert *x509.Certificate) string {
	digest := sha1.Sum(cert.Raw) //nolint:gosec // as above
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

func former(formers ...fleetkey.Former) fleetkey.Config {
	cfg := testkit.Config()
	cfg.Former = formers
	return cfg
}

// K7: an expired certificate and its renewal have the same key, and tokens name either.
func TestK7_FormerCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newSystem(t)
		expired, renewed := old.certificate(t, time.Now().Add(-time.Hour)), old.certificate(t, time.Now().AddDate(1, 0, 0))
		s := testkit.Start(t, fleetkeytest.NewStore(), former(
			fleetkey.Former{Certificate: expired, Until: time.Now().Add(48 * time.Hour)}, fleetkey.Former{Certificate: renewed}))
		published := testkit.PublishedKeyIDs(t, s)
		for _, kid := range []string{sha1Name(expired), sha1Name(renewed), testkit.Thumbprint(old.private.Public())} {
			token, err := s.Verify(t.Context(), old.token(t, kid, jwt.MapClaims{"scp": []string{"read", "write"}}))
			require.NoError(t, err, kid)
			require.Equal(t, "read write", token.Scope(), "T5")
			require.Contains(t, published, kid)
		}
		time.Sleep(49 * time.Hour)
		testkit.Refuses(t, fleetkey.ErrUnknownKey, old.token(t, sha1Name(expired), nil), s)
		testkit.Accepts(t, old.token(t, sha1Name(renewed), nil), s)
	})
}

// A key of another issuer verifies tokens with exactly that issuer, and is not published.
func TestFormerIssuer(t *testing.T) {
	old := newSystem(t)
	store := fleetkeytest.NewStore()
	s := testkit.Start(t, store, former(fleetkey.Former{Key: old.private.Public(), KeyID: "2019", Issuer: "https://old.example"}))
	testkit.Accepts(t, old.token(t, "2019", jwt.MapClaims{"iss": "https://old.example"}), s)
	testkit.Refuses(t, fleetkey.ErrWrongIssuer, old.token(t, "2019", nil), s)
	require.Equal(t, []string{s.SigningKey().KeyID}, testkit.PublishedKeyIDs(t, s))
	require.NoError(t, s.Revoke(t.Context(), "2019"), "by its name")
	testkit.Refuses(t, fleetkey.ErrUnknownKey, old.token(t, "2019", jwt.MapClaims{"iss": "https://old.example"}), s)
}

// What cannot name the issuer that a key is for must not hand it out as one of ours.
func TestFormerIssuerOutsideOfVerify(t *testing.T) {
	old := newSystem(t)
	s := testkit.Start(t, fleetkeytest.NewStore(), former(fleetkey.Former{Key: old.private.Public(), KeyID: "2019", Issuer: "https://old.example"}))
	_, err := jwt.Parse(old.token(t, "2019", jwt.MapClaims{"iss": "https://old.example"}), s.Keyfunc)
	require.NoError(t, err)
	_, err = jwt.Parse(old.token(t, "2019", nil), s.Keyfunc, jwt.WithIssuer(testkit.Issuer))
	require.ErrorIs(t, err, fleetkey.ErrWrongIssuer)
	keys := s.PublicKeys()
	require.Len(t, keys, 1)
	require.Equal(t, s.SigningKey().KeyID, keys[0].KeyID)
}

// P1: a former key that is also the fleet's keeps its rules to its own names.
func TestFormerKeyOfTheFleet(t *testing.T) {
	old := newSystem(t)
	cert := old.certificate(t, time.Now().AddDate(1, 0, 0))
	store := fleetkeytest.NewStore()
	store.Set(testkit.Bundle(t, old.private, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)))
	s := testkit.Start(t, store, former(fleetkey.Former{Certificate: cert}))
	require.Equal(t, testkit.Thumbprint(old.private.Public()), s.SigningKey().KeyID)
	testkit.Accepts(t, testkit.Issue(t, s), s)
	testkit.Accepts(t, old.token(t, sha1Name(cert), nil), s)
	testkit.Refuses(t, fleetkey.ErrWrongType, old.token(t, s.SigningKey().KeyID, nil), s)
}

func TestFormerRefusals(t *testing.T) {
	one, other := newSystem(t), newSystem(t)
	cert := one.certificate(t, time.Now().AddDate(1, 0, 0))
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // to be refused
	require.NoError(t, err)
	many := make([]fleetkey.Former, 60)
	for i := range many {
		many[i].Certificate = newSystem(t).certificate(t, time.Now().AddDate(1, 0, 0))
	}
	for name, tc := range map[string]struct {
		formers []fleetkey.Former
		want    string
	}{
		"nothing given":        {[]fleetkey.Former{{}}, "Config.Former[0]: neither Certificate nor Key"},
		"both given":           {[]fleetkey.Former{{Certificate: cert, Key: one.private.Public()}}, "both Certificate and Key"},
		"a key without a kid":  {[]fleetkey.Former{{Certificate: cert}, {Key: one.private.Public()}}, "Config.Former[1]: a Key without a Certificate requires KeyID"},
		"an odd kid":           {[]fleetkey.Former{{Key: one.private.Public(), KeyID: "a\nb"}}, "the kid has 3 bytes"},
		"a weak key":           {[]fleetkey.Former{{Key: &weak.PublicKey, KeyID: "x"}}, "1024 bits"},
		"a key of a kind":      {[]fleetkey.Former{{Key: "text", KeyID: "x"}}, "not supported"},
		"a name for two keys":  {[]fleetkey.Former{{Key: one.private.Public(), KeyID: "x"}, {Key: other.private.Public(), KeyID: "x"}}, `two keys have the kid "x"`},
		"one key, two issuers": {[]fleetkey.Former{{Certificate: cert}, {Certificate: cert, Issuer: "https://old.example"}}, "two issuers"},
		"a nil key":            {[]fleetkey.Former{{Key: (*rsa.PublicKey)(nil), KeyID: "x"}}, "not a valid key"},
		"off the curve":        {[]fleetkey.Former{{Key: &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}, KeyID: "x"}}, "not a valid key"}, //nolint:staticcheck // no other way to an invalid one
		"a JWKS of 60 keys":    {many, "bytes of the JWKS"},
	} {
		store := fleetkeytest.NewStore()
		_, err := fleetkey.NewSigner(t.Context(), store, former(tc.formers...))
		assert.ErrorContains(t, err, tc.want, name)
		assert.Zero(t, store.Saves(), name)
	}
}
