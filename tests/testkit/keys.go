package testkit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A Key is a key of a bundle. A retired one has no NotBefore and no private half.
type Key struct {
	ID                  string
	NotBefore, NotAfter time.Time
	Private             crypto.Signer
}

// Signs reports whether the private half is there.
func (k Key) Signs() bool { return k.Private != nil }

// Keys reads the keys of a bundle, retired ones included, without the code under test.
func Keys(bundle []byte) (keys []Key, err error) {
	var private crypto.Signer
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "PRIVATE KEY" {
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			private = parsed.(crypto.Signer)
			continue
		}
		switch block.Type {
		case "REVOKED KEY":
			continue
		case "RETIRED KEY":
			until, err := time.Parse(time.RFC3339, block.Headers["Until"])
			if err != nil {
				return nil, err
			}
			keys = append(keys, Key{ID: block.Headers["Kid"], NotAfter: until})
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		keys = append(keys, Key{Thumbprint(cert.PublicKey), cert.NotBefore, cert.NotAfter, private})
		private = nil
	}
	return keys, nil
}

// Thumbprint returns the kid of a public key. It panics if the key is of no kind that has
// one.
func Thumbprint(public crypto.PublicKey) string {
	digest, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(digest)
}

// KeyID returns the kid in the header of a token. It panics if there is no header.
func KeyID(token string) string {
	header, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		panic(err)
	}
	var h struct{ Kid string }
	if err := json.Unmarshal(data, &h); err != nil {
		panic(err)
	}
	return h.Kid
}

// Forge signs an access token of Issuer for "mallory" without the code under test,
// as a thief does who has an ES256 or EdDSA key.
func Forge(private crypto.Signer, kid string, issued, expires time.Time) (string, error) {
	method := jwt.SigningMethod(jwt.SigningMethodES256)
	if _, ok := private.(ed25519.PrivateKey); ok {
		method = jwt.SigningMethodEdDSA
	}
	token := jwt.NewWithClaims(method, jwt.MapClaims{"iss": Issuer, "aud": Issuer, "sub": "mallory", "client_id": "web",
		"iat": issued.Unix(), "exp": expires.Unix()})
	token.Header["kid"], token.Header["typ"] = kid, "at+jwt"
	return token.SignedString(private)
}

// Bundle returns a key pair as an operator would write it, with a self-signed certificate.
func Bundle(t testing.TB, private crypto.Signer, begin, end time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, NotBefore: begin, NotAfter: end}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...)
}

// BundleEnding returns a bundle of one key that began an hour ago.
func BundleEnding(t testing.TB, end time.Time) []byte {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return Bundle(t, private, time.Now().Add(-time.Hour), end)
}

// ForeignBundle returns the bundle of another fleet.
func ForeignBundle(t testing.TB, cfg fleetkey.Config) []byte {
	t.Helper()
	other := fleetkeytest.NewStore()
	s, err := fleetkey.NewSigner(t.Context(), other, cfg)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	bundle, _ := other.Content()
	return bundle
}

// PrivateKey returns the private key of a kid in a bundle, as a thief would.
func PrivateKey(t testing.TB, bundle []byte, kid string) crypto.Signer {
	t.Helper()
	keys, err := Keys(bundle)
	require.NoError(t, err)
	for _, k := range keys {
		if k.ID == kid && k.Signs() {
			return k.Private
		}
	}
	require.FailNow(t, "no private key", "of %s", kid)
	return nil
}

// PublishedKeyIDs returns the kids in the JWKS of a signer.
func PublishedKeyIDs(t testing.TB, s *fleetkey.Signer) (kids []string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.JWKS().ServeHTTP(w, httptest.NewRequest("GET", fleetkey.JWKSPath, nil))
	require.Equal(t, 200, w.Code)
	var set struct{ Keys []struct{ Kid string } }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	return kids
}
