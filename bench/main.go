// Command bench measures fleetkey beside other libraries and beside the bare call into
// Go's crypto packages, in one process:
//
//	go run .                           measures and draws (some minutes)
//	go test -run Story . -verifiers N  tells the story of package tests/verifying, and draws
//	go run . -render                   only draws
//
// The figures go into results.json. RESULTS.md and charts are drawn from it, and from
// scale.json. A library is added to contenders in contender.go.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"time"

	story "github.com/fleetkey/fleetkey/tests/verifying"
)

// results is what results.json holds.
type results struct {
	On     string // machine, Go and date
	Series []series
	Memory []fill
	Starts []start
	Story  []story.Tally
	Scale  []scale `json:"-"` // from scale.json
}

// A scale is what a fleet of some size did, measured by package tests/scale.
type scale struct {
	Scenario  string
	Instances float64
	Seconds   float64 `json:"all_after_seconds"` // until all serve
	Calls     float64 `json:"calls_per_instance"`
}

// A plan says how long and how much to measure.
type plan struct {
	rounds int           // of which the median is taken
	slice  time.Duration // of the processor that each task gets in a round, at most
	starts int           // of a Signer
	tokens int           // put into the cache
}

func main() {
	render := flag.Bool("render", false, "draw the page and the charts without measuring")
	flag.Parse()
	r := load()
	if !*render {
		r.measure(plan{rounds: 41, slice: 10 * time.Millisecond, starts: 21, tokens: 30_000})
	}
	r.save()
}

// measure measures everything but the story, since Go has virtual time in tests only.
func (r *results) measure(p plan) {
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	cpu = regexp.MustCompile(`model name\s*: (.*)|$`).FindSubmatch(cpu)[1]
	busy, _ := os.ReadFile("/proc/loadavg")
	busy, _, _ = bytes.Cut(busy, []byte(" "))
	*r = results{Story: r.Story, Scale: r.Scale, On: fmt.Sprintf("%s with %d cores (load average %s), %s, %s", cpu, runtime.NumCPU(), busy,
		runtime.Version(), time.Now().UTC().Format(time.DateOnly))}
	for _, algorithm := range algorithms {
		r.Series = append(r.Series, compare(p, algorithm)...)
	}
	r.Memory, r.Starts = measureMemory(p), measureStarts(p)
}

func load() (r results) {
	check(json.Unmarshal(must(os.ReadFile("results.json")), &r))
	check(json.Unmarshal(must(os.ReadFile("scale.json")), &r.Scale))
	return r
}

// save writes the figures, one record a line, and what is drawn from them.
func (r *results) save() {
	data := bytes.ReplaceAll(must(json.Marshal(r)), []byte("},{"), []byte("},\n{"))
	check(os.WriteFile("results.json", append(data, '\n'), 0o644))
	for name, content := range r.draw() {
		check(os.WriteFile(name, content, 0o644))
	}
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
