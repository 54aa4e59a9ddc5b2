// Package panics has a test that panics with a private key.
package panics

import (
	"crypto/ed25519"
	"encoding/hex"
	"testing"
)

func TestPanic(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	panic("bad seed " + hex.EncodeToString(key.Seed()))
}
