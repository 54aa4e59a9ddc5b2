// Command mutants proves that the tests can fail. It holds a table of broken
// versions of fleetkey, each a mistake that somebody could make, and each with
// the one test that has to notice it:
//
//	internal/moto/with-moto.sh go run ./internal/mutants        # all, ten minutes
//	go run ./internal/mutants F4 A12                            # those of two rows
//	go run ./internal/mutants crit                              # those whose name begins so
//	go run ./internal/mutants -write                            # docs/faults.md, from the table
//
// A mutant is applied by an overlay of the go command; the working tree stays as
// it is. The status is 1 unless every mutant is killed, and every named test was
// run and passes on the code as it is.
//
// Rows, and why each is there, are in docs/faults.md. To add a mutant, add an
// entry to one of the tables; the tests of this package see to it that its text
// and its test exist.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

// A mutant is a broken version and the test that fails on it.
type mutant struct {
	name   string // unique; what is before the first hyphen tells the subject
	rows   string // of docs/faults.md, separated by spaces
	breaks string // what goes wrong, in words, behind "when"
	file   string // below the root of the repository
	old    string // stands in the file exactly once
	new    string
	test   string // a name, and behind slashes patterns of subtests, as "go test -run" has them
	dir    string // of the test; "": the root
	race   bool   // only the race detector sees it
}

func main() {
	write := flag.Bool("write", false, "write docs/faults.md and end")
	parallel := flag.Int("p", 2, "how many mutants run side by side")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./internal/mutants [-p N] [-write] [ROW or beginning of a NAME]...")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := start(ctx, *write, *parallel, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, write bool, parallel int, wanted []string) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	all := mutants()
	if write {
		return os.WriteFile(filepath.Join(root, documentPath), document(sections(), all), 0o644)
	}
	if problems := check(root, sections(), all); len(problems) > 0 {
		return fmt.Errorf("the table is out of date:\n%s", strings.Join(problems, "\n"))
	}
	chosen := choose(all, wanted)
	if len(chosen) == 0 {
		return fmt.Errorf("no row is called, and no mutant's name begins with, any of %q", wanted)
	}
	scratch, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if err := os.Chmod(scratch, 0o755); err != nil { // tests run children as other users
		return err
	}
	r := &runner{root: root, scratch: scratch, out: os.Stdout}
	return r.prove(ctx, chosen, max(1, parallel))
}

// findRoot returns the directory of the go.mod of the library, so that the
// command works below it, too.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/fleetkey/fleetkey\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("the working directory is not in the repository of fleetkey")
		}
	}
}

// mutants returns the whole table.
func mutants() []mutant {
	return slices.Concat(tokenMutants, issueMutants, keyMutants, fileMutants, awsMutants, rotationMutants, loadMutants, secretMutants, harnessMutants)
}

func choose(all []mutant, wanted []string) []mutant {
	if len(wanted) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(m mutant) bool {
		return !slices.ContainsFunc(wanted, func(w string) bool {
			return strings.HasPrefix(m.name, w) || slices.Contains(strings.Fields(m.rows), w)
		})
	})
}
