package keyset_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// This file tests that a bundle is read as it was written, and that a damaged one causes an
// error that names the block, and never a key set without a key.

func encode(t testing.TB, set *keyset.Set) []byte {
	t.Helper()
	bundle, err := set.Encode()
	require.NoError(t, err)
	return bundle
}

// same reports whether two sets have the same meaning.
func same(a, b *keyset.Set) bool {
	type equaler interface{ Equal(crypto.PrivateKey) bool }
	return slices.EqualFunc(a.Keys, b.Keys, func(a, b *keyset.Key) bool {
		return a.ID == b.ID && a.Alg.Name == b.Alg.Name && a.Cert.NotBefore.Equal(b.Cert.NotBefore) &&
			a.Cert.NotAfter.Equal(b.Cert.NotAfter) && a.Private.(equaler).Equal(b.Private)
	}) && slices.EqualFunc(a.Retired, b.Retired, func(a, b keyset.Retired) bool {
		return a.ID == b.ID && a.Alg.Name == b.Alg.Name && a.Until.Equal(b.Until) && jws.Thumbprint(a.Public) == b.ID
	}) && slices.Equal(a.Revoked, b.Revoked)
}

func TestBundleRoundTrip(t *testing.T) {
	var keys []*keyset.Key
	var retired []keyset.Retired
	for i, algorithm := range []string{"RS256", "ES256", "ES384", "EdDSA"} {
		keys = append(keys, keysettest.Key(t, algorithm, day(t, "2027-01-01").AddDate(0, -i, 0)))
		old := keysettest.Key(t, algorithm, day(t, "2026-01-01"))
		retired = append(retired, retiredKey(t, old.Public, i == 0, day(t, "2026-05-01").AddDate(0, -i, 0).In(time.FixedZone("", 3600)))) // the RSA key is for PS256
	}
	keys[0].ID, keys[0].Alg = retired[0].ID, retired[0].Alg // the RSA key is also retired, so New drops it from Keys
	all := keyset.New(keys, retired, []string{kid("y"), kid("z")})
	require.Len(t, all.Keys, 3)
	bundle := encode(t, all)
	set, err := keyset.Parse(bundle)
	require.NoError(t, err)
	require.True(t, same(all, set))
	for i, want := range []string{"ES256", "ES384", "EdDSA"} {
		require.Equal(t, want, set.Keys[i].Alg.Name, "the newest key must come first")
		require.Equal(t, all.Keys[i].Cert.Raw, set.Keys[i].Cert.Raw)
	}
	require.Equal(t, bundle, encode(t, set), "equal sets must be encoded to equal bytes")
}

func TestBundleIsWholeOrAnError(t *testing.T) {
	all := schedule(t, "a: 2026-06-01", "b: 2026-05-01", "x: retired until 2026-05-02", "y: revoked")
	ends := map[int]*keyset.Set{0: nil}
	for _, set := range []*keyset.Set{keyset.New(all.Keys[:1], nil, nil), keyset.New(all.Keys, nil, nil), keyset.New(all.Keys, all.Retired, nil), all} {
		ends[len(encode(t, set))] = set
	}
	bundle := encode(t, all)
	for n := range bundle {
		var want *keyset.Set
		for end, set := range ends {
			// A bundle cut between two blocks looks complete, so stores must keep a
			// bundle whole. The last line break is not part of a block, and up to four
			// dashes of the next block count as text.
			if n >= end-1 && n < end+5 {
				want = set
			}
		}
		set, err := keyset.Parse(bundle[:n])
		if want != nil {
			require.NoError(t, err)
			require.True(t, same(want, set), "cut after %d bytes", n)
			continue
		}
		require.Nil(t, set)
		require.True(t, err != nil && (strings.Contains(err.Error(), "PEM block ") || n < 5), "cut after %d bytes: %v", n, err)
	}
}

// TestBundleFlippedBits: a flipped bit is detected or has no effect. In particular, it does not
// undo a revocation or extend the trust in a key.
func TestBundleFlippedBits(t *testing.T) {
	all := schedule(t, "a: 2026-05-01", "x: retired until 2026-06-01", "y: revoked")
	bundle := encode(t, all)
	for i := range bundle {
		for bit := range 8 {
			damaged := bytes.Clone(bundle)
			damaged[i] ^= 1 << bit
			set, err := keyset.Parse(damaged)
			if err != nil {
				continue
			}
			require.True(t, same(all, set), "byte %d bit %d changed the set", i, bit)
			if cert := set.Keys[0].Cert; !bytes.Equal(all.Keys[0].Cert.Raw, cert.Raw) {
				// Issuer and subject differ, as in a certificate signed by a CA,
				// whose signature cannot be checked here.
				require.NotEqual(t, cert.RawIssuer, cert.RawSubject, "byte %d bit %d", i, bit)
			}
		}
	}
}

