package fleetkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This file tests that a bundle comes back as it was written, and that a
// damaged one is an error that names the block and never a key set that lacks a
// key. Who signs when is tested in keyset_schedule_test.go.

var (
	may  = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	june = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
)

func mustKey(t testing.TB, algorithm string, notBefore time.Time) *key {
	t.Helper()
	k, err := newKey(algorithm, "https://op.example", notBefore)
	require.NoError(t, err)
	return k
}

func mustEncode(t testing.TB, keys ...*key) []byte {
	t.Helper()
	bundle, err := newKeySet(keys...).encode()
	require.NoError(t, err)
	return bundle
}

// withoutPrivate is the key as it stands in a bundle once it is verify-only.
func withoutPrivate(k *key) *key {
	public := *k
	public.private = nil
	return &public
}

// sameKey reports whether two keys are the same in all that a fleet goes by.
func sameKey(a, b *key) bool {
	type equaler interface{ Equal(crypto.PrivateKey) bool }
	return a.id == b.id && a.alg.name == b.alg.name &&
		a.cert.NotBefore.Equal(b.cert.NotBefore) && a.cert.NotAfter.Equal(b.cert.NotAfter) &&
		(a.private == nil) == (b.private == nil) &&
		(a.private == nil || a.private.(equaler).Equal(b.private))
}

func TestBundleRoundTrip(t *testing.T) {
	var all []*key
	for i, name := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		all = append(all, mustKey(t, name, may.AddDate(0, i, 0)))
	}
	all = append(all, withoutPrivate(mustKey(t, "ES256", may.AddDate(0, -1, 0))))

	bundle := mustEncode(t, all...)
	set, err := parseKeySet(bundle)
	require.NoError(t, err)
	require.Len(t, set.keys, len(all))
	for i, want := range []string{"EdDSA", "ES384", "ES256", "PS256", "RS256", "ES256"} {
		got := set.keys[i]
		assert.Equal(t, want, got.alg.name, "the newest key comes first")
		original := all[slices.IndexFunc(all, func(k *key) bool { return k.id == got.id })]
		assert.True(t, sameKey(original, got), "%s", want)
		assert.Equal(t, original.cert.Raw, got.cert.Raw)
		assert.Same(t, got, set.find(got.id))
	}
	assert.Nil(t, set.find(""), "no key has no kid")

	again, err := set.encode()
	require.NoError(t, err)
	assert.Equal(t, bundle, again, "the same set is the same bytes")

	// The order of the blocks means nothing.
	slices.Reverse(set.keys)
	backwards, err := set.encode()
	require.NoError(t, err)
	sorted, err := parseKeySet(backwards)
	require.NoError(t, err)
	assert.Equal(t, bundle, mustEncode(t, sorted.keys...))
}

func TestBundleIsWholeOrAnError(t *testing.T) {
	first, second := mustKey(t, "ES256", june), mustKey(t, "ES256", may)
	one, two := mustEncode(t, first), mustEncode(t, first, second)
	for n := range two {
		set, err := parseKeySet(two[:n])
		switch {
		case n >= len(two)-1: // the last line break is no part of the block
			require.NoError(t, err)
			require.Len(t, set.keys, 2)
		case n >= len(one)-1 && n < len(one)+5:
			// Exactly between two keys nothing can tell that there were more;
			// stores therefore promise to keep a bundle whole. Up to four
			// dashes of the next block count as text.
			require.NoError(t, err)
			require.Len(t, set.keys, 1)
			require.True(t, sameKey(first, set.keys[0]))
		default:
			require.Error(t, err, "cut after %d of %d bytes", n, len(two))
			require.Nil(t, set)
			require.True(t, strings.Contains(err.Error(), "PEM block ") || n < 5, "cut after %d bytes: %v", n, err)
		}
	}
}

