package clock

import "time"

// A Watch detects jumps of a wall clock. It is for one goroutine.
type Watch struct {
	clock      Clock
	wall       time.Time // at the last look
	monotonic  time.Duration
	distrusted time.Duration // until then, by the monotonic clock
}

// NewWatch returns a Watch of a clock that is trusted now.
func NewWatch(c Clock) *Watch { return &Watch{clock: c} }

// Look compares the wall clock with the monotonic one. It returns a drift of more than
// limit since the last look once, and then distrusts the clock for a while, since it is
// unknown which of the two readings was right.
func (w *Watch) Look(limit, distrust time.Duration) (jump time.Duration, trusted bool) {
	wall, monotonic := w.clock.Now().Round(0), w.clock.Monotonic()
	if !w.wall.IsZero() {
		if drift := wall.Sub(w.wall) - (monotonic - w.monotonic); drift.Abs() > limit {
			jump, w.distrusted = drift, monotonic+distrust
		}
	}
	w.wall, w.monotonic = wall, monotonic
	return jump, monotonic >= w.distrusted
}
