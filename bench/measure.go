package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// An operation does one thing; i counts from 0, so that tokens can take turns.
// It ends the program if the answer is not the expected one.
type operation func(i int)

// A result is what one contender took in one row, in each round.
type result struct {
	ns     []float64 // for each operation
	allocs float64   // for each operation
}

func (r result) micros() float64 { return median(r.ns) / 1e3 }

// measure runs each operation for a slice of time in each round, in an order
// that changes from round to round, so that other work on the machine affects
// all of them alike. A nil operation gives a nil result.
func measure(p plan, parallel bool, ops []operation) []*result {
	results := make([]*result, len(ops))
	var order []int
	for i, op := range ops {
		if op != nil {
			results[i] = &result{}
			order = append(order, i)
		}
	}
	for range p.rounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, i := range order {
			r := testing.Benchmark(func(b *testing.B) { repeat(b, parallel, ops[i]) })
			results[i].ns = append(results[i].ns, float64(r.T)/float64(r.N))
			results[i].allocs = float64(r.AllocsPerOp()) // in the last round, when caches and pools are full
		}
	}
	return results
}

func repeat(b *testing.B, parallel bool, op operation) {
	b.ReportAllocs()
	if !parallel {
		for i := range b.N {
			op(i)
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			op(i)
		}
	})
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
