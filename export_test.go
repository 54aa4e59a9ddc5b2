package fleetkey

import "github.com/fleetkey/fleetkey/internal/keyset"

// NewCertMaker returns what makes the keys and certificates of a Signer.
func NewCertMaker(commonName string) keyset.Maker { return certMaker{commonName} }
