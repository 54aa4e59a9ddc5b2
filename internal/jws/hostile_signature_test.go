package jws_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// publicKeyAsSecret signs with HMAC and the public key as the secret (RFC 8725 section 2.1).
// The encoding of the key does not matter, since a key has one algorithm.
func publicKeyAsSecret(t *testing.T, p *party) []hostile {
	spki, err := x509.MarshalPKIXPublicKey(p.Private.Public())
	require.NoError(t, err)
	secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	return []hostile{
		{"HS256 with the public key", signWith(jwt.SigningMethodHS256, secret, p.Header("alg", `"HS256"`), payload()), jws.ErrWrongAlgorithm},
		{"HMAC under the name of the key's algorithm", signWith(jwt.SigningMethodHS256, secret, p.Header(), payload()), jws.ErrBadSignature},
	}
}

// otherKeys returns tokens that other parties sign with their algorithm, while the header names
// p's key, with their alg and with p's.
func otherKeys(p *party, parties []*party) (rows []hostile) {
	for _, other := range parties {
		if other == p {
			continue
		}
		rows = append(rows,
			hostile{"signed by " + other.Alg, other.Forge(p.Header("alg", `"`+other.Alg+`"`), payload()), jws.ErrWrongAlgorithm},
			hostile{"signed by " + other.Alg + ", who lies", other.Forge(p.Header(), payload()), jws.ErrBadSignature},
			hostile{"of " + other.Alg, other.good(), jws.ErrUnknownKey})
	}
	return rows
}

// withSignatures replaces the signature of a valid token by invalid ones.
func withSignatures(good string, signatures map[string][]byte) (rows []hostile) {
	for name, bad := range signatures {
		rows = append(rows, hostile{"signature " + name, withSignature(good, bad), jws.ErrBadSignature})
	}
	return rows
}

// badSignatures returns signatures that are invalid for every algorithm.
func badSignatures(p *party) []hostile {
	good, other := p.good(), p.Forge(p.Header(), payload("sub", `"root"`))
	signature, parts := signatureOf(good), strings.Split(good, ".")
	size := len(signature)
	flip := func(i int) []byte {
		flipped := slices.Clone(signature)
		flipped[i] ^= 1
		return flipped
	}
	rows := []hostile{
		{"signature of another token", withSignature(good, signatureOf(other)), jws.ErrBadSignature},
		{"another payload", parts[0] + "." + b64(payload("sub", `"root"`)) + "." + parts[2], jws.ErrBadSignature},
		{"another spelling of the header", b64(p.Header()+" ") + "." + parts[1] + "." + parts[2], jws.ErrBadSignature},
		{"another spelling of the payload", parts[0] + "." + b64(payload()+" ") + "." + parts[2], jws.ErrBadSignature},
		{"expired and badly signed", withSignature(p.Forge(p.Header(), payload("exp", "1")), signature), jws.ErrBadSignature},
		{"no JSON and badly signed", withSignature(p.Forge(p.Header(), "{"), signature), jws.ErrBadSignature},
	}
	return append(rows, withSignatures(good, map[string][]byte{
		"first bit": flip(0), "middle bit": flip(size / 2), "last bit": flip(size - 1),
		"zero": make([]byte, size), "all ones": []byte(strings.Repeat("\xff", size)),
		"one byte": signature[:1], "cut by one": signature[:size-1], "cut in half": signature[:size/2], "first byte cut": signature[1:],
		"extended by a zero": append(slices.Clone(signature), 0), "a zero before": append([]byte{0}, signature...),
		"twice": append(slices.Clone(signature), signature...), "very long": make([]byte, 8000),
	})...)
}

// badECDSASignatures returns valid signatures in the format of another standard or algorithm.
// TestWycheproofSignatures tests invalid numbers.
func badECDSASignatures(t *testing.T, p *party) []hostile {
	good := p.good()
	signature, digest := signatureOf(good), sha256.Sum256([]byte(good[:strings.LastIndexByte(good, '.')]))
	der, err := p.Private.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	wide := slices.Concat(make([]byte, 16), signature[:32], make([]byte, 16), signature[32:])
	return withSignatures(good, map[string][]byte{
		"in DER": der, "as wide as ES384": wide, "as wide as ES512": append(make([]byte, 68), signature...),
		"r and s exchanged": slices.Concat(signature[32:], signature[:32]),
	})
}

// otherRSASignatures returns signatures by the same key with other algorithms.
// TestWycheproofSignatures tests damaged paddings and salts.
func otherRSASignatures(p *party) (rows []hostile) {
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodRS256, jwt.SigningMethodRS512, jwt.SigningMethodPS256, jwt.SigningMethodPS384} {
		if method.Alg() != p.Alg {
			rows = append(rows,
				hostile{method.Alg() + " of the same key", signWith(method, p.Private, p.Header("alg", `"`+method.Alg()+`"`), payload()), jws.ErrWrongAlgorithm},
				hostile{method.Alg() + " of the same key as " + p.Alg, signWith(method, p.Private, p.Header(), payload()), jws.ErrBadSignature})
		}
	}
	return rows
}
