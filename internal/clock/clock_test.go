package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleetkey/fleetkey/internal/clock"
)

func TestFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		system := clock.From(t.Context())
		slow := clock.From(clock.With(t.Context(), clock.Wall(func() time.Time { return start.Add(-time.Hour) })))
		time.Sleep(time.Minute)
		assert.Equal(t, start.Add(time.Minute), system.Now(), "package time is the default")
		assert.Equal(t, start.Add(-time.Hour), slow.Now(), "the context's clock is used")
		assert.Equal(t, time.Minute, system.Monotonic())
		assert.Equal(t, time.Minute, slow.Monotonic(), "a wrong wall clock must not affect the monotonic one")
	})
}
