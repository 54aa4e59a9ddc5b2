// Command bench compares fleetkey with other libraries and with bare calls to Go's crypto
// packages, in one process:
//
//	go run .                           measures and draws (a few minutes)
//	go test -run Story . -verifiers N  runs the story of package tests/verifying, and draws
//	go run . -render                   only draws
//
// The figures go into results.json. RESULTS.md and the charts are made from it and from
// scale.json. To add a library, add it to contenders in contender.go.
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

// results is the content of results.json.
type results struct {
	On     string // machine, Go and date
	Series []series
	Memory []fill
	Starts []start
	Story  []story.Tally
	Scale  []scale `json:"-"` // from scale.json
}

// A scale is a measurement of a fleet of one size by package tests/scale.
type scale struct {
	Scenario  string
	Instances float64
	Seconds   float64 `json:"all_after_seconds"` // until all instances serve
	Calls     float64 `json:"calls_per_instance"`
}

// A plan says how long and how much to measure.
type plan struct {
	rounds int           // the median of them is reported
	slice  time.Duration // most processor time of each task in a round
	starts int           // Signers to start
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

// measure measures everything except the story, which needs the virtual time of a Go test.
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

// save writes the figures, one record per line, and the page and charts.
func (r *results) save() {
	data := bytes.ReplaceAll(must(json.Marshal(r)), []byte("},{"), []byte("},\n{"))
	check(os.WriteFile("results.json", append(data, '\n'), 0o644))
	for name, content := range r.draw() {
		check(os.WriteFile(name, content, 0o644))
	}
}

// check ends the program on an error, because a failed measurement is useless.
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
