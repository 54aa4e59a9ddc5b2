package testkit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
)

// Must returns v, or panics if there is an error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Thumbprint returns the kid of a public key. It panics if the key's type has none.
func Thumbprint(public crypto.PublicKey) string {
	return base64.RawURLEncoding.EncodeToString(Must((&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)))
}

// KeyID returns the kid in the header of a token. It panics if there is no header.
func KeyID(token string) string {
	header, _, _ := strings.Cut(token, ".")
	var h struct{ Kid string }
	if err := json.Unmarshal(Must(base64.RawURLEncoding.DecodeString(header)), &h); err != nil {
		panic(err)
	}
	return h.Kid
}

// Method returns golang-jwt's signing method for a key.
func Method(private crypto.Signer) jwt.SigningMethod {
	switch key := private.(type) {
	case ed25519.PrivateKey:
		return jwt.SigningMethodEdDSA
	case *ecdsa.PrivateKey:
		return jwt.GetSigningMethod(map[int]string{256: "ES256", 384: "ES384"}[key.Curve.Params().BitSize])
	}
	return jwt.SigningMethodRS256
}

// Forge signs a token without the code under test, as a thief or another system does. The
// token is from Issuer for mallory and lives for ten minutes. Changes are names and values of
// claims; a nil value removes the claim.
func Forge(private crypto.Signer, kid, typ string, issued time.Time, changes ...any) string {
	claims := jwt.MapClaims{"iss": Issuer, "aud": Issuer, "sub": "mallory", "client_id": "web",
		"iat": issued.Unix(), "exp": issued.Add(10 * time.Minute).Unix()}
	for i := 0; i < len(changes); i += 2 {
		if name := changes[i].(string); changes[i+1] == nil {
			delete(claims, name)
		} else {
			claims[name] = changes[i+1]
		}
	}
	token := jwt.NewWithClaims(Method(private), claims)
	token.Header["kid"], token.Header["typ"] = kid, typ
	return Must(token.SignedString(private))
}

// NewKey generates a key for an algorithm.
func NewKey(alg string) crypto.Signer { return Must(jwstest.NewKey(alg, 2048)) }

// Certificate returns a self-signed certificate for a key.
func Certificate(private crypto.Signer, begin, end time.Time) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(begin.Unix()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: begin, NotAfter: end}
	return Must(x509.ParseCertificate(Must(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private))))
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
