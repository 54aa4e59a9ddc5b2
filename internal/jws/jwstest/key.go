package jwstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// NewKey returns a new key for an algorithm. bits is the size of an RSA key.
func NewKey(alg string, bits int) (private crypto.Signer, err error) {
	switch alg {
	case "RS256", "PS256":
		return rsa.GenerateKey(rand.Reader, bits)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("no key for %q", alg)
}

// NewForger returns a Forger with a new key for an algorithm.
func NewForger(alg, kid string) *Forger {
	private, err := NewKey(alg, 2048)
	if err != nil {
		panic(err)
	}
	return &Forger{private, alg, kid}
}

// JWK returns the public key as an issuer publishes it (RFC 7517 section 4), with changes.
func (f *Forger) JWK(changes ...string) string {
	return ChangedJWK(jose.JSONWebKey{Key: f.Private.Public(), KeyID: f.KID, Algorithm: f.Alg, Use: "sig"}, changes...)
}

// ChangedJWK returns a JWK with changes.
func ChangedJWK(k jose.JSONWebKey, changes ...string) string {
	text, err := json.Marshal(k)
	if err != nil {
		panic(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		panic(err)
	}
	var base []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		base = append(base, name, string(members[name]))
	}
	return Changed(base, changes...)
}
