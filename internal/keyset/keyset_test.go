package keyset_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// This file tests the schedule given by the dates of certificates: which key signs, and until
// when each is trusted. Sets are written as tables of dates, and each key is named by a
// letter.

var day = keysettest.Date

// privateOf returns the private key named by a letter.
func privateOf(letter string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(letter, ed25519.SeedSize)))
}

func kid(letter string) string { return jws.Thumbprint(privateOf(letter).Public()) }

// name returns the letter of a kid, or "new" for any other kid.
func name(id string) string {
	for letter := 'a'; letter <= 'z'; letter++ {
		if kid(string(letter)) == id {
			return string(letter)
		}
	}
	return "new"
}

// schedule reads lines such as "a: 2026-01-01" (begin), "b: 2026-01-01 to 2026-02-01",
// "c: retired until 2026-03-01" and "d: revoked". Without an end, a certificate lasts for
// ten years.
func schedule(t testing.TB, lines ...string) *keyset.Set {
	t.Helper()
	var keys []*keyset.Key
	var retired []keyset.Retired
	var revoked []string
	for _, line := range lines {
		letter, text, ok := strings.Cut(line, ": ")
		require.True(t, ok, line)
		until, isRetired := strings.CutPrefix(text, "retired until ")
		switch {
		case text == "revoked":
			revoked = append(revoked, kid(letter))
		case isRetired:
			retired = append(retired, retiredKey(t, privateOf(letter).Public(), false, day(t, until)))
		default:
			begin, end, ok := strings.Cut(text, " to ")
			template := &x509.Certificate{NotBefore: day(t, begin), NotAfter: day(t, begin).AddDate(10, 0, 0)}
			if ok {
				template.NotAfter = day(t, end)
			}
			k, err := keyset.NewKey(certify(t, template, template, privateOf(letter).Public(), privateOf(letter)), privateOf(letter))
			require.NoError(t, err)
			keys = append(keys, k)
		}
	}
	return keyset.New(keys, retired, revoked)
}

func retiredKey(t testing.TB, public crypto.PublicKey, pss bool, until time.Time) keyset.Retired {
	t.Helper()
	alg, err := jws.AlgorithmOf(public, pss)
	require.NoError(t, err)
	return keyset.Retired{ID: jws.Thumbprint(public), Alg: alg, Public: public, Until: until}
}

func find(s *keyset.Set, letter string) *keyset.Key { return s.Find(kid(letter)) }

// show describes a set at a time: first the keys, newest first, each with "signs", "ahead",
// "trusted" or "gone", then the retired and the revoked ones.
func show(s *keyset.Set, now time.Time, p *keyset.Policy) string {
	if s == nil {
		return ""
	}
	var keys, revoked []string
	signing, early := s.Signing(now)
	for _, k := range s.Keys {
		does := " trusted"
		switch {
		case k == signing && early:
			does = " signs early"
		case k == signing:
			does = " signs"
		case !now.Before(s.TrustEnd(k, p.Retain)):
			does = " gone"
		case k.Cert.NotBefore.After(now):
			does = " ahead"
		}
		keys = append(keys, name(k.ID)+does)
	}
	for _, r := range s.Retired {
		keys = append(keys, name(r.ID)+" until "+strings.TrimSuffix(r.Until.UTC().Format(time.DateTime), " 00:00:00"))
	}
	for _, id := range s.Revoked {
		revoked = append(revoked, name(id)+" revoked")
	}
	slices.Sort(revoked)
	return strings.Join(append(keys, revoked...), ", ")
}

func TestSchedule(t *testing.T) {
	one, rotation := []string{"a: 2026-01-01"}, []string{"a: 2026-01-01", "b: 2026-04-01"}
	gap, within := []string{"a: 2026-01-01 to 2026-03-01", "b: 2026-04-01"}, []string{"a: 2026-01-01 to 2026-04-01 12:00:00", "b: 2026-04-01"}
	two := append([]string{"c: 2026-04-01 12:00:00"}, rotation...)
	for _, tc := range []struct {
		keys       []string
		when, want string
	}{
		{one, "2024-12-31 23:59:59", "a ahead"}, // more than a year ahead: this clock is wrong
		{one, "2025-01-01", "a signs early"},
		{one, "2025-12-31 23:59:59", "a signs early"},
		{one, "2026-01-01", "a signs"},
		{one, "2035-12-31 23:59:59", "a signs"},
		{one, "2036-01-01", "a gone"},
		{rotation, "2025-12-31 23:59:59", "b ahead, a signs early"}, // a begins first
		{rotation, "2026-03-31 23:59:59", "b ahead, a signs"},
		{rotation, "2026-04-01", "b signs, a trusted"},
		{rotation, "2026-04-01 23:59:59", "b signs, a trusted"},
		{rotation, "2026-04-02", "b signs, a gone"},
		{gap, "2026-02-28 23:59:59", "b ahead, a signs"}, // the certificate ends before the key is replaced
		{gap, "2026-03-01", "b signs early, a gone"},
		{gap, "2026-04-01", "b signs, a gone"},
		{within, "2026-04-01 11:59:59", "b signs, a trusted"}, // the certificate ends while the key is retained
		{within, "2026-04-01 12:00:00", "b signs, a gone"},
		// If no newer key can sign, an old key signs again, even if its trust has ended.
		{[]string{"a: 2026-01-01", "b: 2026-04-01 to 2026-05-01"}, "2026-05-01", "b gone, a signs"},
		{two, "2026-03-31", "c ahead, b ahead, a signs"},
		{two, "2026-04-01 12:00:00", "c signs, b trusted, a trusted"},
		{two, "2026-04-02", "c signs, b trusted, a gone"},
		{two, "2026-04-02 12:00:00", "c signs, b gone, a gone"},
		// If two keys begin together, the first in the bundle signs, and both are trusted.
		{[]string{"a: 2026-01-01", "b: 2026-01-01"}, "2026-01-01", "a signs, b trusted"},
		// A retired or revoked key has no other role.
		{[]string{"a: 2026-03-01", "b: 2026-02-01", "c: 2026-01-01", "a: retired until 2026-05-01", "x: retired until 2026-06-01",
			"b: revoked", "x: revoked", "y: revoked", "y: revoked", "d: retired until 2026-05-02"},
			"2026-04-01", "c signs, d until 2026-05-02, a until 2026-05-01, b revoked, x revoked, y revoked"},
	} {
		assert.Equal(t, tc.want, show(schedule(t, tc.keys...), day(t, tc.when), keysettest.Policy()), "%s at %s", tc.keys, tc.when)
	}
}

