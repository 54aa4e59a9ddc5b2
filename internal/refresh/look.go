package refresh

import (
	"context"
	"errors"
	"time"
)

// maxWaiting limits how many calls of Look wait for a load, and thus the memory used by a
// flood of made-up kids while the source is slow.
const maxWaiting = 1000

// Errors of Look if it does not load the source.
var (
	ErrTooSoon = errors.New("the keys were loaded within the last 10 seconds")
	errTooMany = errors.New("too many requests are waiting for the keys")
	errTooSlow = errors.New("the keys could not be loaded within 3 seconds")
)

// Look loads the source because a token names an unknown key. It returns nil after a
// successful load, when the caller should look the key up again, and ErrTooSoon if the last
// load was too recent for another. Calls during a load share it.
func (r *Refresher) Look(ctx context.Context) error {
	f, err := r.join()
	if err != nil {
		return err
	}
	select {
	case r.waiting <- struct{}{}:
		defer func() { <-r.waiting }()
	default:
		return errTooMany
	}
	timer := time.NewTimer(3 * time.Second)
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
	f := r.next
	if f == nil && r.unknown.Allow() {
		f = r.request()
	}
	if f == nil { // the current load, even if it may have read too early
		f = r.flying
	}
	if f == nil {
		r.suppressed.Add(1)
		return nil, ErrTooSoon
	}
	return f, nil
}

// Suppressed returns how many calls of Look have returned ErrTooSoon.
func (r *Refresher) Suppressed() uint64 { return r.suppressed.Load() }

// turn reports whether the timer may start a load, or else how long it must wait. For a
// foreign source, the timer and unknown kids share one rate limit. Before the first good load
// the timer never waits, since there is nothing to verify with.
func (r *Refresher) turn() (wait time.Duration, now bool) {
	if !r.Foreign || r.State().LastGood.IsZero() {
		return 0, true
	}
	turn := r.unknown.Reserve()
	if wait = turn.Delay(); wait > 0 {
		turn.Cancel()
	}
	return wait, wait == 0
}
