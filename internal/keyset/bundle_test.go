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

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// This file tests that a bundle comes back as it was written, and that a damaged one is
// an error that names the block, and never a key set that lacks a key.

func encode(t testing.TB, keys ...*keyset.Key) []byte {
	t.Helper()
	bundle, err := keyset.New(keys...).Encode()
	require.NoError(t, err)
	return bundle
}

// sameKey reports whether two keys are the same for a fleet.
func sameKey(a, b *keyset.Key) bool {
	type equaler interface{ Equal(crypto.PrivateKey) bool }
	return a.ID == b.ID && a.Alg.Name == b.Alg.Name &&
		a.Cert.NotBefore.Equal(b.Cert.NotBefore) && a.Cert.NotAfter.Equal(b.Cert.NotAfter) &&
		(a.Private == nil) == (b.Private == nil) &&
		(a.Private == nil || a.Private.(equaler).Equal(b.Private))
}

func TestBundleRoundTrip(t *testing.T) {
	all := schedule(t, "a: 2026-04-01 (public)").Keys
	all[0].ID = "2024-key: c" // another system's, in a PEM header
	for i, algorithm := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		all = append(all, keysettest.Key(t, algorithm, day(t, "2026-05-01").AddDate(0, i, 0)))
	}
	bundle := encode(t, all...)
	set, err := keyset.Parse(bundle)
	require.NoError(t, err)
	slices.Reverse(all)
	require.True(t, slices.EqualFunc(all, set.Keys, sameKey), "the newest key comes first")
	for i, want := range []string{"EdDSA", "ES384", "ES256", "PS256", "RS256", "EdDSA"} {
		require.Equal(t, want, set.Keys[i].Alg.Name)
		require.Equal(t, all[i].Cert.Raw, set.Keys[i].Cert.Raw)
		require.Same(t, set.Keys[i], set.Find(set.IDs()[i]))
	}
	require.Nil(t, set.Find(""), "no key has no kid")

	// The order of the blocks means nothing.
	slices.Reverse(set.Keys)
	backwards, err := set.Encode()
	require.NoError(t, err)
	require.NotEqual(t, bundle, backwards)
	sorted, err := keyset.Parse(backwards)
	require.NoError(t, err)
	require.Equal(t, bundle, encode(t, sorted.Keys...), "the same set is the same bytes")
}

func TestBundleIsWholeOrAnError(t *testing.T) {
	keys := schedule(t, "a: 2026-06-01", "b: 2026-05-01").Keys
	one, two := encode(t, keys[0]), encode(t, keys...)
	for n := range two {
		set, err := keyset.Parse(two[:n])
		switch {
		case n >= len(two)-1: // the last line break is no part of the block
			require.NoError(t, err)
			require.Len(t, set.Keys, 2)
		case n >= len(one)-1 && n < len(one)+5:
			// Between two keys nothing shows that there were more; stores
			// therefore promise to keep a bundle whole. Up to four dashes of the
			// next block count as text.
			require.NoError(t, err)
			require.Len(t, set.Keys, 1)
			require.True(t, sameKey(keys[0], set.Keys[0]))
		default:
			require.Error(t, err, "cut after %d of %d bytes", n, len(two))
			require.Nil(t, set)
			require.True(t, strings.Contains(err.Error(), "PEM block ") || n < 5, "cut after %d bytes: %v", n, err)
		}
	}
}

func TestBundleFlippedBits(t *testing.T) {
	k := schedule(t, "a: 2026-05-01").Keys[0]
	bundle := encode(t, k)
	for i := range bundle {
		for bit := range 8 {
			damaged := bytes.Clone(bundle)
			damaged[i] ^= 1 << bit
			set, err := keyset.Parse(damaged)
			if err != nil {
				continue
			}
			require.Len(t, set.Keys, 1, "byte %d bit %d", i, bit)
			require.True(t, sameKey(k, set.Keys[0]), "byte %d bit %d changed the key", i, bit)
			if !bytes.Equal(k.Cert.Raw, set.Keys[0].Cert.Raw) {
				// Issuer and subject differ, as in a certificate of another
				// authority, whose signature cannot be checked here.
				require.NotEqual(t, set.Keys[0].Cert.RawIssuer, set.Keys[0].Cert.RawSubject, "byte %d bit %d", i, bit)
			}
		}
	}
}

// These make the blocks that a Maker would not make.

func block(typ string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
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
	keys := schedule(t, "a: 2026-06-01", "b: 2026-05-01 (public)").Keys
	pair, oldCert := string(encode(t, keys[0])), string(encode(t, keys[1]))
	for title, bundle := range map[string]string{
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
		set, err := keyset.Parse([]byte(bundle))
		require.NoError(t, err, title)
		require.True(t, slices.EqualFunc(keys, set.Keys, sameKey), title)
	}
}

func TestBundleSizeLimit(t *testing.T) {
	k := schedule(t, "a: 2026-05-01").Keys[0]
	pair := encode(t, k)
	padded := append(bytes.Repeat([]byte("\n"), keyset.MaxBundleSize-len(pair)), pair...)
	set, err := keyset.Parse(padded)
	require.NoError(t, err, "exactly 64 KiB")
	require.Len(t, set.Keys, 1)
	_, err = keyset.Parse(append(padded, '\n'))
	require.ErrorContains(t, err, "65537 bytes; at most 65536 are allowed")

	// What cannot be read back is not written either.
	k.Private, k.ID = nil, "k"
	k.ID = strings.Repeat("k", 1+keyset.MaxBundleSize-len(encode(t, k)))
	require.Len(t, encode(t, k), keyset.MaxBundleSize)
	k.ID += "k"
	_, err = keyset.New(k).Encode()
	require.ErrorContains(t, err, "a bundle of 1 keys has 65537 bytes")
}

// FuzzParseBundle: no bundle makes the parser panic, and one that it accepts comes back
// with the same keys when it is written and read again.
func FuzzParseBundle(f *testing.F) {
	keys := schedule(f, "a: 2026-06-01", "b: 2026-05-01 (public)").Keys
	both := encode(f, keys...)
	f.Add(both)
	f.Add(encode(f, keys[1]))
	f.Add(both[:len(both)/2])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nA: b\n\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN -----BEGIN -----END -----END "))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		set, err := keyset.Parse(bundle)
		if err != nil {
			require.Nil(t, set)
			return
		}
		written, err := set.Encode()
		if err != nil {
			require.ErrorContains(t, err, "at most", "written again it may only be too long")
			return
		}
		again, err := keyset.Parse(written)
		require.NoError(t, err)
		require.True(t, slices.EqualFunc(set.Keys, again.Keys, sameKey))
	})
}
