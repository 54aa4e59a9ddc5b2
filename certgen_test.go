package fleetkey

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This file tests the keys and certificates that are made here, by our own eyes
// and by openssl's, and that those of openssl are read.

func TestNewCertificate(t *testing.T) {
	begin := time.Date(2026, 5, 1, 14, 0, 0, 999, time.FixedZone("", 2*60*60))
	k, err := newKey("ES384", "https://op.example", begin)
	require.NoError(t, err)
	assert.Equal(t, "CN=https://op.example", k.cert.Subject.String())
	assert.Equal(t, k.cert.RawSubject, k.cert.RawIssuer, "self-signed")
	assert.NoError(t, k.cert.CheckSignature(k.cert.SignatureAlgorithm, k.cert.RawTBSCertificate, k.cert.Signature))
	assert.Equal(t, x509.KeyUsageDigitalSignature, k.cert.KeyUsage)
	assert.False(t, k.cert.IsCA)
	assert.Equal(t, time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), k.cert.NotBefore, "whole seconds of UTC")
	assert.Equal(t, time.Date(2036, 5, 1, 12, 0, 0, 0, time.UTC), k.cert.NotAfter)

	other := mustKey(t, "ES384", begin)
	assert.NotEqual(t, k.cert.SerialNumber, other.cert.SerialNumber)
	assert.Greater(t, k.cert.SerialNumber.BitLen(), 64, "hard to guess")
	assert.NotEqual(t, k.id, other.id)

	_, err = newKey("HS256", "x", begin)
	assert.ErrorContains(t, err, `unknown algorithm "HS256": use RS256, PS256, ES256, ES384 or EdDSA`)
	_, err = newKey("es256", "x", begin)
	assert.ErrorContains(t, err, "unknown algorithm")
}

func TestAlgorithmOfNewKeys(t *testing.T) {
	for name, want := range map[string]x509.SignatureAlgorithm{
		"RS256": x509.SHA256WithRSA, "PS256": x509.SHA256WithRSAPSS,
		"ES256": x509.ECDSAWithSHA256, "ES384": x509.ECDSAWithSHA384, "EdDSA": x509.PureEd25519,
	} {
		k := mustKey(t, name, may)
		assert.Equal(t, name, k.alg.name)
		assert.Equal(t, name, k.alg.method.Alg())
		assert.Equal(t, want, k.cert.SignatureAlgorithm)
		if public, ok := k.cert.PublicKey.(*rsa.PublicKey); ok {
			assert.Equal(t, 2048, public.N.BitLen())
			assert.Equal(t, 65537, public.E)
		}
	}
}

// TestKeyIDOfRFC7638 takes the example of RFC 7638 section 3.1.
func TestKeyIDOfRFC7638(t *testing.T) {
	const n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs" +
		"tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbI" +
		"SD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	modulus, err := base64.RawURLEncoding.DecodeString(n)
	require.NoError(t, err)
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}

	// Whatever certificate the key is in, its kid stays.
	for range 2 {
		set, err := parseKeySet([]byte(certificate(t, public, "example", "ca", ecKey(t, elliptic.P256()))))
		require.NoError(t, err)
		require.Equal(t, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", set.keys[0].id)
		require.Equal(t, "RS256", set.keys[0].alg.name)
	}
}

// TestLowOrderKeys checks the table by what it is there for: under each of its
// keys a signature made without any private key verifies.
func TestLowOrderKeys(t *testing.T) {
	points := smallPoints()
	forgeable := func(public ed25519.PublicKey) bool {
		for _, point := range points {
			signature := append(point[:], make([]byte, 32)...) // R, and S = 0
			for i := range 64 {
				if ed25519.Verify(public, []byte(strconv.Itoa(i)), signature) {
					return true
				}
			}
		}
		return false
	}
	var keys [][32]byte
	for _, point := range points {
		keys = append(keys, point)
		flipped := point // x = 0 has no sign, but can be written with one
		flipped[31] ^= 0x80
		keys = append(keys, flipped)
	}
	for _, last := range []byte{0xed, 0xee} { // y = 0 and y = 1, written as p and p + 1
		for _, top := range []byte{0x7f, 0xff} {
			var point [32]byte
			for i := range point {
				point[i] = 0xff
			}
			point[0], point[31] = last, top
			keys = append(keys, point)
		}
	}
	for _, public := range keys {
		assert.True(t, lowOrder(public[:]), "%x", public)
		assert.True(t, forgeable(public[:]), "%x is not of low order", public)
	}

	honest := mustKey(t, "EdDSA", may).cert.PublicKey.(ed25519.PublicKey)
	assert.False(t, lowOrder(honest))
	assert.False(t, forgeable(honest))
}

