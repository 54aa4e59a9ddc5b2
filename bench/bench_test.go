package main

import (
	"fmt"
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
	for _, heading := range []string{"## RS256", "## ES256", "## EdDSA", "against its goals", "## Unknown kid", "## Keys in the set",
		"## Memory", "## Flood", "## Under load", "## Time to start", "## Cost"} {
		require.Contains(t, string(page), heading)
	}
	require.NoFileExists(t, name+".part")
}

func BenchmarkIssue(b *testing.B) {
	benchmark(b, (*set).issue)
}

func BenchmarkVerify(b *testing.B) {
	benchmark(b, (*set).verify)
}

func benchmark(b *testing.B, op func(*set, int)) {
	for _, algorithm := range algorithms {
		for _, keys := range setSizes {
			b.Run(fmt.Sprintf("%s/keys=%d", algorithm, keys), func(b *testing.B) {
				s, err := newSet(b.Context(), algorithm, keys)
				require.NoError(b, err)
				defer s.signer.Close()
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					op(s, i)
				}
			})
		}
	}
}
