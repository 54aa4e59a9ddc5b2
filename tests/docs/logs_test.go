package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLogLines checks that what operators are told to look for, in docs/operations.md
// and in the alarms of the Elastic Beanstalk example, is what the library logs, and
// that docs/operations.md covers everything that it logs.
func TestLogLines(t *testing.T) {
	sources, err := filepath.Glob(filepath.Join(Root, "*.go"))
	require.NoError(t, err)
	internal, err := filepath.Glob(filepath.Join(Root, "internal", "*", "*.go"))
	require.NoError(t, err)
	var logged []string
	for _, file := range append(sources, internal...) {
		if !strings.HasSuffix(file, "_test.go") {
			logged = append(logged, find(t, file, `[lL]ogger\.(Info|Warn|Error)\("([^"]*)"`)...)
		}
	}
	documented := find(t, filepath.Join(Root, "docs", "operations.md"), "(?m)^\\| (INFO|WARN|ERROR) `([^`]*)`")
	for _, line := range logged {
		assert.True(t, slices.ContainsFunc(documented, func(d string) bool { return strings.HasPrefix(line, d) }),
			"docs/operations.md does not mention %q", line)
	}
	alarms := find(t, filepath.Join(Root, "examples", "beanstalk", "alarms.yaml"), `FilterPattern: '"()([^"]*)"'`)
	require.Len(t, alarms, 3)
	for _, line := range append(documented, alarms...) {
		assert.True(t, slices.ContainsFunc(logged, func(l string) bool { return strings.Contains(l, line) }),
			"nothing logs %q", line)
	}
}

// find returns the level and the text of each line that a pattern finds in a file.
func find(t *testing.T, file, pattern string) (lines []string) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		lines = append(lines, strings.ToUpper(m[1])+" "+m[2])
	}
	return lines
}
