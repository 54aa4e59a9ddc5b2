package fleetkey_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const year = 365 * day

// requireOneFleet: all know the same keys, and each accepts each one's tokens.
func requireOneFleet(t *testing.T, keys int, fleet ...*fleetkey.Signer) {
	t.Helper()
	for _, s := range fleet {
		require.Equal(t, jwks(t, fleet[0]), jwks(t, s))
		require.Len(t, s.PublicKeys(), keys)
		accepts(t, issue(t, s), fleet...)
	}
}

func refresh(t *testing.T, fleet ...*fleetkey.Signer) {
	t.Helper()
	for _, s := range fleet {
		require.NoError(t, s.Refresh(t.Context()))
	}
}

func keyIDOf(raw string) string { return testkit.KeyID(raw) }
