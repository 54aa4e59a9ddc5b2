package fleetkey

import (
	"context"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// NewMaker returns the keyset.Maker that creates a Signer's keys and certificates.
func NewMaker(commonName string) keyset.Maker { return newMaker(commonName) }

// Insist retries a call that a file system refuses temporarily.
func Insist(ctx context.Context, forNow func(error) bool, f func() error) error {
	return insist(ctx, forNow, f)
}
