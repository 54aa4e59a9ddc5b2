package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

var errBare = errors.New("the signature does not verify")

// openBare is what no library can do without: the hash and the signature of
// text that lies ready, in the form that Go's crypto packages have it. It knows
// the fixture's tokens and one with a wrong signature, by their ends.
func openBare(_ context.Context, f *fixture) (contender, error) {
	type ready struct{ text, signature []byte }
	const end = 16 // characters of a token that are its own
	known := map[string]ready{}
	for _, token := range append([]string{wrongSignature(f.tokens[0])}, f.tokens...) {
		text, signature := signed(token)
		if f.algorithm == "ES256" {
			signature = asn1Signature(signature)
		}
		known[token[len(token)-end:]] = ready{[]byte(text), signature}
	}
	verify, sign := bareVerify(f.private.Public()), bareSign(f.private)
	text := known[f.tokens[0][len(f.tokens[0])-end:]].text
	return contender{
		issue: func() (string, error) {
			_, err := sign(text)
			return "", err
		},
		verify: func(token string) (string, error) {
			r := known[token[len(token)-end:]]
			if !verify(r.text, r.signature) {
				return "", errBare
			}
			return subject, nil
		},
	}, nil
}

func bareVerify(public crypto.PublicKey) func(text, signature []byte) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return func(text, signature []byte) bool {
			digest := sha256.Sum256(text)
			return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
		}
	case *ecdsa.PublicKey:
		return func(text, signature []byte) bool {
			digest := sha256.Sum256(text)
			return ecdsa.VerifyASN1(public, digest[:], signature)
		}
	case ed25519.PublicKey:
		return func(text, signature []byte) bool { return ed25519.Verify(public, text, signature) }
	}
	panic(fmt.Sprintf("no bare verification for %T", public))
}

func bareSign(private crypto.Signer) func(text []byte) ([]byte, error) {
	switch private := private.(type) {
	case *rsa.PrivateKey:
		return func(text []byte) ([]byte, error) {
			digest := sha256.Sum256(text)
			return rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, digest[:])
		}
	case *ecdsa.PrivateKey:
		return func(text []byte) ([]byte, error) {
			digest := sha256.Sum256(text)
			return ecdsa.SignASN1(rand.Reader, private, digest[:])
		}
	case ed25519.PrivateKey:
		return func(text []byte) ([]byte, error) { return ed25519.Sign(private, text), nil }
	}
	panic(fmt.Sprintf("no bare signature for %T", private))
}

// asn1Signature turns the r and s of a JWS (RFC 7518 section 3.4) into what
// crypto/ecdsa reads.
func asn1Signature(jws []byte) []byte {
	half := len(jws) / 2
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(jws[:half]), new(big.Int).SetBytes(jws[half:])})
	must(err)
	return der
}
