package refresh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/refresh"
)

func TestClose(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.takes = time.Hour
		s.report = func(_, after refresh.State, _ time.Duration) {
			t.Error("Close must not count as a failed load", after.Err)
		}
		s.then = func() { t.Error("Then must not be called") }
		waiting := make(chan error, 3)
		for range 2 { // one waits for the current load, one for the next
			go func() { waiting <- r.Refresh(context.Background()) }()
			synctest.Wait()
		}
		require.NoError(t, r.State().Err)
		locking, looking := make(chan error), make(chan error)
		go func() { locking <- r.Lock(context.Background()) }()
		go func() { looking <- r.Look(context.Background()) }()
		synctest.Wait()
		begin := time.Now()
		r.Close()
		r.Close()
		require.Equal(t, begin, time.Now(), "Close must end the load")
		for range 2 {
			require.ErrorIs(t, <-waiting, refresh.ErrClosed)
		}
		require.Error(t, <-locking)
		require.ErrorIs(t, <-looking, refresh.ErrClosed)
		require.ErrorIs(t, r.Refresh(context.Background()), refresh.ErrClosed)
		require.ErrorIs(t, r.Lock(context.Background()), refresh.ErrClosed)
		require.Error(t, r.Look(context.Background()))
		sleep(2 * every)
		require.Len(t, s.loads, 1)
		require.Zero(t, r.State().Bad)
	})
}

// TestCloseWaitsForADeafLoad: Close waits for a load that ignores its context, but its result
// is not used. A caller waiting for the lock then gets ErrClosed.
func TestCloseWaitsForADeafLoad(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.takes, s.deaf = time.Minute, true
		loading, locking := make(chan error), make(chan error)
		go func() { loading <- r.Refresh(context.Background()) }()
		synctest.Wait()
		go func() { locking <- r.Lock(context.Background()) }()
		synctest.Wait()
		begin := time.Now()
		go r.Close()
		require.ErrorIs(t, <-loading, refresh.ErrClosed)
		require.Equal(t, time.Minute, time.Since(begin))
		require.Zero(t, r.State().Good)
		require.ErrorIs(t, <-locking, refresh.ErrClosed)
	})
}

// A machine is a Clock set by a test.
type machine struct {
	wall      time.Time
	monotonic time.Duration
}

func (m *machine) Now() time.Time           { return m.wall }
func (m *machine) Monotonic() time.Duration { return m.monotonic }

func TestAge(t *testing.T) {
	for name, test := range map[string]struct{ wall, monotonic, want time.Duration }{
		"time passes":                 {time.Hour, time.Hour, time.Hour},
		"the machine has slept":       {time.Hour, time.Minute, time.Hour},
		"the wall clock was set back": {-time.Hour, time.Minute, time.Minute},
		"it was set ahead":            {24 * time.Hour, time.Minute, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{time.Now(), time.Second}
			start(t, refresh.Options{Clock: m}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
				m.wall, m.monotonic = m.wall.Add(test.wall).Round(0), m.monotonic+test.monotonic
				require.Equal(t, test.want, r.Age(m.wall))
				s.err = errDown
				require.Error(t, r.Refresh(t.Context()))
				require.Equal(t, test.want, r.Age(m.wall), "a failed load must not change the age")
				s.err = nil
				require.NoError(t, r.Refresh(t.Context()))
				require.Zero(t, r.Age(m.wall))
			})
		})
	}
}
