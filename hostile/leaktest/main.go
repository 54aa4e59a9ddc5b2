// Command leaktest runs "go test" and refuses key material in what the tests
// print:
//
//	go run ./leaktest [-C DIR] [-race] ... PACKAGES
//
// The arguments are those of go test, and so is what it prints. It lets the tests
// say all that they can (-v), keeps that to itself unless they fail, and searches
// it: for every private key that any process of the run has made or read, and for
// what looks like one. It also searches what child processes print, whether or
// not the tests show it. It ends with go test's status, or 3 for a leak. For Unix
// only.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/fleetkey/fleetkey/internal/leak"
)

func main() {
	status, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "leaktest:", err)
	}
	os.Exit(status)
}

const leaked = 3

func run(args []string, stdout io.Writer) (status int, err error) {
	dir, err := os.MkdirTemp("", "leaktest-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	record, err := leak.NewRecord(dir)
	if err != nil {
		return 1, err
	}
	printed, status, err := goTest(args, record, stdout)
	if err != nil {
		return cmp.Or(status, 1), err
	}
	found, summary, err := search(record, printed)
	if err != nil {
		return cmp.Or(status, 1), err
	}
	fmt.Fprintln(stdout, summary)
	if found != nil {
		return leaked, fmt.Errorf("KEY MATERIAL IS PRINTED:\n%w", errors.Join(found...))
	}
	return status, nil
}

// goTest runs the tests and returns all that they have printed.
func goTest(args []string, record *leak.Record, stdout io.Writer) (printed []byte, status int, err error) {
	var chdir []string // has to come first
	if len(args) > 1 && args[0] == "-C" {
		chdir, args = args[:2], args[2:]
	}
	// What has been tested before has to be tested again to be seen.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, "go", slices.Concat(chdir, []string{"test", "-v", "-count=1"}, args)...)
	cmd.Env = record.Environ(os.Environ())
	var all bytes.Buffer
	report := newReport(stdout)
	cmd.Stdout = io.MultiWriter(&all, report)
	cmd.Stderr = cmd.Stdout
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // which go passes on to the tests
	err = cmd.Run()
	report.end()
	if exit, failed := errors.AsType[*exec.ExitError](err); failed {
		return all.Bytes(), cmp.Or(max(exit.ExitCode(), 0), 1), nil
	}
	return all.Bytes(), 0, err
}

// search returns what there is of keys in what was printed.
func search(record *leak.Record, printed []byte) (found []error, summary string, err error) {
	start := time.Now()
	keys, err := os.Open(record.Keys())
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = keys.Close() }()
	d := leak.NewDetector()
	n, err := d.HideRecord(keys)
	if err != nil {
		return nil, "", err
	}
	if n == 0 {
		return nil, "", errors.New("no test has made a key, so nothing can be searched for")
	}
	children, err := os.ReadFile(record.Output())
	if err != nil {
		return nil, "", err
	}
	for _, text := range [][]byte{printed, children} {
		found = append(found, leaks(d, text)...)
	}
	return found, fmt.Sprintf("leaktest: searched %.1f MB of output for %d private keys in %d pieces (%.1fs)",
		float64(len(printed)+len(children))/1e6, n, d.Pieces(), time.Since(start).Seconds()), nil
}

// leaks tells for each test the first place, without showing it.
func leaks(d *leak.Detector, text []byte) (found []error) {
	test, number, before := "", 0, ""
	told := map[string]bool{}
	for bytes := range bytes.Lines(text) {
		number++
		line := string(bytes)
		if name, ok := testOf(line); ok {
			test = name
		}
		what := cmp.Or(d.Find(line), leak.Shape(before+line))
		before = line
		if what != "" && !told[test] {
			told[test] = true
			found = append(found, fmt.Errorf("\tin %s, line %d of the output: %s", cmp.Or(test, "no test"), number, what))
		}
	}
	return found
}
