// Command bench measures fleetkey beside other libraries and beside the bare call
// into Go's crypto packages, in one process, and writes a page of results:
//
//	go run .              into RESULTS.md (some minutes)
//	go run . -only fleet  one section, to standard output
//	go run . -quick       a smoke test whose figures mean little, to standard output
//
// Only ratios taken in the same round are compared. Absolute times depend on
// the machine and on who else uses it; the page gives them as side information.
// A library is added to contenders in contender.go.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

// A plan says how long and how much to measure.
type plan struct {
	rounds int           // of which the median is taken
	slice  time.Duration // that each contender runs for in a round
	starts int           // of a signer, for each store
	tokens int           // in the cache whose memory is measured

	loadRounds int
	loadSlice  time.Duration // of a stream, quiet or flooded

	verifiers int // in the story of a fleet; 0: TestFleet tells it
}

var (
	full  = plan{rounds: 41, slice: 20 * time.Millisecond, starts: 21, tokens: 10_000, loadRounds: 9, loadSlice: 400 * time.Millisecond, verifiers: 100}
	quick = plan{rounds: 3, slice: time.Millisecond, starts: 3, tokens: 100, loadRounds: 2, loadSlice: 20 * time.Millisecond}
)

// sections are in the order of the page.
var sections = []struct {
	name    string
	measure func(plan, io.Writer)
}{
	{"compare", compare}, {"load", measureLoad}, {"fleet", measureFleet}, {"starts", measureStarts}, {"memory", measureMemory},
}

func main() {
	isQuick := flag.Bool("quick", false, "a smoke test, whose figures mean little")
	only := flag.String("only", "", "the `section` to measure: compare, load, fleet, starts or memory")
	testing.Init() // for testing.Benchmark
	flag.Parse()
	p := full
	if *isQuick {
		p = quick
	}
	if *isQuick || *only != "" {
		run(p, *only, os.Stdout)
		return
	}
	var results bytes.Buffer
	run(p, "", io.MultiWriter(os.Stdout, &results))
	check(os.WriteFile("RESULTS.md", results.Bytes(), 0o644))
}

// run measures one section, or with "" the whole page.
func run(p plan, only string, out io.Writer) {
	began := time.Now()
	check(flag.Set("test.benchtime", p.slice.String()))
	fmt.Fprint(out, intro(p))
	for _, s := range sections {
		if only == "" || only == s.name {
			s.measure(p, out)
		}
	}
	fmt.Fprintf(out, "\nMeasured in %v.\n", time.Since(began).Round(time.Second))
}

// check ends the program: a measurement that went wrong is worth nothing.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// must returns the result of a call that cannot fail in a measurement.
func must[T any](value T, err error) T {
	check(err)
	return value
}
