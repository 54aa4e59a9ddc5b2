package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLogLines : what operators are told to look for, in docs/operations.md and
// in the alarms, is what the library logs; and nothing that it logs as a warning
// or an error is left out there.
func TestLogLines(t *testing.T) {
	files, err := filepath.Glob("../../*.go")
	require.NoError(t, err)
	internal, err := filepath.Glob("../../internal/*/*.go")
	require.NoError(t, err)
	logged := map[string]bool{}
	for _, file := range append(files, internal...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range find(t, file, `[lL]ogger\.(Info|Warn|Error)\("([^"]*)"`) {
			logged[strings.ToUpper(m[1])+" "+m[2]] = true
		}
	}
	require.NotEmpty(t, logged)
	documented := func(line string) (found bool) {
		for _, m := range find(t, "../../docs/operations.md", "(?m)^\\| (INFO|WARN|ERROR) `([^`]*)`") {
			found = found || strings.HasPrefix(line, m[1]+" "+m[2])
		}
		return found
	}
	for line := range logged {
		assert.True(t, documented(line), "docs/operations.md does not tell of %q", line)
	}
	for _, m := range find(t, "../../docs/operations.md", "(?m)^\\| (INFO|WARN|ERROR) `([^`]*)`") {
		assert.True(t, contains(logged, m[1]+" "+m[2]), "docs/operations.md tells of %q, which nothing logs", m[2])
	}
	alarms := find(t, "alarms.yaml", `FilterPattern: '"([^"]*)"'`)
	require.Len(t, alarms, 3)
	for _, m := range alarms {
		assert.True(t, contains(logged, m[1]), "an alarm waits for %q, which nothing logs", m[1])
	}
}

func contains(lines map[string]bool, part string) bool {
	for line := range lines {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}

func find(t *testing.T, file, pattern string) [][]string {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1)
}