func TestBundleFlippedBits(t *testing.T) {
	k := mustKey(t, "ES256", may)
	bundle := mustEncode(t, k)
	harmless, renamed := 0, 0
	for i := range bundle {
		for bit := range 8 {
			damaged := bytes.Clone(bundle)
			damaged[i] ^= 1 << bit
			set, err := parseKeySet(damaged)
			if err != nil {
				continue
			}
			require.Len(t, set.keys, 1, "byte %d bit %d", i, bit)
			require.True(t, sameKey(k, set.keys[0]), "byte %d bit %d changed the key", i, bit)
			harmless++
			if !bytes.Equal(k.cert.Raw, set.keys[0].cert.Raw) {
				// Issuer and subject differ, as in a certificate of another
				// authority, whose signature nobody here can check.
				require.NotEqual(t, set.keys[0].cert.RawIssuer, set.keys[0].cert.RawSubject, "byte %d bit %d", i, bit)
				renamed++
			}
		}
	}
	t.Logf("of %d flipped bits %d are harmless, %d of them in a name", 8*len(bundle), harmless, renamed)
}

// A pemBlock of a private key or certificate that newKey would not make.
func pemBlock(typ string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
}

func pkcs8(t testing.TB, private any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pemBlock(pemPrivateKey, der)
}

// certificate makes one for public, signed by issuer; with the public key of
// issuer itself and equal names it is self-signed.
func certificate(t testing.TB, public crypto.PublicKey, subject, issuerName string, issuer crypto.Signer) string {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: subject}, NotBefore: may, NotAfter: june}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: issuerName}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, issuer)
	require.NoError(t, err)
	return pemBlock(pemCertificate, der)
}

func ownCertificate(t testing.TB, private crypto.Signer) string {
	t.Helper()
	return certificate(t, private.Public(), "self", "self", private)
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return private
}

