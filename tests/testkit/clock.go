package testkit

import (
	"sync"
	"time"
)

// A Clock is the clock of one machine (clock.Clock): a wall clock that may be wrong, and a
// monotonic one that stands still while the machine is suspended.
type Clock struct {
	mu          sync.Mutex // guards the fields below
	offset      time.Duration
	fell, wakes time.Time     // start and end of the last suspension
	slept       time.Duration // before that
}

var bigBang = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Now returns the wall clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

// Monotonic returns the time that the machine has been awake.
func (c *Clock) Monotonic() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, nap := time.Now(), c.wakes.Sub(c.fell)
	if now.Before(c.wakes) {
		nap = now.Sub(c.fell)
	}
	return now.Sub(bigBang) - c.slept - nap
}

// Set moves the wall clock to an offset from the true time.
func (c *Clock) Set(offset time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = offset
}

// Suspend suspends the machine for d.
func (c *Clock) Suspend(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slept += c.wakes.Sub(c.fell)
	c.fell, c.wakes = time.Now(), time.Now().Add(d)
}

// Suspended reports whether the machine is suspended now.
func (c *Clock) Suspended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.wakes)
}
