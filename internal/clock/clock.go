// Package clock provides the time to a signer: that of package time, unless the context has
// another clock. Tests that need only one clock should use testing/synctest; this package
// is for tests in which the clocks of a fleet differ, jump, or stand still while a machine
// is suspended.
package clock

import (
	"context"
	"time"
)

// A Clock is a machine's wall and monotonic clock. Methods must be safe for concurrent use.
type Clock interface {
	// Now returns the wall clock, which may be wrong and may jump.
	Now() time.Time
	// Monotonic returns the time since some fixed moment. It never jumps, and may
	// stand still while the machine is suspended.
	Monotonic() time.Duration
}

type contextKey struct{}

// With returns a context that carries a clock.
func With(ctx context.Context, c Clock) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// From returns the clock that a context carries, or that of package time.
func From(ctx context.Context) Clock {
	if c, ok := ctx.Value(contextKey{}).(Clock); ok {
		return c
	}
	return system{time.Now()}
}

type system struct{ start time.Time }

func (system) Now() time.Time             { return time.Now() }
func (c system) Monotonic() time.Duration { return time.Since(c.start) }

// Wall returns a clock with the wall clock now and the monotonic clock of package time.
func Wall(now func() time.Time) Clock { return wall{system{time.Now()}, now} }

type wall struct {
	system
	now func() time.Time
}

func (c wall) Now() time.Time { return c.now() }