func TestMalformedBundles(t *testing.T) {
	k, other := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	key, cert := pkcs8(t, k), ownCertificate(t, k)
	pair := key + cert
	sec1, err := x509.MarshalECPrivateKey(k)
	require.NoError(t, err)
	ca := ecKey(t, elliptic.P384())
	leaf := certificate(t, k.Public(), "leaf", "ca", ca)
	tooLong := pair + strings.Repeat("#\n", MaxBundleSize/2)
	asNumber := func(text string) string { return strings.Replace(cert, "MII", text, 1) }

	for name, tc := range map[string]struct{ bundle, want string }{
		"empty":                          {"", "no PEM block"},
		"text only":                      {"hello, world\n", "no PEM block"},
		"JSON":                           {`{"keys":[]}`, "no PEM block"},
		"UTF-16":                         {"\xff\xfe" + strings.Join(strings.Split(pair, ""), "\x00"), "no PEM block"},
		"certificate first":              {cert + key, "PEM block 2: private key without a certificate"},
		"certificates first, two keys":   {cert + key + ownCertificate(t, other) + pkcs8(t, other), "PEM block 3: the private key before the certificate does not belong"},
		"key alone":                      {key, "PEM block 1: private key without a certificate"},
		"key at the end":                 {pair + pkcs8(t, other), "PEM block 3: private key without a certificate"},
		"two keys, one certificate":      {pkcs8(t, other) + pair, "PEM block 1: private key without a certificate"},
		"foreign key":                    {pkcs8(t, other) + cert, "PEM block 2: the private key before the certificate does not belong"},
		"foreign key of another kind":    {pkcs8(t, ca) + cert, "PEM block 2: the private key before the certificate does not belong"},
		"PKCS#1":                         {pemBlock("RSA PRIVATE KEY", sec1) + cert, "PEM block 1: RSA PRIVATE KEY: turn it into an unencrypted PKCS#8 key"},
		"SEC1":                           {pemBlock("EC PRIVATE KEY", sec1) + cert, "PEM block 1: EC PRIVATE KEY: turn it into"},
		"encrypted":                      {pemBlock("ENCRYPTED PRIVATE KEY", sec1) + cert, "PEM block 1: ENCRYPTED PRIVATE KEY: turn it into"},
		"EC parameters":                  {pemBlock("EC PARAMETERS", []byte{6, 0}) + pair, `PEM block 1: unknown type "EC PARAMETERS"`},
		"public key":                     {pair + pemBlock("PUBLIC KEY", sec1), `PEM block 3: unknown type "PUBLIC KEY"`},
		"trusted certificate":            {strings.ReplaceAll(cert, "CERTIFICATE", "TRUSTED CERTIFICATE"), "PEM block 1: unknown type"},
		"type in lower case":             {strings.ReplaceAll(cert, "CERTIFICATE", "certificate"), "PEM block 1: unknown type"},
		"SEC1 under the name of PKCS#8":  {pemBlock(pemPrivateKey, sec1) + cert, "PEM block 1: not a PKCS#8 private key"},
		"garbage for a key":              {pemBlock(pemPrivateKey, []byte("garbage")) + cert, "PEM block 1: not a PKCS#8 private key"},
		"garbage for a certificate":      {pair + pemBlock(pemCertificate, []byte("garbage")), "PEM block 3: not a certificate"},
		"DER after the private key":      {pemBlock(pemPrivateKey, append(derOf(key), 0)) + cert, "PEM block 1: not a PKCS#8 private key"},
		"empty block":                    {pair + pemBlock(pemCertificate, nil), "PEM block 3: not a certificate"},
		"DER after the certificate":      {pemBlock(pemCertificate, append(derOf(cert), 0)), "PEM block 1: not a certificate"},
		"PEM headers":                    {strings.Replace(key, "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1) + cert, `PEM block 1: PEM header "Proc-Type" is not supported; is the key encrypted?`},
		"same certificate twice":         {pair + cert, "PEM block 3: the same key as in block 2"},
		"same key, another certificate":  {pair + ownCertificate(t, k), "PEM block 3: the same key as in block 2"},
		"chain with its authority":       {key + leaf + ownCertificateAs(t, ca, "ca"), "PEM block 3: the authority that issued the certificate of block 2"},
		"authority first":                {ownCertificateAs(t, ca, "ca") + key + leaf, "PEM block 1: the authority that issued the certificate of block 3"},
		"over 64 KiB":                    {tooLong, "at most 65536 are allowed"},
		"no base64":                      {asNumber("***"), "PEM block 1: damaged"},
		"end of another type":            {strings.Replace(cert, "END CERTIFICATE", "END CERTIFICATF", 1), "PEM block 1: damaged"},
		"no end":                         {strings.Split(cert, "-----END")[0], "PEM block 1: damaged"},
		"no end, and another block":      {strings.Split(cert, "-----END")[0] + pair, "PEM block 1: damaged"},
		"begin in the block":             {strings.Replace(cert, "MII", "-----BEGIN X-----\nMII", 1), "PEM block 1: damaged"},
		"no begin":                       {strings.Replace(pair, "-----BEGIN PRIV", "PRIV", 1), "PEM block 1: damaged"},
		"second begin lost a dash":       {strings.Replace(pair, "-----BEGIN CERT", "----BEGIN CERT", 1), "PEM block 2: damaged"},
		"last end only":                  {pair + "-----END CERTIFICATE-----\n", "PEM block 3: damaged"},
		"indented, as YAML may leave it": {strings.ReplaceAll(pair, "\n", "\n  "), "PEM block 1: damaged"},
		"old Mac line ends":              {strings.ReplaceAll(pair, "\n", "\r"), "PEM block 1: damaged"},
		"all on one line":                {strings.ReplaceAll(pair, "\n", " "), "PEM block 1: damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := parseKeySet([]byte(tc.bundle))
			require.ErrorContains(t, err, tc.want)
			require.Nil(t, set)
			for line := range strings.Lines(key) {
				if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
					require.NotContains(t, err.Error(), line, "the error shows key material")
				}
			}
		})
	}
}

