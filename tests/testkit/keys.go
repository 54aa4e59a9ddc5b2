package testkit

import (
	"crypto"
	"crypto/ecdsa"
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
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

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
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PRIVATE KEY" {
			continue
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		require.NoError(t, err)
		if private := parsed.(crypto.Signer); Thumbprint(t, private.Public()) == kid {
			return private
		}
	}
	require.FailNow(t, "no private key", "of %s", kid)
	return nil
}

// Thumbprint returns the kid of a public key.
func Thumbprint(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	digest, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	require.NoError(t, err)
	return base64.RawURLEncoding.EncodeToString(digest)
}

// KeyID returns the kid in the header of a token.
func KeyID(t testing.TB, token string) string {
	t.Helper()
	segment, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(segment)
	require.NoError(t, err)
	var header struct{ Kid string }
	require.NoError(t, json.Unmarshal(text, &header))
	return header.Kid
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
