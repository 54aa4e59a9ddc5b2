// Command bench measures fleetkey beside its peers and beside the bare call
// into Go's crypto packages, in one process, and writes what it found as a page:
//
//	go run .              every section, into RESULTS.md (some minutes)
//	go run . -only load   one section, to standard output alone
//	go run . -quick       with short rounds, to see that it still works
//
// Only ratios taken in the same round are compared. Absolute times depend on
// the machine and on who else uses it; the page gives them as side information.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// A plan says how long and how much to measure.
type plan struct {
	rounds int           // of which the median is taken
	slice  time.Duration // that each contender runs for in a round
	allocs int           // operations whose allocations are counted
	starts int           // of a signer, for each store
	load   loadPlan
}

var (
	full  = plan{rounds: 41, slice: 20 * time.Millisecond, allocs: 200, starts: 21, load: fullLoad}
	quick = plan{rounds: 3, slice: time.Millisecond, allocs: 10, starts: 3, load: quickLoad}
)

// sections are what can be measured, in the order of the page.
var sections = []struct {
	name    string
	measure func(plan, *page) error
}{
	{"peers", compare}, {"unknown", compareUnknownKeys}, {"load", measureLoad}, {"starts", measureStarts},
}

func main() {
	isQuick := flag.Bool("quick", false, "short rounds: a smoke test, whose figures mean little")
	output := flag.String("o", "RESULTS.md", "the `file` to write; - for none")
	only := flag.String("only", "", "measure one `section`, and write no file: peers, unknown, load or starts")
	flag.Parse()
	p := full
	if *isQuick {
		p = quick
	}
	if *only != "" {
		*output = "-"
	}
	if err := write(p, *output, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// write measures, and writes the page to standard output and a file.
func write(p plan, name, only string) (err error) {
	out := io.Writer(os.Stdout)
	if name != "-" {
		// What stood there stays until the new page is whole.
		f, err := os.Create(name + ".part")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = io.MultiWriter(os.Stdout, f)
	}
	if err := run(p, &page{Writer: out}, only); err != nil {
		return err
	}
	if name == "-" {
		return nil
	}
	return os.Rename(name+".part", name)
}

// run measures every section in turn, or one.
func run(p plan, out *page, only string) error {
	began := time.Now()
	fmt.Fprint(out, intro(p))
	known := only == ""
	for _, section := range sections {
		if only != "" && section.name != only {
			continue
		}
		known = true
		if err := section.measure(p, out); err != nil {
			return err
		}
	}
	if !known {
		return fmt.Errorf("there is no section %q", only)
	}
	out.writeGoals()
	fmt.Fprintf(out, "\nMeasured in %v.\n", time.Since(began).Round(time.Second))
	return nil
}
