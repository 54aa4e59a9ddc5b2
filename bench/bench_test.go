package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQuick keeps the command alive: every section runs, and with it the check
// that each contender accepts the good tokens and refuses the bad.
func TestQuick(t *testing.T) {
	var page bytes.Buffer
	run(quick, &page)
	for _, heading := range []string{"## RS256", "## ES256", "## EdDSA", "make a contender look for keys: fleetkey 1 times", "## Under load",
		"## Time to start", "## Memory of the cache"} {
		require.Contains(t, page.String(), heading)
	}
}
