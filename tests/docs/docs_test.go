// Package docs checks that what the documentation says of the tests is true.
// It has no long form.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

var (
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	row      = regexp.MustCompile("^\\| [A-Z][-\\w]+ \\|[^|]+\\|[^|]+\\| (`(?:Test|Fuzz)\\w+`(?:, )?)+ \\|$")
	named    = regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
)

// TestFaults checks that each row of docs/faults.md names tests, and that they exist.
func TestFaults(t *testing.T) {
	tests := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, match := range declared.FindAllSubmatch(source, -1) {
			tests[string(match[1])] = true
		}
		return err
	}))

	page, err := os.ReadFile(filepath.Join(root, "docs", "faults.md"))
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(page), "|---|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, line := range strings.Split(table, "\n") {
		require.Regexp(t, row, line)
		for _, name := range named.FindAllStringSubmatch(line, -1) {
			assert.True(t, tests[name[1]], "docs/faults.md names %s, which does not exist", name[1])
		}
	}
	require.Greater(t, strings.Count(table, "\n"), 50)
}
