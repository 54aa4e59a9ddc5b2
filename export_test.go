package fleetkey

import (
	"context"
	"crypto"
	"testing"
)

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
	set, err := parseKeySet(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return set.find(kid).private
}
