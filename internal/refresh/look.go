package refresh

import (
	"context"
	"errors"
	"time"
)

// maxWaiting limits how many calls of Look wait for a load, and so the memory that a flood
// of made-up kids takes while the source is slow.
const maxWaiting = 1000

// Reasons why Look has not loaded the source.
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
	if f == nil { // better than nothing, though it may have read too early
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

// turn reports whether the timer may start a load among those that unknown kids start, or
// how long it must wait. Before the first good load it never waits, since there is nothing
// to verify with.
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
