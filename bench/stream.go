package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A stream is honest tokens at a fixed rate, and at times hostile ones at a
// fixed rate beside them.
type stream struct {
	name            string
	honest, hostile operation
	trials          [2][]trial
}

const (
	quiet   = 0 // of stream.trials
	flooded = 1
)

const (
	honestRate  = 1_000 // tokens a second
	hostileRate = 4_000
	flooders    = 16 // goroutines that send the flood
)

// A trial is the result of a stream in one slice of time.
type trial struct {
	late    []float64 // nanoseconds from when a token was due until it was verified
	refused int       // hostile tokens
	took    time.Duration
}

// pour runs the stream for a time. The load is open: a token is due when it is
// due, whether or not those before it are done, and its time counts from then.
// So a verifier that stalls is charged for all that it held up.
func (s *stream) pour(d time.Duration, state int) trial {
	start := time.Now()
	var flood, honest sync.WaitGroup
	var sent, refused atomic.Int64
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
					refused.Add(1)
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
	return trial{late, int(refused.Load()), time.Since(start)}
}

// pourAll runs all streams, quiet and flooded, in an order that changes.
func pourAll(p plan, streams []*stream) {
	var order []func()
	for _, s := range streams {
		for state := range s.trials {
			s.pour(p.loadSlice/4, state) // fills caches, and opens connections
			order = append(order, func() {
				runtime.GC()
				s.trials[state] = append(s.trials[state], s.pour(p.loadSlice, state))
			})
		}
	}
	for range p.loadRounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, do := range order {
			do()
		}
	}
}

// quantiles writes p50, p99 and p99.9 over all trials of a state.
func (s *stream) quantiles(state int) string {
	var all []float64
	for _, t := range s.trials[state] {
		all = append(all, t.late...)
	}
	micros := func(q float64) string { return figure(quantile(all, q) / 1e3) }
	return fmt.Sprintf("%s, %s, %s µs", micros(0.5), micros(0.99), micros(0.999))
}

// p99 returns that of each round.
func (s *stream) p99(state int) *result {
	r := &result{}
	for _, t := range s.trials[state] {
		r.ns = append(r.ns, quantile(t.late, 0.99))
	}
	return r
}

func (s *stream) refusedPerSecond() float64 {
	refused, took := 0, time.Duration(0)
	for _, t := range s.trials[flooded] {
		refused += t.refused
		took += t.took
	}
	return float64(refused) / took.Seconds()
}