// These helpers make blocks that a Maker would not.

func block(typ string, der []byte, headers ...string) string {
	b := &pem.Block{Type: typ, Bytes: der, Headers: map[string]string{}}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		b.Headers[name] = value
	}
	return string(pem.EncodeToMemory(b))
}

func derOf(block string) []byte {
	b, _ := pem.Decode([]byte(block))
	return b.Bytes
}

func privateKey(t testing.TB, private any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return block("PRIVATE KEY", der)
}

func certificate(t testing.TB, public crypto.PublicKey, subject, issuerName string, issuer crypto.Signer) string {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: subject}, NotBefore: day(t, "2026-05-01"), NotAfter: day(t, "2026-06-01")}
	return block("CERTIFICATE", certify(t, template, &x509.Certificate{Subject: pkix.Name{CommonName: issuerName}}, public, issuer).Raw)
}

func own(t testing.TB, private crypto.Signer) string {
	t.Helper()
	return certificate(t, private.Public(), "self", "self", private)
}

func TestBundleWithTextAround(t *testing.T) {
	all := schedule(t, "a: 2026-06-01", "x: retired until 2026-05-02", "y: revoked")
	pair, rest := string(encode(t, keyset.New(all.Keys, nil, nil))), string(encode(t, keyset.New(nil, all.Retired, all.Revoked)))
	for title, bundle := range map[string]string{
		"openssl's text":       "Bag Attributes\n  friendlyName: op\n" + pair + "Certificate:\n    Data:\n        Version: 3 (0x2)\n" + rest + "# the end",
		"mark, CRLF line ends": "\ufeff" + strings.ReplaceAll(pair+rest, "\n", "\r\n"),
		"no last line break":   strings.TrimSuffix(pair+rest, "\n"),
		"trailing blanks":      strings.ReplaceAll(pair+rest, "\n", " \t\n"),
		"zero bytes":           pair + "\x00\x00" + rest + "\x00",
		"four dashes, no more": pair + "----\n" + rest,
	} {
		set, err := keyset.Parse([]byte(bundle))
		require.NoError(t, err, title)
		require.True(t, same(all, set), title)
	}
}

func TestBundleSizeLimit(t *testing.T) {
	all := schedule(t, "a: 2026-05-01")
	pair := encode(t, all)
	padded := append(bytes.Repeat([]byte("\n"), keyset.MaxBundleSize-len(pair)), pair...)
	set, err := keyset.Parse(padded)
	require.NoError(t, err, "exactly 64 KiB")
	require.True(t, same(all, set))
	_, err = keyset.Parse(append(padded, '\n'))
	require.ErrorContains(t, err, "65537 bytes; at most 65536 are allowed")
}

// FuzzParseBundle: no bundle makes the parser panic. A bundle that it accepts contains the same
// keys after it is written and read again.
func FuzzParseBundle(f *testing.F) {
	set := schedule(f, "a: 2026-05-01", "x: retired until 2026-06-01", "y: revoked")
	set.Retired = append(set.Retired, retiredKey(f, keysettest.Key(f, "RS256", day(f, "2026-05-01")).Public, true, day(f, "2026-05-02")))
	all := encode(f, set)
	f.Add(all)
	f.Add(all[:len(all)/2])
	f.Add(encode(f, keyset.New(set.Keys, nil, nil)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN RETIRED KEY-----\nKid: b\nAlg: PS256\n\n-----END RETIRED KEY-----\n"))
	f.Add([]byte("-----BEGIN -----BEGIN -----END -----END "))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		set, err := keyset.Parse(bundle)
		if err != nil {
			require.Nil(t, set)
			return
		}
		written, err := set.Encode()
		if err != nil {
			require.ErrorContains(t, err, "at most", "the only possible error is that the result is too long")
			return
		}
		again, err := keyset.Parse(written)
		require.NoError(t, err)
		require.True(t, same(set, again))
	})
}
