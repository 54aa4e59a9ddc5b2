package fleetkey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// NewCertMaker returns the maker of a signer's keys and certificates.
func NewCertMaker(commonName string) keyset.Maker { return certMaker{commonName} }

// NewSignerUnchecked is NewSigner without the bounds that keep tokens from being
// rejected, so that the simulation can show what they are for.
func NewSignerUnchecked(ctx context.Context, store KeyStore, cfg Config) (*Signer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return newSigner(ctx, store, cfg)
}

// PrivateKey returns the private key of a kid in a bundle, as a thief would.
func PrivateKey(t testing.TB, bundle []byte, kid string) crypto.Signer {
	t.Helper()
	set, err := keyset.Parse(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return set.Find(kid).Private
}

// BundleEnding is a bundle of one key whose certificate began an hour ago.
func BundleEnding(t testing.TB, end time.Time) []byte {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	cert, err := selfSigned(&x509.Certificate{NotBefore: time.Now().Add(-time.Hour), NotAfter: end}, private)
	require.NoError(t, err)
	k, err := keyset.NewKey(cert, private)
	require.NoError(t, err)
	bundle, err := keyset.New(k).Encode()
	require.NoError(t, err)
	return bundle
}
