package fleetkey

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// A refresher is the part of a Signer that keeps its snapshot fresh: one
// goroutine, the only one that reads the store after the start. Everyone who
// wants a load joins a flight.
type refresher struct {
	stop    context.CancelFunc
	stopped chan struct{}
	wake    chan struct{} // a flight is waiting; holds one

	mu      sync.Mutex
	next    *flight // not begun yet; nil: nobody asked for one
	flying  *flight
	closed  bool
	waiting int           // Verify calls on a flight
	unknown *rate.Limiter // flights that unknown kids may start

	busy   chan struct{} // holds one while the store is in use, see lockStore
	warned time.Time     // of the certificate's end, see warnOfEnd
	writes writes
	jumps  jumps
	// rotationErr is why the last due rotation failed; nil: it did not.
	rotationErr atomic.Pointer[error]
}

// A flight is one load of the store; done is closed once err holds its outcome.
type flight struct {
	done chan struct{}
	err  error
}

// health is how the loads went.
type health struct {
	loaded   time.Time // begin of the last good load
	wall     time.Time // the same by the wall clock
	err      error     // of the last load; nil: it was good
	failures int       // since the last good load
}

const (
	// unknownEvery is the least time between two loads that unknown kids cause.
	unknownEvery = 10 * time.Second
	// maxWaiting bounds how many Verify calls wait for such a load, and with it
	// the memory that a flood of made-up kids takes while the store is slow.
	maxWaiting = 1000
	// firstBackoff is the wait after a failed load; it doubles with each, up to
	// RefreshEvery.
	firstBackoff = 10 * time.Second
)

func (s *Signer) startRefreshing() {
	s.stopped = make(chan struct{})
	s.wake = make(chan struct{}, 1)
	s.busy = make(chan struct{}, 1)
	s.unknown = rate.NewLimiter(rate.Every(unknownEvery), 1)
	s.health.Store(&health{loaded: time.Now(), wall: s.clock.Now().Round(0)})
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.keepFresh(ctx)
}

// Close ends the background refresh, and returns when it has ended; a store call
// that ignores its context is waited for. Issue and Verify go on working from
// memory with the keys of the last load.
func (s *Signer) Close() error {
	s.stop()
	<-s.stopped
	return nil
}

// Refresh loads the key set from the store now, instead of within RefreshEvery.
// On failure the keys stay as they are, and the error tells why.
func (s *Signer) Refresh(ctx context.Context) error {
	s.mu.Lock()
	f := s.request()
	s.mu.Unlock()
	var err error
	select {
	case <-f.done:
		err = f.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("fleetkey: refresh: %w", err)
	}
	return nil
}

// request joins the next flight. The caller holds mu.
func (s *Signer) request() *flight {
	if s.next == nil {
		s.next = &flight{done: make(chan struct{})}
		if s.closed {
			s.next.land(ErrClosed)
		} else {
			s.wake <- struct{}{} // empty, since nobody had asked
		}
	}
	return s.next
}

func (f *flight) land(err error) {
	f.err = err
	close(f.done)
}

// lookForKey loads the store because a token names a key that is not known. It
// reports whether a load has succeeded, so that looking again makes sense. All
// who come meanwhile share that load, and a new one is begun only every 10
// seconds: made-up kids cost the store at most six calls a minute.
func (s *Signer) lookForKey(ctx context.Context) bool {
	s.mu.Lock()
	f := s.next
	if f == nil && !s.closed && s.unknown.Allow() {
		f = s.request()
	}
	if f == nil { // better than nothing, although it may have read too early
		f = s.flying
	}
	if f == nil || s.waiting >= maxWaiting {
		s.mu.Unlock()
		return false
	}
	s.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}()
	select {
	case <-f.done:
		return f.err == nil
	case <-ctx.Done():
		return false
	}
}

// keepFresh flies, until its context ends.
func (s *Signer) keepFresh(ctx context.Context) {
	defer close(s.stopped)
	timer := time.NewTimer(jitter(s.cfg.RefreshEvery))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.closed = true
			if s.next != nil {
				s.next.land(ErrClosed)
			}
			s.mu.Unlock()
			return
		case <-timer.C:
		case <-s.wake:
		}
		timer.Reset(s.fly(ctx))
	}
}

// fly makes one flight and returns the time until the next is due.
func (s *Signer) fly(ctx context.Context) time.Duration {
	s.mu.Lock()
	f := s.next
	if f == nil {
		f = &flight{done: make(chan struct{})}
	}
	s.next, s.flying = nil, f
	select {
	case <-s.wake: // the request that this flight serves, if the timer was first
	default:
	}
	s.mu.Unlock()

	if err := s.lockStore(ctx); err != nil {
		f.land(ErrClosed)
		return s.cfg.RefreshEvery
	}
	defer s.unlockStore()
	good := &health{loaded: time.Now(), wall: s.clock.Now().Round(0)} // a slow load is as old as its begin
	err := s.load(ctx)
	if ctx.Err() != nil {
		err = ErrClosed
	}
	if old := s.current.Load(); err != nil && old.outdated(s.clock.Now()) {
		err = errors.Join(err, s.adopt(old.set, old.version))
	}
	wait := s.record(good, err)

	s.mu.Lock()
	s.flying = nil
	s.mu.Unlock()
	f.land(err)
	if err == nil {
		s.maintain(ctx)
	}
	return wait
}

// age is how old the last good load is: by the monotonic clock, which a wall
// clock gone wrong cannot fool, and by the wall clock, which goes on while a
// machine sleeps.
func (h *health) age(now time.Time) time.Duration {
	return max(time.Since(h.loaded), now.Round(0).Sub(h.wall))
}

// lockStore waits until nobody else of this instance loads or saves. Between
// the two, a set loaded earlier must not be adopted over one saved since.
func (s *Signer) lockStore(ctx context.Context) error {
	if s.isStopped() {
		return ErrClosed
	}
	select {
	case s.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.isStopped() { // while it waited
		s.unlockStore()
		return ErrClosed
	}
	return nil
}

func (s *Signer) isStopped() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

func (s *Signer) unlockStore() { <-s.busy }

// record notes how a load went and returns the time until the next one.
func (s *Signer) record(good *health, err error) time.Duration {
	h := *s.health.Load()
	if err == nil {
		if h.err != nil {
			s.cfg.Logger.Info("the signing keys can be read again", "store", storeName(s.store), "failures", h.failures)
		}
		s.health.Store(good)
		s.counters.loads.Add(1)
		s.warnOfEnd()
		return jitter(s.cfg.RefreshEvery)
	}
	if errors.Is(err, ErrClosed) { // not the store's fault
		return s.cfg.RefreshEvery
	}
	wait := min(firstBackoff<<min(h.failures, 10), s.cfg.RefreshEvery)
	s.counters.failedLoads.Add(1)
	h.err, h.failures = err, h.failures+1
	s.health.Store(&h)
	hint := ""
	if errors.Is(err, ErrNotExist) {
		hint = "the bundle was deleted; a running instance never creates a new one"
	}
	s.cfg.Logger.Error("cannot refresh the signing keys, going on with the last good ones", "store", storeName(s.store),
		"failures", h.failures, "last_good", h.loaded, "retry_in", wait, "hint", hint, "err", err)
	return jitter(wait)
}
