package testkit

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// A Key is a certificate of a bundle, with its private half if that is there.
type Key struct {
	ID                  string
	NotBefore, NotAfter time.Time
	Private             crypto.Signer
}

// Signs reports whether the private half is there.
func (k Key) Signs() bool { return k.Private != nil }

// Keys reads a bundle without the code under test.
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
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		digest, err := (&jose.JSONWebKey{Key: cert.PublicKey}).Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, err
		}
		keys = append(keys, Key{base64.RawURLEncoding.EncodeToString(digest), cert.NotBefore, cert.NotAfter, private})
		private = nil
	}
	return keys, nil
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
