// Package refresh keeps data loaded from a source fresh. One goroutine reloads it on a
// timer, on request, and when a token names an unknown key. The package knows nothing about
// keys and tokens; loading is a function.
//
// Everyone who wants a load joins a flight: a load shared by all callers waiting for it.
// Waits grow after failures, and made-up kids cause at most six loads a minute. A foreign
// source, which belongs to another party, gets at most six loads a minute in total.
package refresh

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/fleetkey/fleetkey/internal/clock"
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("closed")

// ErrRefused marks an error of Load about a source that was read but whose content was not
// adopted. The data then counts as fresh, as after a good load.
var ErrRefused = errors.New("refused")

const (
	// firstBackoff is the wait after a failed load; it doubles each time, up to Every. For
	// a foreign source it is firstBackoffAtStart before the first good load, and at most
	// maxForeignBackoff.
	firstBackoff        = 10 * time.Second
	firstBackoffAtStart = time.Second
	maxForeignBackoff   = time.Minute
)

// Options configures a Refresher.
type Options struct {
	Every   time.Duration // interval of loads: up to 10% shorter, and longer only for a failing foreign source
	Foreign bool
	Clock   clock.Clock
	// Load loads the source and adopts its content. It returns the time until the next load
	// if that is less than Every, or 0.
	Load func(ctx context.Context) (next time.Duration, err error)
	// Report is called after each load with the previous state and the wait until the next
	// load.
	Report func(before, after State, wait time.Duration)
	// Then, if not nil, is called after each load that read the source, once the waiting
	// callers have the result.
	Then func(ctx context.Context)
}

// A State is the result of the loads so far.
type State struct {
	LastGood    time.Time // start of the last good load, by the wall clock; zero: none yet
	Err         error     // of the last load, or nil
	Failures    int       // since the last good load
	Good, Bad   uint64    // loads since the start
	lastGoodFor time.Duration
}

// A Refresher runs from Start to Close. All methods are safe for concurrent use.
type Refresher struct {
	Options
	ctx     context.Context // of the goroutine; Close ends it
	stop    context.CancelFunc
	stopped chan struct{}
	wake    chan struct{} // has one element while a flight is waiting
	busy    chan struct{} // has one element while the source is in use; see Lock
	waiting chan struct{} // has one element for each call of Look on a flight
	state   atomic.Pointer[State]

	mu      sync.Mutex
	next    *flight // not begun yet, or nil
	flying  *flight
	unknown *rate.Limiter // for flights started by unknown kids, or by the timer of a foreign source

	suppressed atomic.Uint64
}

// A flight is a load shared by all callers waiting for it. done is closed after err is set.
type flight struct {
	done chan struct{}
	err  error
}

// Start returns a Refresher of a source that was just loaded with the given result.
func Start(o Options, next time.Duration, err error) *Refresher {
	r := &Refresher{Options: o, stopped: make(chan struct{}), wake: make(chan struct{}, 1), busy: make(chan struct{}, 1),
		waiting: make(chan struct{}, maxWaiting), unknown: rate.NewLimiter(rate.Every(10*time.Second), 1)}
	first := r.begin()
	if o.Foreign && err == nil {
		r.unknown.Allow() // the load before Start counts
	}
	if err != nil {
		first = State{Err: err, Failures: 1, Bad: 1}
		next = r.backoff(State{})
	}
	r.state.Store(&first)
	r.ctx, r.stop = context.WithCancel(context.Background())
	next = Jitter(r.orEvery(next))
	if !o.Foreign {
		next = rand.N(next) // spread the reads of instances that start at the same time
	}
	go r.run(r.ctx, next)
	return r
}

// Close stops the goroutine and waits for it, including a load that ignores its context.
func (r *Refresher) Close() {
	r.stop()
	<-r.stopped
}

// State returns the result of the loads so far.
func (r *Refresher) State() State { return *r.state.Load() }

// Age returns the age of the last good load: the larger of its ages by the monotonic clock,
// which a wrong wall clock cannot fool, and by the wall clock, which also runs while a
// machine sleeps.
func (r *Refresher) Age(now time.Time) time.Duration {
	s := r.state.Load()
	return max(r.Clock.Monotonic()-s.lastGoodFor, now.Round(0).Sub(s.LastGood))
}

