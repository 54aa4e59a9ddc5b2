package jws_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
)

// TestSign verifies signatures with golang-jwt, an independent implementation of RFC 7518.
func TestSign(t *testing.T) {
	for _, name := range allAlgorithms {
		p := newParty(t, name)
		alg, err := jws.AlgorithmOf(p.Private.Public(), name == "PS256")
		require.NoError(t, err)
		require.Equal(t, name, alg.Name)
		sign := func(size int) (string, error) {
			return jws.Sign(alg, p.Private, jws.EncodeHeader(alg, p.KID, "at+jwt"), []byte(payload("x", `"`+strings.Repeat("x", size)+`"`)))
		}
		small, err := sign(0)
		require.NoError(t, err)
		large, size := "", (jws.MaxTokenSize-len(small))*3/4+3
		_, err = sign(size)
		require.ErrorIs(t, err, jws.ErrInvalidClaims)
		require.ErrorContains(t, err, "bytes; at most 16384 are allowed")
		for ; large == ""; size-- { // find the largest payload that fits
			large, _ = sign(size)
		}
		require.Len(t, large, jws.MaxTokenSize)
		for _, token := range []string{small, large} {
			_, err := jwstest.Strict(name, noon).Parse(token, p.keyfunc)
			require.NoError(t, err, name)
			_, err = p.verify(token)
			require.NoError(t, err, name)
		}
	}

	rs256, err := jws.AlgorithmNamed("RS256")
	require.NoError(t, err)
	_, err = jws.Sign(rs256, newParty(t, "EdDSA").Private, "e30", nil)
	require.Error(t, err, "the key must be of the algorithm's kind")
	es256, err := jws.AlgorithmNamed("ES256")
	require.NoError(t, err)
	broken := *newParty(t, "ES384").Private.(*ecdsa.PrivateKey)
	broken.PublicKey = newParty(t, "ES256").Private.(*ecdsa.PrivateKey).PublicKey
	_, err = jws.Sign(es256, &broken, "e30", nil)
	require.Error(t, err, "the halves of the key must belong together")
}

// acceptsAll accepts every signature. A hostile or careless dependency could register it in
// golang-jwt's table of signing methods, which every package of a program can change.
type acceptsAll struct{ jwt.SigningMethod }

func (acceptsAll) Verify(string, []byte, any) error { return nil }

func TestSigningMethodsAreHeld(t *testing.T) {
	for _, alg := range allAlgorithms {
		method := jwt.GetSigningMethod(alg)
		jwt.RegisterSigningMethod(alg, func() jwt.SigningMethod { return acceptsAll{method} })
		defer jwt.RegisterSigningMethod(alg, func() jwt.SigningMethod { return method })
		p := newParty(t, alg)
		good := signWith(method, p.Private, p.Header(), payload())
		_, err := p.verify(good)
		require.NoError(t, err)
		_, err = p.verify(withSignature(good, signatureOf(good)[1:]))
		require.ErrorIs(t, err, jws.ErrBadSignature, alg)
	}
}

// rocaModulus returns a modulus of 2048 bits with the property of the faulty chips: modulo
// each of the first 126 primes, it is a power of 65537. It need not be a product of two primes.
func rocaModulus() *big.Int {
	product := big.NewInt(2)
	for p := int64(3); p <= 701; p += 2 {
		if big.NewInt(p).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(p))
		}
	}
	n := new(big.Int).Lsh(big.NewInt(3), 2046)
	n.Sub(n, new(big.Int).Mod(n, product))
	return n.Add(n, new(big.Int).Exp(big.NewInt(65537), big.NewInt(123456789), product))
}

