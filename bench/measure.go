package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

// An operation does one thing; i counts from 0, so that it can go through a
// number of tokens. It ends the program if the answer is not the expected one.
type operation func(i int)

// A result is what one contender took in one row, in each round.
type result struct {
	ns     []float64 // for each operation
	allocs float64   // for each operation
}

func (r result) micros() float64 { return median(r.ns) / 1e3 }

// measure runs each operation for a slice of time in each round, in an order
// that changes from round to round, so that whatever else the machine does
// meets all of them alike. A nil operation gives a nil result.
func measure(p plan, workers int, ops []operation) []*result {
	results := make([]*result, len(ops))
	batch := make([]int, len(ops)) // operations that fill a slice
	var order []int
	for i, op := range ops {
		if op == nil {
			continue
		}
		results[i] = &result{allocs: allocations(op, p.allocs)}
		batch[i] = calibrate(op, p.slice)
		order = append(order, i)
	}
	for range p.rounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, i := range order {
			runtime.GC() // nobody pays for another's garbage
			results[i].ns = append(results[i].ns, timed(ops[i], batch[i], workers))
		}
	}
	return results
}

// timed returns the nanoseconds that one operation takes while each of the
// workers does n.
func timed(op operation, n, workers int) float64 {
	if workers == 1 {
		start := time.Now()
		for i := range n {
			op(i)
		}
		return float64(time.Since(start)) / float64(n)
	}
	var done sync.WaitGroup
	start := time.Now()
	for range workers {
		done.Go(func() {
			for i := range n {
				op(i)
			}
		})
	}
	done.Wait()
	return float64(time.Since(start)) / float64(n*workers)
}

// calibrate returns how many operations take about so long.
func calibrate(op operation, d time.Duration) int {
	for n := 1; ; n *= 2 {
		start := time.Now()
		for i := range n {
			op(i)
		}
		if took := time.Since(start); took > d/4 {
			return max(1, int(float64(n)*float64(d)/float64(took)))
		}
	}
}

// allocations returns how many objects one operation allocates.
func allocations(op operation, n int) float64 {
	var before, after runtime.MemStats
	for i := range n { // fills caches and pools
		op(i)
	}
	runtime.ReadMemStats(&before)
	for i := range n {
		op(i)
	}
	runtime.ReadMemStats(&after)
	return math.Round(float64(after.Mallocs-before.Mallocs) / float64(n))
}

func median(values []float64) float64 {
	return quantile(values, 0.5)
}

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

// ratios returns the ratio to another result in each round.
func (r result) ratios(base *result) []float64 {
	ratios := make([]float64, len(r.ns))
	for i := range ratios {
		ratios[i] = r.ns[i] / base.ns[i]
	}
	return ratios
}

// over writes the median of the ratios to another result, and the quartiles as
// their spread.
func (r result) over(base *result) string {
	ratios := r.ratios(base)
	return fmt.Sprintf("%s (%s–%s)", figure(median(ratios)), figure(quantile(ratios, 0.25)), figure(quantile(ratios, 0.75)))
}

// figure writes a number with three digits that count.
func figure(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x < 0.1:
		return fmt.Sprintf("%.2g", x)
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}
