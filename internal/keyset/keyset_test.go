package keyset_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// This file tests the schedule that the dates of certificates make: who signs, and who
// is trusted until when. Sets are tables of dates, written by hand, and their keys have
// a letter for a name.

var day = keysettest.Date

// privateOf returns the one private key of a letter.
func privateOf(letter string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(letter, ed25519.SeedSize)))
}

var letters = sync.OnceValue(func() map[string]string { // by kid
	names := map[string]string{}
	for letter := 'a'; letter <= 'z'; letter++ {
		names[jws.Thumbprint(privateOf(string(letter)).Public())] = string(letter)
	}
	return names
})

// name returns the letter of a kid, or "new" if it is the kid of another key.
func name(kid string) string {
	if letter, ok := letters()[kid]; ok {
		return letter
	}
	return "new"
}

// schedule reads lines "letter: begin to end". Without an end, the certificate lasts
// for ten years. "(public)" at the end of a line means that the private half is not there.
func schedule(t testing.TB, lines ...string) *keyset.Set {
	t.Helper()
	var keys []*keyset.Key
	for _, line := range lines {
		letter, dates, ok := strings.Cut(line, ": ")
		require.True(t, ok, line)
		dates, public := strings.CutSuffix(dates, " (public)")
		begin, end, ok := strings.Cut(dates, " to ")
		k := &keyset.Key{Alg: jws.Algorithm{Name: "EdDSA"}, Private: privateOf(letter), Cert: &x509.Certificate{NotBefore: day(t, begin)}}
		notAfter := k.Cert.NotBefore.AddDate(10, 0, 0)
		if ok {
			notAfter = day(t, end)
		}
		cert, err := keysettest.Maker{}.Again(k, notAfter, nil)
		require.NoError(t, err)
		k, err = keyset.NewKey(cert, privateOf(letter))
		require.NoError(t, err)
		if public {
			k.Private = nil
		}
		keys = append(keys, k)
	}
	return keyset.New(keys...)
}

func find(s *keyset.Set, letter string) *keyset.Key {
	return s.Find(jws.Thumbprint(privateOf(letter).Public()))
}

// at describes a moment of a schedule: who signs, and who is trusted.
func at(s *keyset.Set, now time.Time, retain time.Duration) string {
	signs, trusted := "nobody", ""
	if k := s.Signing(now); k != nil {
		signs = name(k.ID)
	}
	for _, k := range s.Keys {
		if now.Before(s.TrustEnd(k, retain)) {
			trusted += " " + name(k.ID)
		}
	}
	return fmt.Sprintf("%s signs, trusted:%s", signs, trusted)
}

func TestSchedule(t *testing.T) {
	for title, tc := range map[string]struct {
		keys []string
		want map[string]string // by time
	}{
		"one key": {
			[]string{"a: 2026-01-01"},
			map[string]string{
				"2025-12-31 23:59:59": "nobody signs, trusted: a", // announced
				"2026-01-01":          "a signs, trusted: a",
				"2035-12-31 23:59:59": "a signs, trusted: a",
				"2036-01-01":          "nobody signs, trusted:",
			}},
		"a rotation": {
			[]string{"a: 2026-01-01", "b: 2026-04-01"},
			map[string]string{
				"2026-03-31 23:59:59": "a signs, trusted: b a",
				"2026-04-01":          "b signs, trusted: b a", // a is retired
				"2026-04-01 23:59:59": "b signs, trusted: b a",
				"2026-04-02":          "b signs, trusted: b",
			}},
		"a certificate without a private key, older than the fleet's own": { // is trusted to its end
			[]string{"a: 2026-01-01", "x: 2020-01-01 to 2026-08-01 (public)"},
			map[string]string{
				"2026-07-31 23:59:59": "a signs, trusted: a x",
				"2026-08-01":          "a signs, trusted: a",
			}},
		"a certificate without a private key, newer than the fleet's own": { // takes nothing over
			[]string{"a: 2026-01-01", "x: 2026-02-01 to 2026-08-01 (public)"},
			map[string]string{
				"2026-01-15": "a signs, trusted: x a",
				"2026-07-31": "a signs, trusted: x a",
				"2026-08-01": "a signs, trusted: a",
			}},
		"a certificate ends before its key is replaced": {
			[]string{"a: 2026-01-01 to 2026-03-01", "b: 2026-04-01"},
			map[string]string{
				"2026-02-28 23:59:59": "a signs, trusted: b a",
				"2026-03-01":          "nobody signs, trusted: b",
				"2026-04-01":          "b signs, trusted: b",
			}},
		"a certificate ends within the retention": {
			[]string{"a: 2026-01-01 to 2026-04-01 12:00:00", "b: 2026-04-01"},
			map[string]string{
				"2026-04-01 11:59:59": "b signs, trusted: b a",
				"2026-04-01 12:00:00": "b signs, trusted: b",
			}},
		"the newer key ends first": {
			[]string{"a: 2026-01-01", "b: 2026-04-01 to 2026-05-01"},
			map[string]string{
				"2026-04-30": "b signs, trusted: b",
				// An old key that is still within its dates signs again, but nobody
				// trusts it: Issue then returns ErrKeyExpired.
				"2026-05-01": "a signs, trusted:",
			}},
		"two announced": {
			[]string{"a: 2026-01-01", "b: 2026-04-01", "c: 2026-04-01 12:00:00"},
			map[string]string{
				"2026-03-31":          "a signs, trusted: c b a",
				"2026-04-01 12:00:00": "c signs, trusted: c b a",
				"2026-04-02":          "c signs, trusted: c b",
				"2026-04-02 12:00:00": "c signs, trusted: c",
			}},
		"two that begin together": { // the first of the bundle signs, and both are trusted
			[]string{"a: 2026-01-01", "b: 2026-01-01"},
			map[string]string{"2026-01-01": "a signs, trusted: a b"}},
	} {
		t.Run(title, func(t *testing.T) {
			set := schedule(t, tc.keys...)
			for when, want := range tc.want {
				assert.Equal(t, want, at(set, day(t, when), keysettest.Day), when)
			}
		})
	}
}

