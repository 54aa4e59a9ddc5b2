package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A stream is honest tokens at a fixed rate, and at times hostile ones at a
// fixed rate beside them.
type stream struct {
	name            string
	honest, hostile operation
	late            [2][][]float64 // nanoseconds from when a token was due until it was verified, in each round
	refused         atomic.Int64   // hostile tokens
}

const (
	quiet   = 0 // of stream.late
	flooded = 1
)

const (
	honestRate  = 1_000 // tokens a second
	hostileRate = 4_000
	flooders    = 16 // goroutines that send the flood
)

// pour runs the stream for a time. The load is open: a token is due when it is
// due, whether or not those before it are done, and its time counts from then.
// So a verifier that stalls is charged for everything it held up.
func (s *stream) pour(d time.Duration, state int) []float64 {
	start := time.Now()
	var flood, honest sync.WaitGroup
	var sent atomic.Int64
	if state == flooded {
		for range flooders {
			flood.Go(func() {
				for {
					i := sent.Add(1) - 1
					due := time.Duration(i) * time.Second / hostileRate
					if max(due, time.Since(start)) > d {
						return
					}
					time.Sleep(due - time.Since(start))
					s.hostile(int(i))
					s.refused.Add(1)
				}
			})
		}
	}
	interval := time.Second / honestRate
	late := make([]float64, d/interval)
	for i := range late {
		due := start.Add(time.Duration((float64(i) + rand.Float64()) * float64(interval)))
		for time.Now().Before(due) {
			runtime.Gosched() // Go's timers can be a millisecond late when nothing else runs
		}
		honest.Go(func() {
			s.honest(i)
			late[i] = float64(time.Since(due))
		})
	}
	honest.Wait()
	flood.Wait()
	return late
}

// pourAll runs all streams, quiet and flooded, in an order that changes.
func pourAll(p plan, streams []*stream) {
	var order []func()
	for _, s := range streams {
		for state := range s.late {
			s.pour(p.loadSlice/4, state) // fills caches, and opens connections
			order = append(order, func() {
				runtime.GC()
				s.late[state] = append(s.late[state], s.pour(p.loadSlice, state))
			})
		}
	}
	for _, s := range streams {
		s.refused.Store(0)
	}
	for range p.loadRounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, do := range order {
			do()
		}
	}
}

// row writes what came of the stream as a row of the table.
func (s *stream) row(p plan) string {
	var p99 [2]result // of each round
	row := "| " + s.name
	for state, rounds := range s.late {
		for _, late := range rounds {
			p99[state].ns = append(p99[state].ns, quantile(late, 0.99))
		}
		all := slices.Concat(rounds...)
		micros := func(q float64) string { return figure(quantile(all, q) / 1e3) }
		row += fmt.Sprintf(" | %s, %s, %s µs", micros(0.5), micros(0.99), micros(0.999))
	}
	perSecond := float64(s.refused.Load()) / (p.loadSlice.Seconds() * float64(p.loadRounds))
	return fmt.Sprintf("%s | %s | %.0f |\n", row, p99[flooded].over(&p99[quiet]), perSecond)
}