// begin returns the state after a good load that begins now. A slow load is as old as its
// start.
func (r *Refresher) begin() State {
	return State{LastGood: r.Clock.Now().Round(0), lastGoodFor: r.Clock.Monotonic()}
}

// Refresh waits for a load that begins after the call.
func (r *Refresher) Refresh(ctx context.Context) error {
	r.mu.Lock()
	f := r.request()
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request returns the next flight, and creates it if necessary. mu must be held.
func (r *Refresher) request() *flight {
	if r.next == nil {
		r.next = &flight{done: make(chan struct{})}
		r.wake <- struct{}{} // cannot block: it is empty while there is no next flight
	}
	return r.next
}

func (f *flight) land(err error) {
	f.err = err
	close(f.done)
}

// run makes flights until its context ends.
func (r *Refresher) run(ctx context.Context, first time.Duration) {
	defer close(r.stopped)
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			r.mu.Lock()
			r.request().land(ErrClosed) // stays the next flight, for later calls
			r.mu.Unlock()
			return
		case <-timer.C:
			if wait, now := r.turn(); !now {
				timer.Reset(wait)
				continue
			}
		case <-r.wake:
		}
		timer.Reset(Jitter(r.fly(ctx)))
	}
}

// fly makes one flight and returns the time until the next is due.
func (r *Refresher) fly(ctx context.Context) time.Duration {
	r.mu.Lock()
	f := r.request()
	r.next, r.flying = nil, f
	select {
	case <-r.wake: // if the timer was first, this flight also serves the request
	default:
	}
	r.mu.Unlock()

	if err := r.Lock(ctx); err != nil {
		f.land(ErrClosed)
		return r.Every
	}
	defer r.Unlock()
	good := r.begin()
	next, err := r.Load(ctx)
	if ctx.Err() != nil {
		err = ErrClosed
	}
	wait := r.record(good, r.orEvery(next), err)

	r.mu.Lock()
	r.flying = nil
	r.mu.Unlock()
	f.land(err)
	if r.Then != nil && (err == nil || errors.Is(err, ErrRefused)) {
		r.Then(ctx)
	}
	return wait
}

// record records the result of a load and returns the time until the next one, which is
// next after a good load.
func (r *Refresher) record(good State, next time.Duration, err error) time.Duration {
	before := r.State()
	if errors.Is(err, ErrClosed) { // not a failure of the source
		return next
	}
	after := good
	after.Good, after.Bad = before.Good+1, before.Bad
	if err != nil {
		next = r.backoff(before)
		after = before
		after.Err, after.Failures, after.Bad = err, before.Failures+1, before.Bad+1
		if errors.Is(err, ErrRefused) {
			after.LastGood, after.lastGoodFor = good.LastGood, good.lastGoodFor
		}
	}
	r.state.Store(&after)
	r.Report(before, after, next)
	return next
}

// backoff returns the wait after one more failure.
func (r *Refresher) backoff(before State) time.Duration {
	first, most := firstBackoff, r.Every
	if r.Foreign {
		most = min(most, maxForeignBackoff)
		if before.LastGood.IsZero() {
			first = firstBackoffAtStart
		}
	}
	return min(first<<min(before.Failures, 10), most)
}

func (r *Refresher) orEvery(next time.Duration) time.Duration {
	return min(cmp.Or(next, r.Every), r.Every)
}

// Lock waits until no one else in this instance uses the source. Between a load and a save
// by one user, others must not adopt what they loaded earlier.
func (r *Refresher) Lock(ctx context.Context) error {
	select {
	case r.busy <- struct{}{}:
	case <-r.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.ctx.Err() != nil { // select takes any case that is ready
		r.Unlock()
		return ErrClosed
	}
	return nil
}

// Unlock releases the lock.
func (r *Refresher) Unlock() { <-r.busy }

// Sleep waits and returns true, or returns false if the context ends first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Spread returns a random time from d/2 to 3/2 d, so that one of many waiting callers goes
// first and the others see its result.
func Spread(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// Jitter spreads the calls of a fleet. It returns d or up to 10% less, never more, since
// the bounds of a rotation policy depend on a load each RefreshEvery.
func Jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Float64()*0.1*float64(d))
}