// smallPoints works out the eight points of Edwards25519 whose order divides 8:
// what is left of any point once the order of the main subgroup has gone from
// it. It returns them encoded (RFC 8032 section 5.1.2).
func smallPoints() [][32]byte {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	mod := func(a *big.Int) *big.Int { return a.Mod(a, p) }
	mul := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
	div := func(a, b *big.Int) *big.Int { return mul(a, new(big.Int).ModInverse(b, p)) }
	one := big.NewInt(1)
	d := div(big.NewInt(-121665), big.NewInt(121666))

	type point struct{ x, y *big.Int }
	add := func(a, b point) point { // RFC 8032 section 5.1.4, affine
		t := mul(d, mul(mul(a.x, b.x), mul(a.y, b.y)))
		x := new(big.Int).Add(mul(a.x, b.y), mul(b.x, a.y))
		y := new(big.Int).Add(mul(a.y, b.y), mul(a.x, b.x))
		return point{div(x, new(big.Int).Add(one, t)), div(y, mod(new(big.Int).Sub(one, t)))}
	}
	found := map[[32]byte]bool{}
	for y := int64(2); len(found) < 8; y++ {
		yy := mul(big.NewInt(y), big.NewInt(y))
		x := new(big.Int).ModSqrt(div(mod(new(big.Int).Sub(yy, one)), new(big.Int).Add(mul(d, yy), one)), p)
		if x == nil {
			continue
		}
		sum, double := point{new(big.Int), one}, point{x, big.NewInt(y)}
		for i := range order.BitLen() {
			if order.Bit(i) == 1 {
				sum = add(sum, double)
			}
			double = add(double, double)
		}
		for n, multiple := 0, sum; n < 8; n, multiple = n+1, add(multiple, sum) {
			var encoded [32]byte
			multiple.y.FillBytes(encoded[:])
			for i := range 16 {
				encoded[i], encoded[31-i] = encoded[31-i], encoded[i]
			}
			encoded[31] |= byte(multiple.x.Bit(0)) << 7
			found[encoded] = true
		}
	}
	var points [][32]byte
	for encoded := range found {
		points = append(points, encoded)
	}
	return points
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("FLEETKEY_REQUIRE") == "1" {
			t.Fatal("needs openssl")
		}
		t.Skip("skipped: openssl is missing: apt-get install openssl")
	}
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	require.NoError(t, err, "openssl %v: %s", args, out)
	return string(out)
}

// TestBundleByHand makes bundles as an operator would.
func TestBundleByHand(t *testing.T) {
	for want, args := range map[string][]string{
		"RS256": {"-newkey", "rsa:2048"},
		"PS256": {"-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"},
		"ES256": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"ES384": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"},
		"EdDSA": {"-newkey", "ed25519"},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			keyFile, certFile := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
			openssl(t, append([]string{"req", "-x509", "-nodes", "-sha256", "-days", "30", "-subj", "/CN=by hand",
				"-keyout", keyFile, "-out", certFile}, args...)...)
			key, err := os.ReadFile(keyFile)
			require.NoError(t, err)
			text := openssl(t, "x509", "-in", certFile, "-text") // with the PEM block at the end
			set, err := parseKeySet(append(key, text...))
			require.NoError(t, err)
			require.Len(t, set.keys, 1)
			assert.Equal(t, want, set.keys[0].alg.name)
			assert.Equal(t, "CN=by hand", set.keys[0].cert.Subject.String())
			assert.NotNil(t, set.keys[0].private)

			// The older forms of the key are refused with the way out, and
			// that way works.
			for name, form := range map[string][]string{
				"traditional": {"-traditional"}, "encrypted": {"-aes256", "-passout", "pass:secret"},
			} {
				if want == "EdDSA" && name == "traditional" {
					continue // there is none
				}
				old := openssl(t, append([]string{"pkey", "-in", keyFile}, form...)...)
				_, err := parseKeySet([]byte(old + text))
				require.ErrorContains(t, err, "openssl pkcs8 -topk8 -nocrypt")
				oldFile := filepath.Join(dir, name)
				require.NoError(t, os.WriteFile(oldFile, []byte(old), 0o600))
				now := openssl(t, "pkcs8", "-topk8", "-nocrypt", "-in", oldFile, "-passin", "pass:secret")
				again, err := parseKeySet([]byte(now + text))
				require.NoError(t, err)
				assert.True(t, sameKey(set.keys[0], again.keys[0]))
			}
		})
	}
}

// TestOpenSSLReadsOurBundles: what is in a store can be looked at.
func TestOpenSSLReadsOurBundles(t *testing.T) {
	for name, kind := range map[string]string{
		"RS256": "Signature Algorithm: sha256WithRSAEncryption", "PS256": "Signature Algorithm: rsassaPss",
		"ES256": "ASN1 OID: prime256v1", "ES384": "ASN1 OID: secp384r1", "EdDSA": "Public Key Algorithm: ED25519",
	} {
		t.Run(name, func(t *testing.T) {
			k := mustKey(t, name, may)
			file := filepath.Join(t.TempDir(), "bundle.pem")
			require.NoError(t, os.WriteFile(file, mustEncode(t, k), 0o600))

			text := openssl(t, "x509", "-in", file, "-noout", "-text")
			assert.Contains(t, text, kind)
			assert.Contains(t, text, "Digital Signature")
			assert.Contains(t, text, "Not Before: May  1 00:00:00 2026 GMT")

			der, err := x509.MarshalPKIXPublicKey(k.private.Public())
			require.NoError(t, err)
			public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
			assert.Equal(t, public, openssl(t, "pkey", "-in", file, "-pubout"))
			assert.Equal(t, public, openssl(t, "x509", "-in", file, "-noout", "-pubkey"))
		})
	}
}
