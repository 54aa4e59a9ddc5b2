package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQuick keeps the command alive: every section runs, and with it the check
// that each contender takes the good tokens and none of the bad.
func TestQuick(t *testing.T) {
	name := filepath.Join(t.TempDir(), "RESULTS.md")
	require.NoError(t, write(quick, name, ""))
	page, err := os.ReadFile(name)
	require.NoError(t, err)
	for _, heading := range []string{"## RS256", "## ES256", "## EdDSA", "against its goals", "## Unknown kid", "## Under load", "## Time to start"} {
		require.Contains(t, string(page), heading)
	}
	require.NoFileExists(t, name+".part")
}
