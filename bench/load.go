package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A loadPlan says how heavy the load is, and for how long.
type loadPlan struct {
	rounds   int
	slice    time.Duration // of a stream, quiet or flooded
	patience time.Duration // for a new key to be accepted
}

var (
	fullLoad  = loadPlan{rounds: 9, slice: 400 * time.Millisecond, patience: 12 * time.Second}
	quickLoad = loadPlan{rounds: 2, slice: 20 * time.Millisecond, patience: 100 * time.Millisecond}
)

const (
	// p99Goal is how many times longer the slowest hundredth of honest tokens may
	// take while hostile ones flood in.
	p99Goal = 2.0

	honestRate   = 2_000  // tokens a second, straight to the verifier
	hostileRate  = 50_000 // likewise
	honestByHTTP = 1_000  // requests a second
	floodByHTTP  = 4_000  // likewise
	flooders     = 16     // goroutines or connections that send the flood
	hugeKid      = 100_000
	hugeEvery    = 100 // one token of the flood in so many has a huge kid
)

// underLoad are the verifiers that are put under load: those that have somewhere
// to ask for keys that they do not know.
var underLoad = []struct {
	name   string
	open   func(context.Context, *fixture) (contender, error)
	cached *int // Config.CachedTokens; nil: not fleetkey
}{
	{"bare crypto, the flood unread", openBare, nil},
	{"fleetkey, first time", openFleetkey(-1), new(-1)},
	{"fleetkey, again", openFleetkey(0), new(0)},
	{"keyfunc", openKeyfunc, nil},
	{"go-oidc", openGoOIDC, nil},
}

// measureLoad is everything that happens under load.
func measureLoad(p plan, out *page) error {
	for _, part := range []func(plan, *page) error{compareStreams, compareRequests, compareNewKeys, measureJWKS} {
		if err := part(p, out); err != nil {
			return err
		}
	}
	return nil
}

// A stream is honest tokens at a fixed rate, and at times hostile ones at a
// fixed rate beside them.
type stream struct {
	name                    string
	honest, hostile         func(i int)
	honestRate, hostileRate int // a second
	trials                  [2][]trial
}

const (
	quiet   = 0 // of stream.trials
	flooded = 1
)

// A trial is what came of a stream in one slice of time.
type trial struct {
	late    []float64 // nanoseconds from when a token was due until it was verified
	hostile int       // tokens that were refused
	took    time.Duration
}

// pour runs the stream for a time. The load is open: a token is due when it is
// due, whether or not those before it are done, and its time counts from then.
// So a verifier that stalls is charged for all that it held up.
func (s *stream) pour(d time.Duration, isFlooded bool) trial {
	start := time.Now()
	end := start.Add(d)
	var flood, honest sync.WaitGroup
	var sent, refused atomic.Int64
	if isFlooded {
		for range flooders {
			flood.Go(func() {
				for {
					i := sent.Add(1) - 1
					due := start.Add(time.Duration(i) * time.Second / time.Duration(s.hostileRate))
					if due.After(end) || time.Now().After(end) {
						return
					}
					if wait := time.Until(due); wait > 0 {
						time.Sleep(wait)
					}
					s.hostile(int(i))
					refused.Add(1)
					runtime.Gosched() // each is another client's
				}
			})
		}
	}
	interval := time.Second / time.Duration(s.honestRate)
	t := trial{late: make([]float64, int(d/interval))}
	for i := range t.late {
		due := start.Add(time.Duration((float64(i) + rand.Float64()) * float64(interval)))
		for time.Now().Before(due) {
			runtime.Gosched() // Go's timers can be a millisecond late when nothing else runs
		}
		honest.Go(func() {
			s.honest(i)
			t.late[i] = float64(time.Since(due))
		})
	}
	honest.Wait()
	flood.Wait()
	t.hostile, t.took = int(refused.Load()), time.Since(start)
	return t
}

// pourAll runs all streams, quiet and flooded, in an order that changes.
func pourAll(p loadPlan, streams []*stream) {
	var order []func()
	for _, s := range streams {
		s.pour(p.slice/4, false) // fills caches, and opens connections
		s.pour(p.slice/4, true)
		for state := range s.trials {
			order = append(order, func() {
				runtime.GC()
				s.trials[state] = append(s.trials[state], s.pour(p.slice, state == flooded))
			})
		}
	}
	for range p.rounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, do := range order {
			do()
		}
	}
}

