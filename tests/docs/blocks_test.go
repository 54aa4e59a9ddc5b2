package docs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestBlocks compiles, parses or runs every fenced block of every page. A Go block is a
// program or an excerpt of a file that is compiled with the rest.
func TestBlocks(t *testing.T) {
	excerpt := excerpts(t)
	for _, b := range append(Blocks(t, Pages(t)...), commentBlocks(t)...) {
		t.Run(fmt.Sprintf("%s:%d", b.Page, b.Line), func(t *testing.T) {
			reason, excused := strings.CutPrefix(b.Note, "not run: ")
			switch b.Language {
			case "go":
				if !strings.HasPrefix(b.Text, "package ") {
					assert.True(t, excerpt(b.Text), "no Go file of the repository contains this:\n%s", b.Text)
				}
				assert.False(t, excused)
			case "json":
				assert.True(t, json.Valid([]byte(b.Text)), b.Text)
				assert.False(t, excused)
			case "yaml":
				assert.YAMLEq(t, b.Text, b.Text)
				assert.False(t, excused)
			case "sh":
				by, elsewhere := strings.CutPrefix(b.Note, RunBy)
				if elsewhere {
					_, err := os.Stat(filepath.Join(Root, by))
					require.NoError(t, err)
				} else if !excused {
					runAll(t, b)
				}
			case "console": // cmd/fleetkey runs them
				assert.Regexp(t, `^\$ `, b.Text)
				assert.True(t, strings.HasPrefix(b.Page, "docs/"), "cmd/fleetkey runs the console blocks of docs only")
			default:
				assert.True(t, excused, "nothing can check a block of language %q: add a note that says why it is not run", b.Language)
			}
			assert.True(t, !excused || len(reason) > 10, "give a reason")
		})
	}
}

// runAll runs the commands of a block at the root of the repository. For make,
// it only prints the commands, since they would run these tests again.
func runAll(t *testing.T, b Block) {
	commands := b.Commands()
	if instead, ok := strings.CutPrefix(b.Note, "run instead: "); ok {
		commands = []string{instead}
	}
	for _, command := range commands {
		name, rest, _ := strings.Cut(command, " ")
		require.Contains(t, []string{"go", "make", "curl"}, name, "add a note that says why it is not run; fleetkey belongs in a console block")
		if _, err := exec.LookPath("sh"); err != nil || runtime.GOOS == "windows" {
			testkit.Missing(t, "a POSIX shell", "use Linux or macOS")
		}
		if _, err := exec.LookPath(name); err != nil {
			testkit.Missing(t, name, "apt-get install "+name)
		}
		dir := Root
		if name == "make" {
			command, dir = "make -n "+rest, filepath.Join(Root, filepath.Dir(strings.TrimPrefix(b.Page, "docs/")))
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", command, out)
	}
}

// excerpts returns a function that reports whether a Go file contains a text. A line "// ..."
// stands for omitted lines, and white space is ignored.
func excerpts(t *testing.T) func(string) bool {
	normal := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	var sources []string
	for _, path := range files(t, ".go") {
		if !strings.Contains(path, "testdata/") {
			sources = append(sources, normal(read(t, path)))
		}
	}
	return func(text string) bool {
		parts := regexp.MustCompile(`(?m)^\s*// \.\.\.$`).Split(text, -1)
		return slices.ContainsFunc(sources, func(source string) bool {
			for _, part := range parts {
				_, after, found := strings.Cut(source, normal(part))
				if !found {
					return false
				}
				source = after
			}
			return true
		})
	}
}

// commentBlocks returns the Go code in the doc comments of the packages that users import:
// the indented parts that assign something.
func commentBlocks(t *testing.T) (blocks []Block) {
	for _, path := range files(t, ".go") {
		users := slices.Contains([]string{".", "fleetkeytest", "otelfleetkey"}, filepath.ToSlash(filepath.Dir(path)))
		for _, code := range regexp.MustCompile(`(?m)(^//\t.*\n)+`).FindAllString(read(t, path), -1) {
			if users && !strings.HasSuffix(path, "_test.go") && strings.Contains(code, ":=") {
				blocks = append(blocks, Block{Page: path, Language: "go", Text: strings.ReplaceAll(code, "//\t", "")})
			}
		}
	}
	return blocks
}

// TestPrograms compiles the complete programs of each page, as pasted.
func TestPrograms(t *testing.T) {
	for _, page := range Pages(t) {
		for _, paths := range WritePrograms(t, page, t.TempDir()) {
			cmd := exec.CommandContext(t.Context(), "go", append([]string{"vet"}, paths...)...)
			cmd.Dir = Root
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s: %s", page, out)
		}
	}
}
