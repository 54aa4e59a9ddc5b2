// Package docs checks the documentation: it compiles, parses or runs every fenced block,
// follows the links, and checks what the pages say about tests and log lines. It has no long
// form. cmd/fleetkey runs the console blocks, and tests/release runs what needs a release.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Root is the root of the repository, for tests two folders below it.
const Root = "../.."

// RunBy begins the note of a block that another test runs.
const RunBy = "run by "

// A Block is a fenced block of a page. An HTML comment directly before it is its Note:
//
//	file: PATH            the program belongs in this file, next to others of the same page
//	run instead: COMMAND  for example one that ends
//	run by PATH           a test elsewhere, such as tests/release
//	not run: REASON       for what is neither Go, JSON nor YAML
type Block struct {
	Page           string // path from Root
	Line           int
	Language, Note string
	Text           string
}

var fence = regexp.MustCompile("(?ms)(?:^<!-- ([^\n]*) -->\n+)?^```([a-z]*)\n(.*?)^```$")

// Pages returns the paths of all Markdown files, from Root.
func Pages(t testing.TB) []string { return files(t, ".md") }

func files(t testing.TB, suffix string) (paths []string) {
	require.NoError(t, filepath.WalkDir(Root, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && path != Root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(path, suffix) {
			paths = append(paths, strings.TrimPrefix(filepath.ToSlash(path), Root+"/"))
		}
		return err
	}))
	return paths
}

func read(t testing.TB, path string) string {
	text, err := os.ReadFile(filepath.Join(Root, path))
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// Blocks returns the blocks of some pages.
func Blocks(t testing.TB, pages ...string) (blocks []Block) {
	for _, page := range pages {
		text := read(t, page)
		found := fence.FindAllStringSubmatchIndex(text, -1)
		part := func(m []int, i int) string {
			if m[i] < 0 {
				return ""
			}
			return text[m[i]:m[i+1]]
		}
		for _, m := range found {
			blocks = append(blocks, Block{page, strings.Count(text[:m[4]], "\n") + 1, part(m, 4), part(m, 2), part(m, 6)})
		}
		require.Equal(t, strings.Count(text, "```"), 2*len(found), "a fence of %s is indented or odd", page)
	}
	return blocks
}

// Commands returns the commands of a block of shell lines.
func (b Block) Commands() (commands []string) {
	for line := range strings.SplitSeq(strings.ReplaceAll(b.Text, "\\\n", ""), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			commands = append(commands, line)
		}
	}
	return commands
}

// WritePrograms writes the Go programs of a page below a folder, and returns their paths by
// folder.
func WritePrograms(t testing.TB, page, dir string) map[string][]string {
	programs := map[string][]string{}
	for _, b := range Blocks(t, page) {
		if b.Language != "go" || !strings.HasPrefix(b.Text, "package ") {
			continue
		}
		name, ok := strings.CutPrefix(b.Note, "file: ")
		require.True(t, ok, "%s:%d: say which file this is: <!-- file: main.go -->", page, b.Line)
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(b.Text), 0o600))
		programs[filepath.Dir(path)] = append(programs[filepath.Dir(path)], path)
	}
	return programs
}
