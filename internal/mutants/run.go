package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A runner builds test binaries and runs them.
type runner struct {
	root    string // of the repository
	scratch string // a directory for what it makes
	out     io.Writer
	limit   time.Duration // of a mutant's test: a mutant that hangs fails by it
}

// An outcome is what became of a mutant. All but killed are failures.
type outcome string

const (
	killed    outcome = "killed"
	survived  outcome = "SURVIVED"
	unbuilt   outcome = "DOES NOT BUILD"
	untested  outcome = "THE TEST DOES NOT RUN"
	elsewhere outcome = "FAILS ELSEWHERE" // not in the subtest that is named
)

// prove runs the named tests on the code as it is, then each mutant.
func (r *runner) prove(ctx context.Context, mutants []mutant, parallel int) error {
	began := time.Now()
	if err := r.checkUnbroken(ctx, mutants); err != nil {
		return err
	}
	// All named tests took less, so that a slow machine is no mutant's death.
	r.limit = max(90*time.Second, time.Since(began))
	fmt.Fprintf(r.out, "the named tests pass on the code as it is (%.0f s)\n", time.Since(began).Seconds())
	counts := map[outcome]int{}
	var mu sync.Mutex
	next := make(chan mutant)
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for m := range next {
				start := time.Now()
				o, detail := r.try(ctx, m)
				mu.Lock()
				counts[o]++
				fmt.Fprintf(r.out, "%-8s  %-34s %-9s %s (%.0f s)\n", o, m.name, m.rows, m.test, time.Since(start).Seconds())
				if o != killed {
					fmt.Fprintln(r.out, detail)
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range mutants {
		next <- m
	}
	close(next)
	workers.Wait()
	fmt.Fprintf(r.out, "%d mutants, %d killed, in %s\n", len(mutants), counts[killed], time.Since(began).Round(time.Second))
	if counts[killed] < len(mutants) {
		return fmt.Errorf("not killed: %v", counts)
	}
	return nil
}

// A suite is what is built into one test binary.
type suite struct {
	dir  string
	race bool
}

// checkUnbroken runs every named test once on the code as it is.
func (r *runner) checkUnbroken(ctx context.Context, mutants []mutant) error {
	tests := map[suite][]string{}
	for _, m := range mutants {
		s := suite{m.dir, m.race}
		tests[s] = append(tests[s], m.test)
	}
	var missing []string
	for s, names := range tests {
		slices.Sort(names)
		names = slices.Compact(names)
		var patterns []string
		for _, name := range names {
			patterns = append(patterns, pattern(name))
		}
		where, err := r.scratchDir()
		if err != nil {
			return err
		}
		binary, out, err := r.build(ctx, s, where, "")
		if err != nil {
			return fmt.Errorf("the code as it is does not build in ./%s: %w\n%s", s.dir, err, out)
		}
		out, err = r.run(ctx, s, where, binary, "", strings.Join(patterns, "|"), 20*time.Minute)
		if err != nil {
			return fmt.Errorf("a named test fails on the code as it is: %w\n%s", err, failures(out))
		}
		for _, name := range names {
			if !ran(out, name) {
				missing = append(missing, "./"+s.dir+" "+name)
			}
		}
	}
	if missing != nil {
		return fmt.Errorf("these tests do not exist, or are skipped here: %s", strings.Join(missing, ", "))
	}
	return nil
}

// try builds a mutant and runs its test.
func (r *runner) try(ctx context.Context, m mutant) (outcome, string) {
	where, err := r.scratchDir()
	if err != nil {
		return unbuilt, err.Error()
	}
	defer func() { _ = os.RemoveAll(where) }()
	s := suite{m.dir, m.race}
	drop, err := unneeded(filepath.Join(r.root, m.dir), strings.Split(m.test, "/")[0])
	if err != nil {
		return unbuilt, err.Error()
	}
	var overlay, binary string
	var out []byte
	for _, without := range [][]string{drop, nil} {
		if overlay, err = r.overlay(m, where, without); err != nil {
			return unbuilt, err.Error()
		}
		if binary, out, err = r.build(ctx, s, where, overlay); err == nil {
			break
		}
	}
	if err != nil {
		return unbuilt, string(out)
	}
	for try := 1; ; try++ {
		out, err = r.run(ctx, s, where, binary, overlay, pattern(m.test), r.limit)
		if ctx.Err() != nil {
			return untested, ctx.Err().Error()
		}
		o := judge(m.test, out, err)
		if o != survived || try == 3 { // a race that was lost may be won next time
			return o, string(failures(out))
		}
	}
}

// overlay writes the broken file and tells the go command of it, and to do without
// some others.
func (r *runner) overlay(m mutant, where string, without []string) (string, error) {
	file := filepath.Join(r.root, m.file)
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	broken := filepath.Join(where, "broken.go")
	if err := os.WriteFile(broken, bytes.Replace(text, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return "", err
	}
	files := map[string]string{file: broken}
	for _, path := range without {
		files[path] = ""
	}
	list, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(where, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}

func (r *runner) build(ctx context.Context, s suite, where, overlay string) (binary string, out []byte, err error) {
	binary = filepath.Join(where, "mutant.test.exe") // Windows wants the ending
	args := []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", binary}
	if s.race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir, cmd.Env = filepath.Join(r.root, s.dir), environ(where, overlay)
	out, err = cmd.CombinedOutput()
	return binary, out, err
}

func (r *runner) run(ctx context.Context, s suite, where, binary, overlay, tests string, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.failfast", "-test.timeout="+limit.String(), "-test.run="+tests)
	cmd.Dir, cmd.Env = filepath.Join(r.root, s.dir), environ(where, overlay)
	cmd.WaitDelay = 10 * time.Second // for children that hold the output open
	return cmd.CombinedOutput()
}

// environ has the overlay in GOFLAGS, so that what tests build is broken as
// well. What they leave behind goes with the directory.
func environ(where, overlay string) []string {
	env := append(os.Environ(), "TMPDIR="+where)
	if overlay != "" {
		env = append(env, strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	return env
}

// pattern is for -test.run.
func pattern(test string) string {
	name, sub, ok := strings.Cut(test, "/")
	if !ok {
		return "^" + name + "$"
	}
	return "^" + name + "$/" + sub
}

var (
	verdict = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+) \(`)
	crash   = regexp.MustCompile(`(?m)^(panic|fatal error): |^WARNING: DATA RACE`)
)

// verdicts returns how the tests ended that a name means.
func verdicts(out []byte, test string) (results []string) {
	for _, line := range verdict.FindAllStringSubmatch(string(out), -1) {
		names, patterns := strings.Split(line[2], "/"), strings.Split(test, "/")
		meant := len(names) >= len(patterns) && names[0] == patterns[0]
		for i := 1; meant && i < len(patterns); i++ {
			meant = regexp.MustCompile(patterns[i]).MatchString(names[i])
		}
		if meant {
			results = append(results, line[1])
		}
	}
	return results
}

// ran reports whether a test was run to its end and, with all its subtests, not
// skipped.
func ran(out []byte, test string) bool { return slices.Contains(verdicts(out, test), "PASS") }

// judge says what the output of a mutant's test means.
func judge(test string, out []byte, err error) outcome {
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay):
		return untested
	case slices.Contains(verdicts(out, test), "FAIL"), err != nil && crash.Match(out):
		return killed
	case err != nil:
		return elsewhere
	case !ran(out, test):
		return untested
	}
	return survived
}

// failures is the end of the output, or where the first failure begins.
func failures(out []byte) []byte {
	const enough = 2000
	if i := bytes.Index(out, []byte("Error Trace")); i > 0 {
		out = out[i:]
		return append(out[:min(len(out), enough):min(len(out), enough)], "\n... ("+strconv.Itoa(len(out))+" bytes)"...)
	}
	return out[max(0, len(out)-enough):]
}

// scratchDir makes a directory that children of tests can enter as other users.
func (r *runner) scratchDir() (string, error) {
	dir, err := os.MkdirTemp(r.scratch, "")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	return dir, err
}
