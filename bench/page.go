package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"gonum.org/v1/gonum/stat"
)

//go:embed page.md.tmpl
var pageText string

// draw returns the page and its charts by the names of their files.
func (r *results) draw() map[string][]byte {
	files, charts := map[string][]byte{}, r.charts()
	for name, c := range charts {
		files["charts/"+name+".svg"] = c.svg()
	}
	var page bytes.Buffer
	check(template.Must(template.New("").Funcs(template.FuncMap{
		"chart":  func(name string) string { return fmt.Sprintf("![%s](charts/%s.svg)", charts[name].title, name) },
		"each":   func(n, of int) int { return n / of },
		"median": func(values []float64) string { return figure(quartiles(values)[1]) },
		"seen":   func() string { return figure(quartiles(r.of("Verify", "RS256")[2].NS)[1] / 1000) },
	}).Parse(pageText)).Execute(&page, r))
	files["RESULTS.md"] = page.Bytes()
	return files
}

func (r *results) charts() map[string]chart {
	memory := chart{title: "Memory of the token cache", x: "different tokens verified", y: "MiB"}
	for _, f := range r.Memory {
		for i, n := range f.Verified {
			memory.add(fmt.Sprintf("tokens of %s kB", figure(float64(f.TokenBytes)/1000)), same(n), f.HeapMiB[i])
		}
	}
	story := chart{title: "Good tokens refused", x: "percent", dots: true}
	for _, t := range r.Story {
		story.add("within 5 minutes of a revocation", same(100*float64(t.RefusedInWindow)/float64(t.Tokens)), story.row(t.Name))
		story.add("at other times", same(100*float64(t.Refused)/float64(t.Tokens)), story.row(t.Name))
	}
	calls := chart{title: "Calls of an instance, on average", x: "instances", y: "calls", logarithmic: true}
	seconds := chart{title: "Time until every instance serves", x: "instances", y: "seconds", logarithmic: true}
	for _, s := range r.Scale {
		if !strings.Contains(s.Scenario, "outage") { // which is a call a minute
			calls.add(s.Scenario, same(s.Instances), s.Calls)
		}
		if s.Seconds < 60 { // and not only when each refreshes anyway
			seconds.add(s.Scenario, same(s.Instances), s.Seconds)
		}
	}
	return map[string]chart{"memory": memory, "story": story, "scale-calls": calls, "scale-seconds": seconds,
		"verify":  r.ratioChart("Verify", "Verify a token for the first time", false),
		"require": r.ratioChart("Require", "Middleware: Require, and CheckJWT of go-jwt-middleware", true)}
}

func same(x float64) [3]float64 { return [3]float64{x, x, x} }

// ratioChart has a row for each contender and a curve for each algorithm.
func (r *results) ratioChart(operation, title string, withSeen bool) chart {
	c := chart{title: title, x: "ratio to the bare crypto call", dots: true, logarithmic: withSeen}
	for _, algorithm := range algorithms {
		for _, s := range r.of(operation, algorithm) {
			if s.Contender != bare && (withSeen || !strings.HasSuffix(s.Contender, seen)) {
				c.add(algorithm, r.ratio(s), c.row(s.Contender))
			}
		}
	}
	return c
}

// of returns the series of an operation in the order of contenders.
func (r *results) of(operation, algorithm string) (all []*series) {
	for i, s := range r.Series {
		if s.Operation == operation && s.Algorithm == algorithm {
			all = append(all, &r.Series[i])
		}
	}
	return all
}

// ratio returns the quartiles of the ratios to the bare call in each round.
func (r *results) ratio(s *series) [3]float64 {
	base := strings.Replace(s.Operation, "Require", "Verify", 1)
	ratios := slices.Clone(s.NS)
	for i, ns := range r.of(base, s.Algorithm)[0].NS { // the bare call is the first
		ratios[i] /= ns
	}
	return quartiles(ratios)
}

func quartiles(values []float64) (q [3]float64) {
	sorted := slices.Sorted(slices.Values(values))
	for i := range q {
		q[i] = stat.Quantile(float64(i+1)/4, stat.LinInterp, sorted, nil)
	}
	return q
}

// Table returns a line for each operation of each contender.
func (r *results) Table() (lines []string) {
	for _, operation := range []string{"Verify", "Issue", "Require", "JWKS"} {
		for i, first := range r.of(operation, algorithms[0]) {
			line := operation + ", " + first.Contender
			for _, algorithm := range algorithms {
				s := r.of(operation, algorithm)[i]
				q := r.ratio(s)
				if s.Contender == bare {
					line += "|" + figure(quartiles(s.NS)[1]/1000) + " µs"
				} else {
					line += fmt.Sprintf("|%s (%s–%s)", figure(q[1]), figure(q[0]), figure(q[2]))
				}
			}
			lines = append(lines, fmt.Sprintf("%s|%d", line, first.Allocs))
		}
	}
	return lines
}

func figure(x float64) string {
	if x >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%#.3g", x)
}
