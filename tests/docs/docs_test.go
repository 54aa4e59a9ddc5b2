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

var (
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	row      = regexp.MustCompile("^\\| [A-Z][-\\w]+ \\|[^|]+\\|[^|]+\\| (`(?:Test|Fuzz)\\w+`(?:, )?)+ \\|$")
	link     = regexp.MustCompile(`\]\(([^)\s#]*)(?:#([^)\s]*))?\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	named    = regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
)

// TestFaults checks that each row of docs/faults.md names tests, and that they exist.
func TestFaults(t *testing.T) {
	tests := map[string]bool{}
	for _, path := range files(t, "_test.go") {
		for _, match := range declared.FindAllStringSubmatch(read(t, path), -1) {
			tests[match[1]] = true
		}
	}

	rows := 0
	for line := range strings.Lines(read(t, "docs/faults.md")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] != '|' || line == "| id | fault | what happens | tests |" || line == "|---|---|---|---|" {
			continue
		}
		rows++
		require.Regexp(t, row, line)
		for _, name := range named.FindAllStringSubmatch(line, -1) {
			assert.True(t, tests[name[1]], "docs/faults.md names %s, which does not exist", name[1])
		}
	}
	require.Greater(t, rows, 100)
}

// TestReadme: the README is short, and its IAM policy is one that a server is tested with.
func TestReadme(t *testing.T) {
	require.LessOrEqual(t, len(strings.Fields(read(t, "README.md"))), 1200, "words")
	for _, b := range Blocks(t, "README.md") {
		if strings.Contains(b.Text, "secretsmanager:") {
			require.JSONEq(t, read(t, "examples/beanstalk/policy.json"), strings.Replace(b.Text, "<secret-prefix>", "indicium/openid-server", 1))
			return
		}
	}
	t.Error("README.md has no IAM policy")
}

// TestLinks checks the links between files, and the headings that they name.
func TestLinks(t *testing.T) {
	for _, page := range Pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			target := page
			if strings.Contains(m[1], ":") {
				continue
			} else if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			_, err := os.Stat(filepath.Join(Root, target))
			if assert.NoError(t, err, "%s links to %s", page, m[1]) && m[2] != "" {
				assert.Contains(t, anchors(t, target), m[2], "%s links to a heading that %s lacks", page, target)
			}
		}
	}
}

// anchors returns the names that GitHub gives to the headings of a page.
func anchors(t *testing.T, page string) (names []string) {
	for _, m := range heading.FindAllStringSubmatch(read(t, page), -1) {
		name := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// TestLogLines checks that the library logs the lines that docs/operations.md and the alarms
// of the Elastic Beanstalk example name, and that docs/operations.md covers every line that
// it logs.
func TestLogLines(t *testing.T) {
	find := func(page, pattern string) (lines []string) { // with their levels
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, page), -1) {
			lines = append(lines, strings.ToUpper(m[1])+" "+m[2])
		}
		return lines
	}
	var logged []string
	for _, path := range files(t, ".go") {
		if !strings.HasSuffix(path, "_test.go") && (!strings.Contains(path, "/") || strings.HasPrefix(path, "internal/")) {
			logged = append(logged, find(path, `[lL]ogger\.(Info|Warn|Error)\("([^"]*)"`)...)
		}
	}
	documented := find("docs/operations.md", "(?m)^\\| (INFO|WARN|ERROR) `([^`]*)`")
	for _, line := range logged {
		assert.True(t, slices.ContainsFunc(documented, func(d string) bool { return strings.HasPrefix(line, d) }),
			"docs/operations.md does not mention %q", line)
	}
	alarms := find("examples/beanstalk/alarms.yaml", `FilterPattern: '"()([^"]*)"'`)
	require.Len(t, alarms, 3)
	for _, line := range append(documented, alarms...) {
		assert.True(t, slices.ContainsFunc(logged, func(l string) bool { return strings.Contains(l, line) }),
			"nothing logs %q", line)
	}
}
