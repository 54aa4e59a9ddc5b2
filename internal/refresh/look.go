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
	r.mu.Lock()
	f := r.next
	if f == nil && !r.closed && r.unknown.Allow() {
		f = r.request()
	}
	if f == nil { // better than nothing, although it may have read too early
		f = r.flying
	}
	switch {
	case r.closed:
		r.mu.Unlock()
		return ErrClosed
	case f == nil:
		r.mu.Unlock()
		r.suppressed.Add(1)
		return ErrTooSoon
	case r.waiting >= maxWaiting:
		r.mu.Unlock()
		return errTooMany
	}
	r.waiting++
	r.mu.Unlock()
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

// Suppressed returns how many calls of Look have returned ErrTooSoon.
func (r *Refresher) Suppressed() uint64 { return r.suppressed.Load() }

// turn returns how long the timer has to wait for its turn among the flights that unknown
// kids start. Before the first good load there is nothing to verify with, so it does not.
func (r *Refresher) turn() time.Duration {
	if !r.Foreign || r.State().LastGood.IsZero() {
		return 0
	}
	turn := r.unknown.Reserve()
	wait := turn.Delay()
	if wait > 0 {
		turn.Cancel()
	}
	return wait
}