// TestWeakKeys: weak keys and keys of an unknown kind are rejected.
func TestWeakKeys(t *testing.T) {
	curve := func(c elliptic.Curve) crypto.PublicKey { return &ecdsa.PublicKey{Curve: c} }
	key := func(n *big.Int, e int) crypto.PublicKey { return &rsa.PublicKey{N: n, E: e} }
	bits := func(n uint) *big.Int {
		return new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), n), big.NewInt(1942289))
	}
	roca := rocaModulus()
	for name, c := range map[string]struct {
		public crypto.PublicKey
		want   string
	}{
		"of a faulty chip":      {key(roca, 65537), "CVE-2017-15361"},
		"not of a faulty chip":  {key(new(big.Int).Add(roca, big.NewInt(2)), 65537), ""},
		"too short for it, too": {key(new(big.Int).Rsh(roca, 1), 65537), "the RSA key has 2047 bits; at least 2048 are needed"},
		"RSA-8192":              {key(bits(8192), 65537), ""},
		"longer than that":      {key(bits(8193), 65537), "the RSA key has 8193 bits; at most 8192 are allowed"},
		"is even":               {key(new(big.Int).Lsh(roca, 1), 65537), "the modulus of the RSA key is even"},
		"exponent 3":            {key(bits(2048), 3), "the RSA key has public exponent 3; at least 65537 is needed"},
		"P-224":                 {curve(elliptic.P224()), "the EC key is on curve P-224; use P-256 or P-384"},
		"Ed25519 of low order":  {append(ed25519.PublicKey{1}, make([]byte, 31)...), "the Ed25519 key is a point of low order"},
		"RSA without a modulus": {key(nil, 65537), "the *rsa.PublicKey is not a valid key"},
		"RSA that is nil":       {(*rsa.PublicKey)(nil), "not a valid key"},
		"EC that is nil":        {(*ecdsa.PublicKey)(nil), "not a valid key"},
		"EC without a curve":    {curve(nil), "not a valid key"},
		"EC without a point":    {curve(elliptic.P256()), "not a valid key"},
		"EC off its curve":      {&ecdsa.PublicKey{Curve: elliptic.P384(), X: big.NewInt(1), Y: big.NewInt(1)}, "not a valid key"}, //nolint:staticcheck // no other way to make an invalid key
		"a short Ed25519 key":   {make(ed25519.PublicKey, 31), "not a valid key"},
		"no key":                {nil, "keys of type <nil> are not supported"},
		"a private key":         {ed25519.PrivateKey{}, "keys of type ed25519.PrivateKey are not supported; use RSA, P-256, P-384 or Ed25519"},
	} {
		alg, err := jws.AlgorithmOf(c.public, false)
		if c.want == "" {
			require.NoError(t, err, name)
			require.Equal(t, "RS256", alg.Name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
		require.Zero(t, alg)
	}
}

// TestLowOrderKeys: for each rejected key, a signature made without a private key verifies. The
// five y coordinates and two non-canonical encodings of them, each with both signs of x, are
// all encodings of the eight points.
func TestLowOrderKeys(t *testing.T) {
	var keys []ed25519.PublicKey
	for _, y := range []string{strings.Repeat("00", 32), strings.Repeat("00", 31) + "01",
		"05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826", "7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
		"7f" + strings.Repeat("ff", 30) + "ec", "7f" + strings.Repeat("ff", 30) + "ed", "7f" + strings.Repeat("ff", 30) + "ee"} {
		key, err := hex.DecodeString(y)
		require.NoError(t, err)
		slices.Reverse(key)
		negative := slices.Clone(key)
		negative[31] |= 0x80
		keys = append(keys, key, negative)
	}
	forgeable := func(public ed25519.PublicKey) bool {
		for _, r := range keys {
			for i := range 64 {
				if ed25519.Verify(public, []byte{byte(i)}, append(slices.Clone(r), make([]byte, 32)...)) { // signature: R, and S = 0
					return true
				}
			}
		}
		return false
	}
	for _, key := range keys {
		_, err := jws.AlgorithmOf(key, false)
		assert.ErrorContains(t, err, "low order", "%x", key)
		assert.True(t, forgeable(key), "%x is not of low order", key)
	}
	honest := newParty(t, "EdDSA").Private.Public().(ed25519.PublicKey)
	assert.False(t, forgeable(honest))
}

// TestJWKs tests errors. TestJWKS in package trust reads each kind of key with go-jose, and
// TestThumbprintExamples tests the examples of RFCs.
func TestJWKs(t *testing.T) {
	require.Panics(t, func() { jws.Thumbprint("no key") })
	ed := newParty(t, "EdDSA")
	body, etag, err := jws.EncodeJWKS([]jose.JSONWebKey{jws.JWK(ed.Private.Public(), ed.KID, jws.Algorithm{Name: "EdDSA"})})
	require.NoError(t, err)
	assert.Regexp(t, `^"[0-9a-f]{32}"$`, etag)
	var set struct{ Keys []map[string]string }
	require.NoError(t, json.Unmarshal(body, &set))
	x := base64.RawURLEncoding.EncodeToString(ed.Private.Public().(ed25519.PublicKey))
	assert.Equal(t, []map[string]string{{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": ed.KID, "alg": "EdDSA", "use": "sig"}}, set.Keys)

	_, _, err = jws.EncodeJWKS([]jose.JSONWebKey{{Key: "no key"}})
	assert.ErrorContains(t, err, "encode the JSON Web Key Set: ")
}