// late returns a quantile over all trials of a state, in microseconds.
func (s *stream) late(state int, q float64) float64 {
	var all []float64
	for _, t := range s.trials[state] {
		all = append(all, t.late...)
	}
	return quantile(all, q) / 1e3
}

// p99 returns that of each round.
func (s *stream) p99(state int) *result {
	r := &result{}
	for _, t := range s.trials[state] {
		r.ns = append(r.ns, quantile(t.late, 0.99))
	}
	return r
}

// streamTable writes what came of streams, and notes the goal for those that
// are fleetkey's.
func streamTable(out *page, where string, streams []*stream) {
	fmt.Fprint(out, "\n|| quiet p50, p99, p99.9 | under the flood | p99, ratio | hostile tokens a second |\n|---|---|---|---|---|\n")
	for _, s := range streams {
		fmt.Fprintf(out, "| %s |", s.name)
		for state := range s.trials {
			fmt.Fprintf(out, " %s, %s, %s µs |", figure(s.late(state, 0.5)), figure(s.late(state, 0.99)), figure(s.late(state, 0.999)))
		}
		slow, calm := s.p99(flooded), s.p99(quiet)
		fmt.Fprintf(out, " %s | %.0f |\n", slow.over(calm), s.refusedPerSecond())
		if strings.HasPrefix(s.name, contenders[ours].name) {
			out.goal(fmt.Sprintf("p99 of honest tokens under a flood over quiet, %s, %s", where, s.name), fmt.Sprintf("at most %g", p99Goal),
				slow.over(calm), median(slow.ratios(calm)) <= p99Goal)
		}
	}
}

func (s *stream) refusedPerSecond() float64 {
	refused, took := 0, time.Duration(0)
	for _, t := range s.trials[flooded] {
		refused += t.hostile
		took += t.took
	}
	return float64(refused) / took.Seconds()
}

// flood makes tokens with made-up kids, each another one, some of them huge.
func (f *fixture) flood() []string {
	tokens := make([]string, 2_000)
	for i := range tokens {
		tokens[i] = f.unknownKey(f.tokens[0])
		if i%hugeEvery == 0 {
			tokens[i] = withHeader(f.tokens[0], fmt.Sprintf(`{"alg":%q,"kid":"%0*d","typ":%q}`, f.algorithm, hugeKid, i, tokenType))
		}
	}
	return tokens
}

// compareStreams calls the verifiers straight: what they are in each other's way.
func compareStreams(p plan, out *page) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, stop, err := newFixture(ctx, "RS256")
	if err != nil {
		return err
	}
	defer stop()
	hostile := f.flood()
	var streams []*stream
	for _, c := range underLoad {
		opened, err := c.open(ctx, f)
		if err != nil {
			return err
		}
		opened.name = c.name
		s := &stream{name: c.name, honestRate: honestRate, hostileRate: hostileRate,
			honest: verifying([]contender{opened}, f.tokens)[0], hostile: func(int) {}}
		if len(streams) > 0 {
			s.hostile = func(i int) {
				if _, err := opened.verify(hostile[i%len(hostile)]); err == nil {
					panic(c.name + " took a hostile token")
				}
			}
		}
		streams = append(streams, s)
	}
	pourAll(p.load, streams)
	fmt.Fprintf(out, `
## Under load

Honest tokens come at a fixed rate, evenly but for chance, and each counts from
the moment when it was due, so that one that holds up others is charged for them
all. Quiet and flooded slices of %v take turns, in %d rounds. The ratio of the
p99 is that of a round's two slices: the median, and in brackets the quartiles;
p50, p99 and p99.9 are over all rounds. The flood has a fixed rate as well, as
one that takes all there is of the processor would slow down anything: it is as
heavy as the verifier makes it. Everything runs in this one process on %d cores.

%d honest tokens a second and %d hostile ones, each with a made-up kid
of its own, one in %d of %d kB (RS256). fleetkey's store is in memory; the
peers fetch from a server in the same process.
`, p.load.slice, p.load.rounds, runtime.GOMAXPROCS(0), honestRate, hostileRate, hugeEvery, hugeKid/1000)
	streamTable(out, "unknown kids", streams)
	return nil
}
