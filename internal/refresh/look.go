package refresh

import (
	"context"
	"errors"
	"time"
)

const (
	// unknownEvery is the least time between two loads that unknown kids cause.
	unknownEvery = 10 * time.Second
	// maxWaiting bounds how many calls of Look wait for such a load, and with it the
	// memory that a flood of made-up kids takes while the source is slow; maxWait is how
	// long each waits.
	maxWaiting = 1000
	maxWait    = 3 * time.Second
)

// Why Look has not loaded the source.
var (
	ErrTooSoon = errors.New("the keys were loaded within the last 10 seconds")
	errTooMany = errors.New("too many requests wait for the keys")
	errTooSlow = errors.New("the keys could not be loaded within 3 seconds")
)

// Look loads the source because a token names a key that is not known. It returns nil if
// a load has succeeded, so that looking again makes sense, and ErrTooSoon if it was loaded
// too recently to do it again. Everyone who comes during that load shares it.
func (r *Refresher) Look(ctx context.Context) error {
	f, err := r.join()
	if err != nil {
		return err
	}
	defer func() {
		r.mu.Lock()
		r.waiting--
		r.mu.Unlock()
	}()
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-f.done:
		return f.err
	case <-timer.C:
		return errTooSlow
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns the flight to wait for.
func (r *Refresher) join() (*flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	f := r.next
	if f == nil && r.unknown.Allow() {
		f = r.request()
	}
	if f == nil { // better than nothing, although it may have read too early
		f = r.flying
	}
	if f == nil {
		r.suppressed.Add(1)
		return nil, ErrTooSoon
	}
	if r.waiting >= maxWaiting {
		return nil, errTooMany
	}
	r.waiting++
	return f, nil
}

// Suppressed returns how many calls of Look have returned ErrTooSoon.
func (r *Refresher) Suppressed() uint64 { return r.suppressed.Load() }

// turn reports whether the timer has its turn among the flights that unknown kids start, or
// how long it has to wait. Before the first good load there is nothing to verify with, so it
// need not.
func (r *Refresher) turn() (wait time.Duration, now bool) {
	if !r.Foreign || r.State().LastGood.IsZero() {
		return 0, true
	}
	if r.unknown.Allow() {
		return 0, true
	}
	turn := r.unknown.Reserve()
	defer turn.Cancel()
	return turn.Delay(), false
}