func TestWhyNoKey(t *testing.T) {
	for when, tc := range map[string]struct {
		key   string
		match error
		text  string
	}{
		"1970-01-01": {"a: 2026-01-01", keyset.ErrNoSigningKey, "begins to sign at 2026-01-01T00:00:00Z; is the clock right?"},
		"2036-01-01": {"a: 2026-01-01", keyset.ErrKeyExpired, "ended at 2036-01-01T00:00:00Z"},
		"2026-01-01": {"x: retired until 2027-01-01", keyset.ErrNoSigningKey, "contains no private key"},
		"2026-01-02": {"y: revoked", keyset.ErrNoSigningKey, "all private keys in the bundle are revoked"},
	} {
		set := schedule(t, tc.key)
		k, early := set.Signing(day(t, when))
		require.Nil(t, k)
		require.False(t, early)
		err := set.WhyNoKey(day(t, when))
		require.ErrorIs(t, err, tc.match)
		require.ErrorContains(t, err, tc.text)
	}
}

// certify returns a certificate of a key, issued by parent. It is self-signed if parent is the
// template itself.
func certify(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// TestKeyUsage: if a certificate has a key usage, it must allow signatures, since other parties
// may have a key that is meant for another purpose.
func TestKeyUsage(t *testing.T) {
	a := privateOf("a")
	for usage, allowed := range map[x509.KeyUsage]bool{
		0:                              true, // no key usage
		x509.KeyUsageContentCommitment: true,
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment: true,
		x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign:         false,
	} {
		template := &x509.Certificate{NotBefore: day(t, "2026-01-01"), NotAfter: day(t, "2027-01-01"), KeyUsage: usage}
		_, err := keyset.NewKey(certify(t, template, template, a.Public(), a), a)
		require.Equal(t, allowed, err == nil, "%b: %v", usage, err)
	}
	empty := &x509.Certificate{NotBefore: day(t, "2026-01-01"), NotAfter: day(t, "2026-01-01")}
	_, err := keyset.NewKey(certify(t, empty, empty, a.Public(), a), a)
	require.ErrorContains(t, err, "not after its start")
}

// TestAlgorithmOfRSAKeys: a certificate that is self-signed with PSS means PS256. The algorithm
// of a CA's signature has no meaning, nor does the hash: a self-signature only detects flipped
// bits.
func TestAlgorithmOfRSAKeys(t *testing.T) {
	private := keysettest.Key(t, "RS256", day(t, "2026-01-01")).Private
	key, authority := privateKey(t, private), &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}}
	check := func(want string, der []byte) {
		t.Helper()
		set, err := keyset.Parse([]byte(key + block("CERTIFICATE", der)))
		require.NoError(t, err)
		require.Equal(t, want, set.Keys[0].Alg.Name)
	}
	for signature, want := range map[x509.SignatureAlgorithm]string{
		x509.SHA1WithRSA: "RS256", x509.SHA256WithRSA: "RS256",
		x509.SHA256WithRSAPSS: "PS256", x509.SHA384WithRSAPSS: "PS256", x509.SHA512WithRSAPSS: "PS256",
	} {
		template := &x509.Certificate{NotBefore: day(t, "2026-01-01"), NotAfter: day(t, "2027-01-01"), SignatureAlgorithm: signature}
		check(want, certify(t, template, template, private.Public(), private).Raw)
		check("RS256", certify(t, template, authority, private.Public(), private).Raw)
	}
	bySHA256, byMD5 := []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"), []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04")
	check("RS256", bytes.ReplaceAll(derOf(own(t, private)), bySHA256, byMD5)) // which Go does not check
}
