package fleetkey

import (
	"context"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// NewMaker returns what makes the keys and certificates of a Signer.
func NewMaker(commonName string) keyset.Maker { return newMaker(commonName) }

// Insist is what tries a call again that a file system refuses for now.
func Insist(ctx context.Context, forNow func(error) bool, f func() error) error {
	return insist(ctx, forNow, f)
}
