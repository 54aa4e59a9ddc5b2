package clock_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleetkey/fleetkey/internal/clock"
)

// A fake is a Clock set by a test.
type fake struct {
	wall      time.Time
	monotonic time.Duration
}

func (f *fake) Now() time.Time           { return f.wall }
func (f *fake) Monotonic() time.Duration { return f.monotonic }

// advance lets d pass, and makes the wall clock jump in addition.
func (f *fake) advance(d, jump time.Duration) {
	f.wall, f.monotonic = f.wall.Add(d+jump), f.monotonic+d
}

func TestWatch(t *testing.T) {
	const limit, distrust = time.Minute, time.Hour
	for name, steps := range map[string][]struct {
		d, jump, want time.Duration
		trusted       bool
	}{
		"no jump":              {{time.Hour, 0, 0, true}, {24 * time.Hour, 0, 0, true}},
		"a drift at the limit": {{time.Hour, limit, 0, true}, {time.Hour, -limit, 0, true}},
		"ahead": {
			{time.Second, limit + 1, limit + 1, false}, // returned once
			{distrust - 1, 0, 0, false},
			{1, 0, 0, true}},
		"back": {{0, -limit - 1, -limit - 1, false}, {distrust, 0, 0, true}},
		"there and back": {
			{time.Second, 2 * limit, 2 * limit, false},
			{distrust - 1, -2 * limit, -2 * limit, false}, // distrusted again
			{distrust - 1, 0, 0, false},
			{1, 0, 0, true}},
		"asleep, with a monotonic clock that stands still": {{0, 8 * time.Hour, 8 * time.Hour, false}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{wall: time.Now(), monotonic: time.Hour}
			w := clock.NewWatch(f)
			jump, trusted := w.Look(limit, distrust)
			assert.Zero(t, jump, "the first call has nothing to compare with")
			assert.True(t, trusted, "the clock is trusted at first")
			for i, step := range steps {
				f.advance(step.d, step.jump)
				jump, trusted = w.Look(limit, distrust)
				assert.Equal(t, step.want, jump, "step %d", i)
				assert.Equal(t, step.trusted, trusted, "step %d", i)
			}
		})
	}
}
