//go:build unix

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// leaktest runs it on a module of testdata.
func leaktest(t *testing.T, module string, args ...string) (status int, out string, err error) {
	t.Helper()
	var printed strings.Builder
	status, err = run(append(append([]string{"-C", filepath.Join("testdata", module)}, args...), "./..."), &printed)
	return status, printed.String(), err
}

// TestLeaktestFindsEachLeak: every test that prints a key is named, whatever way
// it goes, and the key is not shown once more.
func TestLeaktestFindsEachLeak(t *testing.T) {
	status, out, err := leaktest(t, "leaky", "-skip", "TestPanic")
	require.Equal(t, leaked, status)
	require.Contains(t, out, "ok  \texample.com/leaky\t", "the tests themselves pass")
	for _, want := range []string{
		"in TestLog, ", "in TestStruct, ", "in TestRead, ", "in TestPEM, ", "in TestHalfLine/sub, ", "in TestBytes, ",
		"in TestDefault, ", "in TestDiscarded, ", "in TestAttrs, ", "in TestWith, ", "in TestError, ", "in TestChild, ", "in TestMadeUp, ", ": d of an EC key, in hexadecimal", ": a private JSON web key",
	} {
		require.ErrorContains(t, err, want)
	}
	text, ok := strings.CutPrefix(err.Error(), "KEY MATERIAL IS PRINTED:\n")
	require.True(t, ok)
	for line := range strings.Lines(text) {
		require.Regexp(t, `^\tin Test[A-Za-z/]+, line \d+ of the output: [A-Za-z0-9 ,#-]+\n?$`, line)
	}
}

// TestLeaktestFindsAPanic: a test that fails is no way out.
func TestLeaktestFindsAPanic(t *testing.T) {
	status, out, err := leaktest(t, "leaky", "-run", "TestPanic")
	require.Equal(t, leaked, status)
	require.ErrorContains(t, err, "in TestPanic, ")
	require.Contains(t, out, "\nFAIL\texample.com/leaky/panics\t")
}

// TestLeaktestPassesTheClean: what prints no key is passed, and looked through.
func TestLeaktestPassesTheClean(t *testing.T) {
	status, out, err := leaktest(t, "clean")
	require.NoError(t, err)
	require.Zero(t, status)
	require.Regexp(t, `^ok  \texample.com/clean\t[0-9.]+s\nleaktest: searched 0.0 MB of output for 2 private keys in \d+ pieces \([0-9.]+s\)\n$`, out)

	status, out, err = leaktest(t, "clean", "-run", "TestNone")
	require.Equal(t, 1, status)
	require.ErrorContains(t, err, "no test has made a key", "%s", out)
}

// TestLeaktestEndsWithGoTest: what does not build is no success.
func TestLeaktestEndsWithGoTest(t *testing.T) {
	status, out, _ := leaktest(t, "nowhere")
	require.Equal(t, 1, status)
	require.Contains(t, out, "nowhere")
}

// TestReport: what "go test -v" says becomes what "go test" says.
func TestReport(t *testing.T) {
	for name, c := range map[string]struct{ verbose, want string }{
		"passed": {
			"=== RUN   TestA\n    a_test.go:1: hello\n--- PASS: TestA (0.00s)\nPASS\nok  \texample.com/a\t0.1s\n",
			"ok  \texample.com/a\t0.1s\n",
		},
		"one failed": {
			"=== RUN   TestA\n    a_test.go:1: hello\n--- PASS: TestA (0.00s)\n=== RUN   TestB\n=== RUN   TestB/x\n    a_test.go:2: wrong\n=== RUN   TestB/y\n    a_test.go:3: right\n" +
				"--- FAIL: TestB (0.00s)\n    --- FAIL: TestB/x (0.00s)\n    --- PASS: TestB/y (0.00s)\nFAIL\nFAIL\texample.com/a\t0.1s\nok  \texample.com/b\t0.1s\nFAIL\n",
			"    a_test.go:2: wrong\n--- FAIL: TestB (0.00s)\n    --- FAIL: TestB/x (0.00s)\nFAIL\nFAIL\texample.com/a\t0.1s\nok  \texample.com/b\t0.1s\nFAIL\n",
		},
		"side by side": {
			"=== RUN   TestA\n=== PAUSE TestA\n=== RUN   TestB\n=== PAUSE TestB\n=== CONT  TestA\n=== CONT  TestB\n    b\n=== NAME  TestA\n    a\n--- PASS: TestA (0.00s)\n--- FAIL: TestB (0.00s)\nFAIL\nFAIL\tx\t0.1s\n",
			"    b\n--- FAIL: TestB (0.00s)\nFAIL\nFAIL\tx\t0.1s\n",
		},
		"panic": {
			"=== RUN   TestA\n--- PASS: TestA (0.00s)\n=== RUN   TestB\npanic: oh\n\ngoroutine 1 [running]:\nFAIL\tx\t0.1s\nFAIL\n",
			"panic: oh\n\ngoroutine 1 [running]:\nFAIL\tx\t0.1s\nFAIL\n",
		},
		"does not build": {
			"# x\n./x.go:1:1: expected package\nFAIL\tx [build failed]\n?   \ty\t[no test files]\nFAIL",
			"# x\n./x.go:1:1: expected package\nFAIL\tx [build failed]\n?   \ty\t[no test files]\nFAIL\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 7, len(c.verbose)} { // however it comes
				var out strings.Builder
				r := newReport(&out)
				for text := c.verbose; text != ""; {
					n := min(size, len(text))
					_, err := r.Write([]byte(text[:n]))
					require.NoError(t, err)
					text = text[n:]
				}
				r.end()
				require.Equal(t, c.want, out.String())
			}
		})
	}
}