func TestSuccessor(t *testing.T) {
	set := schedule(t, "a: 2026-01-01", "p: 2026-02-01 (public)", "b: 2026-03-01", "c: 2026-03-01", "d: 2026-04-01", "q: 2026-05-01 (public)")
	for letter, want := range map[string]string{"a": "c", "p": "c", "b": "d", "c": "b", "d": "", "q": ""} {
		got := ""
		if next := set.Successor(find(set, letter)); next != nil {
			got = name(next.ID)
		}
		assert.Equal(t, want, got, "successor of %s", letter)
	}
	var private []string
	for _, k := range set.Private() {
		private = append(private, name(k.ID))
	}
	assert.Equal(t, []string{"d", "b", "c", "a"}, private)
}

func TestNextChange(t *testing.T) {
	set := schedule(t, "a: 2026-01-01", "b: 2026-04-01", "x: 2026-02-01 to 2026-03-01 (public)")
	now := day(t, "2025-01-01")
	for _, want := range []string{
		"2026-01-01", // a begins
		"2026-02-01", // x begins
		"2026-03-01", // x ends
		"2026-04-01", // b begins
		"2026-04-03", // a is retained for two days
		"2036-04-01", // b ends
	} {
		now = set.NextChange(now, 48*time.Hour)
		require.Equal(t, day(t, want), now)
	}
	require.Zero(t, set.NextChange(now, 48*time.Hour), "nothing changes any more")
}

func TestWhyNoKey(t *testing.T) {
	for when, tc := range map[string]struct {
		keys  []string
		match error
		text  string
	}{
		"2025-12-31 23:59:59": {[]string{"a: 2026-01-01", "x: 2020-01-01 (public)"}, keyset.ErrNoSigningKey, "begins to sign at 2026-01-01T00:00:00Z; is the clock right?"},
		"2036-01-01":          {[]string{"a: 2026-01-01", "x: 2035-01-01 (public)"}, keyset.ErrKeyExpired, "ended at 2036-01-01T00:00:00Z"},
		"2026-01-01":          {[]string{"x: 2020-01-01 (public)"}, keyset.ErrNoSigningKey, "holds no private key"},
	} {
		set := schedule(t, tc.keys...)
		require.Nil(t, set.Signing(day(t, when)))
		err := set.WhyNoKey(day(t, when))
		require.ErrorIs(t, err, tc.match)
		require.ErrorContains(t, err, tc.text)
	}
}

// certify returns a certificate of a key under the name of a parent. It is self-signed
// if the parent is the template itself.
func certify(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// TestKeyUsage: a certificate that says what its key is for has to say that it is for
// signatures, since a key for another purpose may be in other hands.
func TestKeyUsage(t *testing.T) {
	a := privateOf("a")
	for usage, allowed := range map[x509.KeyUsage]bool{
		0:                              true, // it says nothing
		x509.KeyUsageDigitalSignature:  true,
		x509.KeyUsageContentCommitment: true,
		x509.KeyUsageKeyEncipherment:   false,
		x509.KeyUsageKeyAgreement:      false,
		x509.KeyUsageCertSign:          false,
		x509.KeyUsageDataEncipherment:  false,
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment: true,
	} {
		template := &x509.Certificate{NotBefore: day(t, "2026-01-01"), NotAfter: day(t, "2027-01-01"), KeyUsage: usage}
		_, err := keyset.NewKey(certify(t, template, template, a.Public(), a), nil)
		require.Equal(t, allowed, err == nil, "%b: %v", usage, err)
	}
}

// TestAlgorithmOfRSAKeys: a certificate that signs itself by PSS means PS256; how an
// authority signs means nothing.
func TestAlgorithmOfRSAKeys(t *testing.T) {
	private := keysettest.Key(t, "RS256", day(t, "2026-01-01")).Private
	authority := &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}}
	for signature, want := range map[x509.SignatureAlgorithm]string{
		x509.SHA256WithRSA: "RS256", x509.SHA512WithRSA: "RS256",
		x509.SHA256WithRSAPSS: "PS256", x509.SHA384WithRSAPSS: "PS256", x509.SHA512WithRSAPSS: "PS256",
	} {
		template := &x509.Certificate{NotBefore: day(t, "2026-01-01"), NotAfter: day(t, "2027-01-01"), SignatureAlgorithm: signature}
		k, err := keyset.NewKey(certify(t, template, template, private.Public(), private), private)
		require.NoError(t, err)
		require.Equal(t, want, k.Alg.Name, signature)
		k, err = keyset.NewKey(certify(t, template, authority, private.Public(), private), nil)
		require.NoError(t, err)
		require.Equal(t, "RS256", k.Alg.Name, signature)
	}
}

func TestDatesOfACertificate(t *testing.T) {
	a, begin := privateOf("a"), day(t, "2026-01-01")
	for d, want := range map[time.Duration]string{-time.Second: "not after its begin", 0: "not after its begin", time.Second: "<nil>"} {
		template := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(d)}
		_, err := keyset.NewKey(certify(t, template, template, a.Public(), a), nil)
		require.Contains(t, fmt.Sprint(err), want)
	}
}
