package fleetkey_test

import (
	"crypto/rand"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	// In FIPS 140 mode Go's random bytes start from a clock's jitter, and the
	// clock of a testing/synctest bubble has none.
	rand.Text()
	os.Exit(m.Run())
}
