package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// A report turns what "go test -v" prints into what "go test" prints: a line for
// each package, and before it, if it failed, all but the tests that passed.
type report struct {
	out     io.Writer
	partial []byte // a line that has not ended
	test    string // whose output comes
	tests   []string
	lines   map[string][]string // of each test
	passed  map[string]bool
}

func newReport(out io.Writer) *report {
	r := &report{out: out}
	r.reset()
	return r
}

func (r *report) reset() {
	r.test, r.tests = "", []string{""}
	r.lines, r.passed = map[string][]string{}, map[string]bool{}
}

// Write implements io.Writer. The go command writes packages one after another.
func (r *report) Write(p []byte) (int, error) {
	r.partial = append(r.partial, p...)
	for {
		i := bytes.IndexByte(r.partial, '\n')
		if i < 0 {
			return len(p), nil
		}
		r.line(string(r.partial[:i]))
		r.partial = r.partial[i+1:]
	}
}

func (r *report) line(line string) {
	if name, ok := testOf(line); ok {
		r.turnTo(name)
		return
	}
	if verdict, name, ok := verdictOf(line); ok {
		r.turnTo("after " + name) // a panic, say
		if r.passed[name] = verdict != "FAIL"; r.passed[name] {
			return
		}
	}
	failed := strings.HasPrefix(line, "FAIL\t")
	if failed || strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "?   \t") || strings.HasPrefix(line, "\t") && strings.Contains(line, "coverage: ") {
		if failed {
			r.flush()
		}
		fmt.Fprintln(r.out, line)
		r.reset()
		return
	}
	r.lines[r.test] = append(r.lines[r.test], line)
}

func (r *report) turnTo(test string) {
	if r.test = test; r.lines[test] == nil {
		r.tests = append(r.tests, test)
		r.lines[test] = []string{}
	}
}

// flush prints what is known of tests that did not pass.
func (r *report) flush() {
	for _, name := range r.tests {
		if !r.passed[name] {
			for _, line := range r.lines[name] {
				fmt.Fprintln(r.out, line)
			}
		}
	}
}

// end prints what belongs to no package: what the go command itself says.
func (r *report) end() {
	if len(r.partial) > 0 {
		r.line(string(r.partial))
	}
	r.flush()
}

// testOf returns the test that the lines to come belong to.
func testOf(line string) (name string, ok bool) {
	for _, mark := range []string{"=== RUN ", "=== NAME ", "=== CONT ", "=== PAUSE "} {
		if rest, found := strings.CutPrefix(line, mark); found {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// verdictOf reads a line such as "    --- PASS: TestX/y (0.00s)".
func verdictOf(line string) (verdict, name string, ok bool) {
	rest, found := strings.CutPrefix(strings.TrimLeft(line, " "), "--- ")
	verdict, rest, colon := strings.Cut(rest, ": ")
	name, _, space := strings.Cut(rest, " ")
	return verdict, name, found && colon && space
}
