package main

import (
	"bytes"
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
	"net/http"
	"time"
)

var errBare = errors.New("the signature does not verify")

// openBare is what no library can do without: the hash and the signature of
// text that lies ready, in the form that Go's crypto packages have it. It knows
// the fixture's tokens and one with a wrong signature, by their ends.
func openBare(_ context.Context, f *fixture) contender {
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
	public, text := f.private.Public(), known[f.tokens[0][len(f.tokens[0])-end:]].text
	return contender{
		issue: func() (string, error) {
			_, err := bareSign(f.private, text)
			return "", err
		},
		verify: func(token string) (string, error) {
			r := known[token[len(token)-end:]]
			if !bareVerify(public, r.text, r.signature) {
				return "", errBare
			}
			return subject, nil
		},
		jwks: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.jwks))
		},
	}
}

func bareVerify(public crypto.PublicKey, text, signature []byte) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		digest := sha256.Sum256(text)
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(text)
		return ecdsa.VerifyASN1(public, digest[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(public, text, signature)
	}
	panic(fmt.Sprintf("no bare verification for %T", public))
}

func bareSign(private crypto.Signer, text []byte) ([]byte, error) {
	switch private := private.(type) {
	case *rsa.PrivateKey:
		digest := sha256.Sum256(text)
		return rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, digest[:])
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256(text)
		return ecdsa.SignASN1(rand.Reader, private, digest[:])
	case ed25519.PrivateKey:
		return ed25519.Sign(private, text), nil
	}
	panic(fmt.Sprintf("no bare signature for %T", private))
}

// asn1Signature turns the r and s of a JWS (RFC 7518 section 3.4) into what
// crypto/ecdsa reads.
func asn1Signature(jws []byte) []byte {
	half := len(jws) / 2
	return must(asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(jws[:half]), new(big.Int).SetBytes(jws[half:])}))
}
