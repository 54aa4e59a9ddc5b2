package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTable: the text that a mutant replaces is still there, once; the test that
// it names exists; and every row has a mutant, or the reason why not.
func TestTable(t *testing.T) {
	root, err := findRoot()
	require.NoError(t, err)
	for _, problem := range check(root, sections(), mutants()) {
		t.Error(problem)
	}
	require.Greater(t, len(mutants()), 200)
}

func TestDocumentIsOfTheTable(t *testing.T) {
	root, err := findRoot()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, documentPath))
	require.NoError(t, err)
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")) // as git may check it out on Windows
	require.Equal(t, string(document(sections(), mutants())), string(text), "run: go run ./internal/mutants -write")
}

// A small module to break.
var (
	small = map[string]string{
		"go.mod":      "module small\n\ngo 1.24\n",
		"abs.go":      "package small\n\nfunc abs(n int) int {\n\tif n < 0 {\n\t\treturn -n\n\t}\n\treturn n\n}\n",
		"abs_test.go": "package small\n\nimport \"testing\"\n\nfunc TestAbs(t *testing.T) {\n\tt.Run(\"one\", func(t *testing.T) {\n\t\tif abs(-1) != 1 {\n\t\t\tt.Fatal()\n\t\t}\n\t})\n\tt.Run(\"zero\", func(t *testing.T) {\n\t\tif abs(0) != 0 {\n\t\t\tt.Fatal()\n\t\t}\n\t})\n}\n\nfunc TestSkipped(t *testing.T) { t.Skip() }\n",
	}
	smallRows = []section{{"title", "intro", []row{{id: "R1", fault: "a", want: "b"}}}}
	good      = mutant{name: "sign", rows: "R1", breaks: "the sign is lost", file: "abs.go", old: "return -n", new: "return n", test: "TestAbs/one"}
)

func smallModule(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range small {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
	}
	return root
}

func TestCheck(t *testing.T) {
	root := smallModule(t)
	require.Empty(t, check(root, smallRows, []mutant{good}))
	for want, change := range map[string]func(*mutant){
		"stands 0 times in abs.go": func(m *mutant) { m.old = "return +n" },
		"stands 2 times in abs.go": func(m *mutant) { m.old = "return" },
		"stands 0 times in gone":   func(m *mutant) { m.file = "gone" },
		"there is no test TestAb":  func(m *mutant) { m.test = "TestAb" },
		"no test TestAbs/(":        func(m *mutant) { m.test = "TestAbs/(" },
		"there is no row R2":       func(m *mutant) { m.rows = "R1 R2" },
		"row R1: needs a mutant":   func(m *mutant) { m.rows = "R2" },
		"needs a row, words":       func(m *mutant) { m.new = m.old },
	} {
		m := good
		change(&m)
		assert.Contains(t, strings.Join(check(root, smallRows, []mutant{m}), "\n"), want)
	}
	assert.Contains(t, strings.Join(check(root, smallRows, []mutant{good, good}), "\n"), "given twice")
	reason := []section{{"title", "intro", []row{{id: "R1", fault: "a", not: "c"}}}}
	assert.Contains(t, strings.Join(check(root, reason, []mutant{good}), "\n"), "or else the reason")
}

// TestProve breaks the small module in every way that the command tells apart.
func TestProve(t *testing.T) {
	root := smallModule(t)
	prove := func(change func(*mutant)) (string, error) {
		m := good
		change(&m)
		var out bytes.Buffer
		r := &runner{root: root, scratch: t.TempDir(), out: &out}
		err := r.prove(context.Background(), []mutant{m}, 1)
		return out.String(), err
	}
	out, err := prove(func(*mutant) {})
	require.NoError(t, err)
	require.Contains(t, out, "1 mutants, 1 killed")
	for want, text := range map[outcome]string{survived: "return 0 - n", unbuilt: "return"} {
		out, err = prove(func(m *mutant) { m.new = text })
		assert.ErrorContains(t, err, "not killed")
		assert.Contains(t, out, want)
	}
	for _, test := range []string{"TestSkipped", "TestNone", "TestAbs/none"} {
		_, err = prove(func(m *mutant) { m.test = test })
		assert.ErrorContains(t, err, "do not exist, or are skipped")
	}
}

func TestJudge(t *testing.T) {
	failed := exec.Command("go", "no-such-command").Run()
	for name, tc := range map[string]struct {
		test, out string
		err       error
		want      outcome
	}{
		"killed":                   {"TestA", "--- FAIL: TestA (0.00s)\n", failed, killed},
		"in the subtest":           {"TestA/b", "--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\n", failed, killed},
		"in a subtest of it":       {"TestA", "--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\n", failed, killed},
		"in another subtest":       {"TestA/^b$", "--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/bc (0.00s)\n", failed, elsewhere},
		"in another test":          {"TestA", "--- FAIL: TestAB (0.00s)\n", failed, elsewhere},
		"panics":                   {"TestA", "panic: test timed out after 1m30s\n", failed, killed},
		"races":                    {"TestA", "WARNING: DATA RACE\n", failed, killed},
		"ends the process":         {"TestA", "", failed, elsewhere},
		"survives":                 {"TestA", "--- PASS: TestA (0.00s)\n", nil, survived},
		"skips":                    {"TestA", "--- SKIP: TestA (0.00s)\n", nil, untested},
		"has no such subtest":      {"TestA/b", "--- PASS: TestA (0.00s)\n", nil, untested},
		"cannot be run":            {"TestA", "", os.ErrNotExist, untested},
		"leaves a child behind it": {"TestA", "--- PASS: TestA (0.00s)\n", exec.ErrWaitDelay, elsewhere},
	} {
		assert.Equal(t, tc.want, judge(tc.test, []byte(tc.out), tc.err), name)
	}
}
