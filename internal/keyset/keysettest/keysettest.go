// Package keysettest makes keys and certificates for the tests of the pure packages.
package keysettest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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

// rsaKey is the same one for all keys of a size, which take long to make.
var rsaKeys sync.Map

func rsaKey(bits int) (crypto.Signer, error) {
	made, _ := rsaKeys.LoadOrStore(bits, sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, bits) }))
	return made.(func() (crypto.Signer, error))()
}

// Make is a keyset.Maker. The certificates live ten years.
func Make(algorithm string, bits int, notBefore time.Time) (crypto.Signer, *x509.Certificate, error) {
	return MakeUntil(algorithm, bits, notBefore, notBefore.AddDate(10, 0, 0))
}

// MakeUntil is Make with the end of the certificate.
func MakeUntil(algorithm string, bits int, notBefore, notAfter time.Time) (private crypto.Signer, cert *x509.Certificate, err error) {
	var signature x509.SignatureAlgorithm
	switch algorithm {
	case "RS256":
		private, err = rsaKey(bits)
	case "PS256":
		signature = x509.SHA256WithRSAPSS
		private, err = rsaKey(bits)
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("unknown algorithm %q", algorithm)
	}
	if err != nil {
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

// KeyUntil is Key with the end of the certificate.
func KeyUntil(t testing.TB, algorithm string, begin, end time.Time) *keyset.Key {
	t.Helper()
	private, cert, err := MakeUntil(algorithm, 2048, begin, end)
	require.NoError(t, err)
	k, err := keyset.NewKey(cert, private)
	require.NoError(t, err)
	return k
}

// Date reads a date such as 2026-05-01, or with a time, 2026-05-01 12:00:00.
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
