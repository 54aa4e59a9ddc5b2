package jws

import (
	"crypto"
	"crypto/fips140"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Thumbprint returns the RFC 7638 SHA-256 thumbprint of a public key in base64url. The key
// must be of a kind that AlgorithmOf accepts.
func Thumbprint(public crypto.PublicKey) string {
	digest, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		panic("fleetkey: thumbprint of an accepted key: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(digest)
}

// JWK returns a public key with a kid (RFC 7517 section 4).
func JWK(public crypto.PublicKey, kid string, alg Algorithm) jose.JSONWebKey {
	return jose.JSONWebKey{Key: public, KeyID: kid, Algorithm: alg.Name, Use: "sig"}
}

// EncodeJWKS returns a key set (RFC 7517 section 5) as JSON, and its entity tag.
func EncodeJWKS(keys []jose.JSONWebKey) (body []byte, etag string, err error) {
	// go-jose computes the SHA-1 thumbprint of each certificate, if only to compare it.
	fips140.WithoutEnforcement(func() { body, err = json.Marshal(jose.JSONWebKeySet{Keys: keys}) })
	if err != nil {
		return nil, "", fmt.Errorf("encode the JSON Web Key Set: %w", err)
	}
	digest := sha256.Sum256(body)
	return body, `"` + hex.EncodeToString(digest[:16]) + `"`, nil
}
