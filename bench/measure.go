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

// measure runs an operation of each contender for a slice of time in each round, in
// an order that changes from round to round, so that other work on the machine affects
// all of them alike. A contender whose operation is nil has a nil result.
func measure(p plan, peers []contender, of func(contender) operation) []*result {
	ops, results := make([]operation, len(peers)), make([]*result, len(peers))
	var order []int
	for i, c := range peers {
		if ops[i] = of(c); ops[i] != nil {
			results[i] = &result{}
			order = append(order, i)
		}
	}
	for range p.rounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, i := range order {
			r := testing.Benchmark(func(b *testing.B) {
				b.ReportAllocs()
				for n := range b.N {
					ops[i](n)
				}
			})
			results[i].ns = append(results[i].ns, float64(r.T)/float64(r.N))
			results[i].allocs = float64(r.AllocsPerOp()) // in the last round, when caches and pools are full
		}
	}
	return results
}

func median(values []float64) float64 { return quantile(values, 0.5) }

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

// over writes the median of the ratios to another result in each round, and the
// quartiles as their spread.
func (r result) over(base *result) string {
	ratios := make([]float64, len(r.ns))
	for i := range ratios {
		ratios[i] = r.ns[i] / base.ns[i]
	}
	return fmt.Sprintf("%s (%s–%s)", figure(median(ratios)), figure(quantile(ratios, 0.25)), figure(quantile(ratios, 0.75)))
}

// figure writes a number with three digits that count.
func figure(x float64) string {
	switch {
	case x < 0.1:
		return fmt.Sprintf("%.2g", x)
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}
