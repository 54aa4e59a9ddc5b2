package clock

import "time"

// A Watch detects jumps of a wall clock. It is for one goroutine.
type Watch struct {
	clock      Clock
	wall       time.Time // at the last call of Look
	monotonic  time.Duration
	distrusted time.Duration // until then, by the monotonic clock
}

// NewWatch returns a Watch of a clock that is trusted now.
func NewWatch(c Clock) *Watch { return &Watch{clock: c} }

// Look compares the wall clock with the monotonic one. If they have drifted apart by more than
// limit since the last call, it returns the drift once, and distrusts the wall clock for a
// while, since the reading before or after may be wrong.
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
