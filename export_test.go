package fleetkey

import "github.com/fleetkey/fleetkey/internal/keyset"

// NewMaker returns what makes the keys and certificates of a Signer.
func NewMaker(commonName string) keyset.Maker { return newMaker(commonName) }
