// Package keysettest makes keys and certificates for the tests of the pure packages.
package keysettest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// Day is 24 hours.
const Day = 24 * time.Hour

// Policy returns the defaults of a signer's configuration, with a rotation every 90 days
// and keys for ES256.
func Policy() *keyset.Policy {
	return &keyset.Policy{Algorithm: "ES256", Every: 90 * Day, Announce: Day, Retain: Day,
		MaxTokenTTL: time.Hour, ClockSkew: time.Minute, RefreshEvery: 5 * time.Minute, Make: Make}
}

// rsaKeys caches one key of each size, since generating them is slow.
var rsaKeys sync.Map

// Make is a keyset.Maker. Its certificates last ten years.
func Make(algorithm string, bits int, notBefore time.Time) (crypto.Signer, *x509.Certificate, error) {
	return MakeUntil(algorithm, bits, notBefore, notBefore.AddDate(10, 0, 0))
}

// MakeUntil is like Make with a given end of the certificate.
func MakeUntil(algorithm string, bits int, notBefore, notAfter time.Time) (private crypto.Signer, cert *x509.Certificate, err error) {
	var signature x509.SignatureAlgorithm
	if algorithm == "PS256" {
		signature = x509.SHA256WithRSAPSS
	}
	newKey := func() (crypto.Signer, error) { return jwstest.NewKey(algorithm, bits) }
	if algorithm == "RS256" || algorithm == "PS256" {
		made, _ := rsaKeys.LoadOrStore(bits, sync.OnceValues(newKey))
		newKey = made.(func() (crypto.Signer, error))
	}
	if private, err = newKey(); err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{NotBefore: notBefore.UTC().Truncate(time.Second), NotAfter: notAfter.UTC().Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, SignatureAlgorithm: signature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	cert, err = x509.ParseCertificate(der)
	return private, cert, err
}

// Key returns a key that begins to sign at a time.
func Key(t testing.TB, algorithm string, begin time.Time) *keyset.Key {
	t.Helper()
	return KeyUntil(t, algorithm, begin, begin.AddDate(10, 0, 0))
}

// KeyUntil is like Key with a given end of the certificate.
func KeyUntil(t testing.TB, algorithm string, begin, end time.Time) *keyset.Key {
	t.Helper()
	private, cert, err := MakeUntil(algorithm, 2048, begin, end)
	require.NoError(t, err)
	k, err := keyset.NewKey(cert, private)
	require.NoError(t, err)
	return k
}

// Date parses a date such as 2026-05-01, or with a time, 2026-05-01 12:00:00.
func Date(t testing.TB, text string) time.Time {
	t.Helper()
	layout := time.DateTime
	if len(text) == len(time.DateOnly) {
		layout = time.DateOnly
	}
	date, err := time.Parse(layout, text)
	require.NoError(t, err)
	return date
}
