package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// An Algorithm is a signature algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1). A key
// has exactly one (RFC 8725 section 3.1), which never comes from a token.
type Algorithm struct {
	Name   string // JOSE name, such as RS256
	method jwt.SigningMethod
}

// strictPS256 requires a salt as long as the hash (RFC 7518 section 3.5); golang-jwt's
// PS256 accepts any length.
func strictPS256() jwt.SigningMethod {
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: jwt.SigningMethodPS256.SigningMethodRSA,
		Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256},
	}
}

// AlgorithmNamed returns the algorithm with a JOSE name. It does not use golang-jwt's
// registry, which any dependency of a program can change.
func AlgorithmNamed(name string) (Algorithm, error) {
	switch name {
	case "RS256":
		return Algorithm{name, jwt.SigningMethodRS256}, nil
	case "PS256":
		return Algorithm{name, strictPS256()}, nil
	case "ES256":
		return Algorithm{name, jwt.SigningMethodES256}, nil
	case "ES384":
		return Algorithm{name, jwt.SigningMethodES384}, nil
	case "EdDSA":
		return Algorithm{name, jwt.SigningMethodEdDSA}, nil
	}
	return Algorithm{}, fmt.Errorf("unknown algorithm %q: use RS256, PS256, ES256, ES384 or EdDSA", name)
}

// AlgorithmOf returns the algorithm of a public key, or an error if the kind or strength of
// the key must not be trusted. For an RSA key it is RS256, or PS256 if pss is set.
func AlgorithmOf(public crypto.PublicKey, pss bool) (Algorithm, error) {
	if !wellFormed(public) {
		return Algorithm{}, fmt.Errorf("the %T is not a valid key", public)
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		if err := checkRSA(public); err != nil {
			return Algorithm{}, err
		}
		if pss {
			return AlgorithmNamed("PS256")
		}
		return AlgorithmNamed("RS256")
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return AlgorithmNamed("ES256")
		case elliptic.P384():
			return AlgorithmNamed("ES384")
		}
		return Algorithm{}, fmt.Errorf("the EC key is on curve %s; use P-256 or P-384", public.Params().Name)
	case ed25519.PublicKey:
		if lowOrder(public) {
			return Algorithm{}, errors.New("the Ed25519 key is a point of low order, under which anyone can sign")
		}
		return AlgorithmNamed("EdDSA")
	}
	return Algorithm{}, fmt.Errorf("keys of type %T are not supported; use RSA, P-256, P-384 or Ed25519", public)
}

// sign returns the signature of a signing input. golang-jwt's ES256 and ES384 convert the
// result of crypto/ecdsa to two big integers, and these to the bytes of RFC 7518 section
// 3.4. Converting the bytes directly saves eight allocations and 3% of the time.
func (a Algorithm) sign(key crypto.Signer, text []byte) ([]byte, error) {
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return a.method.Sign(string(text), key)
	}
	size := (private.Params().BitSize + 7) / 8
	var der []byte
	var err error
	if size == sha256.Size {
		digest := sha256.Sum256(text)
		der, err = ecdsa.SignASN1(rand.Reader, private, digest[:])
	} else {
		digest := sha512.Sum384(text)
		der, err = ecdsa.SignASN1(rand.Reader, private, digest[:])
	}
	if err != nil {
		return nil, err
	}
	return concatenated(der, size), nil
}

// concatenated converts an ECDSA signature from DER, a SEQUENCE { INTEGER r, INTEGER s }
// under 128 bytes (RFC 3279 section 2.2.3), to r and s at full size, concatenated (RFC 7518
// section 3.4).
func concatenated(der []byte, size int) []byte {
	out := make([]byte, 2*size)
	rest := der[2:]
	for end := size; end <= 2*size; end += size {
		value := rest[2 : 2+rest[1]]
		rest = rest[2+len(value):]
		value = value[max(0, len(value)-size):] // without the leading zero of a DER integer
		copy(out[end-len(value):end], value)
	}
	return out
}
