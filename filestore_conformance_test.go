package fleetkey_test

import (
	"testing"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func TestFileStoreConformance(t *testing.T) {
	fleetkeytest.TestKeyStore(t, func(t *testing.T) func() fleetkey.KeyStore {
		path := newPath(t)
		return func() fleetkey.KeyStore { return fleetkey.NewFileStore(path) }
	})
}
