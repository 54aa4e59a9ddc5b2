// Package keysettest makes keys and key sets for the tests of other packages.
package keysettest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// Day is 24 hours.
const Day = 24 * time.Hour

// Policy returns a policy with the defaults of a Config and a new key every 90 days.
func Policy() *keyset.Policy {
	return &keyset.Policy{Algorithm: "ES256", Every: 90 * Day, Announce: Day, Retain: Day,
		MaxTokenTTL: time.Hour, ClockSkew: time.Minute, RefreshEvery: 5 * time.Minute, Maker: Maker{}}
}

// Date reads "2026-05-01" or "2026-05-01 12:00:00" as UTC.
func Date(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.DateTime[:len(text)], text)
	require.NoError(t, err)
	return at
}

// Key returns a new key whose certificate lasts for ten years.
func Key(t testing.TB, algorithm string, begin time.Time) *keyset.Key {
	t.Helper()
	return KeyUntil(t, algorithm, begin, begin.AddDate(10, 0, 0))
}

// KeyUntil returns a new key whose certificate lasts from begin to end.
func KeyUntil(t testing.TB, algorithm string, begin, end time.Time) *keyset.Key {
	t.Helper()
	private, err := generate[algorithm]()
	require.NoError(t, err)
	cert, err := certificate(algorithm, private, begin, end, nil)
	require.NoError(t, err)
	k, err := keyset.NewKey(cert, private)
	require.NoError(t, err)
	return k
}

// A Maker makes keys for tests. All RS256 keys are one key, and so are all PS256 keys,
// since it takes long to generate one. A test that needs the same keys in every run
// calls cryptotest.SetGlobalRandom.
type Maker struct{}

// New implements keyset.Maker.
func (Maker) New(algorithm string, begin time.Time, names []*url.URL) (crypto.Signer, *x509.Certificate, error) {
	private, err := generate[algorithm]()
	if err != nil {
		return nil, nil, err
	}
	cert, err := certificate(algorithm, private, begin, begin.AddDate(10, 0, 0), names)
	return private, cert, err
}

// Again implements keyset.Maker.
func (Maker) Again(k *keyset.Key, end time.Time, names []*url.URL) (*x509.Certificate, error) {
	return certificate(k.Alg.Name, k.Private, k.Cert.NotBefore, end, names)
}

var generate = map[string]func() (crypto.Signer, error){
	"RS256": sync.OnceValues(generateRSA),
	"PS256": sync.OnceValues(generateRSA),
	"ES256": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
	"ES384": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
	"EdDSA": func() (crypto.Signer, error) {
		return ed25519.NewKeyFromSeed([]byte(rand.Text() + rand.Text())[:ed25519.SeedSize]), nil
	},
}

func generateRSA() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }

func certificate(algorithm string, private crypto.Signer, begin, end time.Time, names []*url.URL) (*x509.Certificate, error) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, NotBefore: begin, NotAfter: end, URIs: names}
	if algorithm == "PS256" { // the others sign in one way
		template.SignatureAlgorithm = x509.SHA256WithRSAPSS
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