func derOf(block string) []byte {
	b, _ := pem.Decode([]byte(block))
	return b.Bytes
}

func ownCertificateAs(t testing.TB, private crypto.Signer, name string) string {
	t.Helper()
	return certificate(t, private.Public(), name, name, private)
}

func TestWeakKeysAreRefused(t *testing.T) {
	ca := ecKey(t, elliptic.P256())
	bits := func(n uint) *big.Int { return new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), n-1), big.NewInt(1)) }
	edIdentity := make(ed25519.PublicKey, ed25519.PublicKeySize)
	edIdentity[0] = 1
	for name, tc := range map[string]struct {
		public crypto.PublicKey
		want   string
	}{
		"RSA-1024":             {&rsa.PublicKey{N: bits(1024), E: 65537}, "PEM block 1: the RSA key has 1024 bits; at least 2048"},
		"RSA-2047":             {&rsa.PublicKey{N: bits(2047), E: 65537}, "PEM block 1: the RSA key has 2047 bits"},
		"RSA with exponent 3":  {&rsa.PublicKey{N: bits(2048), E: 3}, "PEM block 1: the RSA key has public exponent 3"},
		"P-224":                {ecKey(t, elliptic.P224()).Public(), "PEM block 1: the EC key is on curve P-224"},
		"P-521":                {ecKey(t, elliptic.P521()).Public(), "PEM block 1: the EC key is on curve P-521"},
		"Ed25519 of low order": {edIdentity, "PEM block 1: the Ed25519 key is a point of low order"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseKeySet([]byte(certificate(t, tc.public, "weak", "ca", ca)))
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestBundleWithTextAround(t *testing.T) {
	k, old := mustKey(t, "ES256", june), withoutPrivate(mustKey(t, "EdDSA", may))
	pair, oldCert := string(mustEncode(t, k)), string(mustEncode(t, old))
	for name, bundle := range map[string]string{
		"openssl's text":       "Bag Attributes\n  friendlyName: op\n" + pair + "Certificate:\n    Data:\n        Version: 3 (0x2)\n" + oldCert + "# the end",
		"CRLF line ends":       strings.ReplaceAll(pair+oldCert, "\n", "\r\n"),
		"no last line break":   strings.TrimSuffix(pair+oldCert, "\n"),
		"byte order mark":      "\ufeff" + pair + oldCert,
		"empty lines":          "\n\n" + pair + "\n\n\n" + oldCert + "\n\n",
		"trailing blanks":      strings.ReplaceAll(pair+oldCert, "\n", " \t\n"),
		"zero bytes":           pair + "\x00\x00" + oldCert + "\x00",
		"the older key first":  oldCert + pair,
		"four dashes, no more": pair + "----\n" + oldCert,
	} {
		t.Run(name, func(t *testing.T) {
			set, err := parseKeySet([]byte(bundle))
			require.NoError(t, err)
			require.Len(t, set.keys, 2)
			assert.True(t, sameKey(k, set.keys[0]))
			assert.True(t, sameKey(old, set.keys[1]))
		})
	}
}

// TestKidHeader: a certificate without a private key can say by a PEM header
// under which kid its owner signs.
func TestKidHeader(t *testing.T) {
	own, foreign := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	pair := pkcs8(t, own) + ownCertificate(t, own)
	set, err := parseKeySet([]byte(pair))
	require.NoError(t, err)
	withKid := func(block, kid string) string {
		return strings.Replace(block, "CERTIFICATE-----\n", "CERTIFICATE-----\n"+kid+"\n\n", 1)
	}
	cert := ownCertificate(t, foreign)
	for name, kid := range map[string]string{"plain": "2024-key", "one character": "x", "128 bytes": strings.Repeat("k", 128), "inner space and colon": "a b: c"} {
		set, err := parseKeySet([]byte(pair + withKid(cert, "Kid: "+kid)))
		require.NoError(t, err, name)
		require.NotNil(t, set.find(kid), name)
		again, err := parseKeySet(mustEncode(t, set.keys...))
		require.NoError(t, err, name)
		require.True(t, sameKey(set.find(kid), again.find(kid)), name)
	}
	for name, tc := range map[string]struct{ bundle, want string }{
		"empty":              {pair + withKid(cert, "Kid: "), "PEM block 3: "},
		"129 bytes":          {pair + withKid(cert, "Kid: "+strings.Repeat("k", 129)), "PEM block 3: "},
		"quote":              {pair + withKid(cert, `Kid: a"b`), "PEM block 3: "},
		"backslash":          {pair + withKid(cert, `Kid: a\b`), "PEM block 3: "},
		"not ASCII":          {pair + withKid(cert, "Kid: é"), "PEM block 3: "},
		"control character":  {pair + withKid(cert, "Kid: a\x01b"), "PEM block 3: "},
		"lower case":         {pair + withKid(cert, "kid: x"), `PEM block 3: PEM header "kid" is not supported`},
		"another header too": {pair + withKid(cert, "Kid: x\nAlg: none"), `PEM block 3: PEM header "Alg" is not supported`},
		"on a private key":   {strings.Replace(pair, "KEY-----\n", "KEY-----\nKid: x\n\n", 1), `PEM block 1: PEM header "Kid" is not supported`},
		"on a signing key":   {pkcs8(t, own) + withKid(ownCertificate(t, own), "Kid: x"), "PEM block 2: PEM header Kid is for certificates without a private key"},
		"the kid of ours":    {pair + withKid(cert, "Kid: "+set.keys[0].id), "PEM block 3: the same key as in block 2"},
		"the same kid twice": {pair + withKid(cert, "Kid: x") + withKid(ownCertificate(t, ecKey(t, elliptic.P256())), "Kid: x"), "PEM block 4: the same key as in block 3"},
	} {
		set, err := parseKeySet([]byte(tc.bundle))
		assert.ErrorContains(t, err, tc.want, name)
		assert.Nil(t, set, name)
	}
}

func TestBundleSizeLimit(t *testing.T) {
	pair := mustEncode(t, mustKey(t, "ES256", may))
	padded := append(bytes.Repeat([]byte("\n"), MaxBundleSize-len(pair)), pair...)
	set, err := parseKeySet(padded)
	require.NoError(t, err, "exactly 64 KiB")
	require.Len(t, set.keys, 1)
	_, err = parseKeySet(append(padded, '\n'))
	require.ErrorContains(t, err, "65537 bytes")

	// What cannot be read back is not written either.
	fat := make([]*key, 150)
	for i := range fat {
		fat[i] = set.keys[0]
	}
	_, err = newKeySet(fat...).encode()
	require.ErrorContains(t, err, "a bundle of 150 keys has")
}

// FuzzParseBundle: no bundle makes the parser panic, and one that it accepts
// comes back with the same keys when it is written and read again.
func FuzzParseBundle(f *testing.F) {
	k, old := mustKey(f, "ES256", june), withoutPrivate(mustKey(f, "EdDSA", may))
	both := mustEncode(f, k, old)
	f.Add(both)
	f.Add(mustEncode(f, old))
	f.Add(both[:len(both)/2])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nA: b\n\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN -----BEGIN -----END -----END "))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		set, err := parseKeySet(bundle)
		if err != nil {
			require.Nil(t, set)
			return
		}
		written, err := set.encode()
		if err != nil {
			require.ErrorContains(t, err, "at most", "written anew it may only be too long")
			return
		}
		again, err := parseKeySet(written)
		require.NoError(t, err)
		require.True(t, slices.EqualFunc(set.keys, again.keys, sameKey))
	})
}
