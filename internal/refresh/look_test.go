package refresh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/refresh"
)

func TestLook(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		require.NoError(t, r.Look(t.Context()))
		require.ErrorIs(t, r.Look(t.Context()), refresh.ErrTooSoon)
		sleep(10*time.Second - 1)
		require.ErrorIs(t, r.Look(t.Context()), refresh.ErrTooSoon)
		require.EqualValues(t, 2, r.Suppressed())
		require.Len(t, s.loads, 1)
		sleep(1)
		require.NoError(t, r.Look(t.Context()))
		sleep(10 * time.Second)
		s.err = errDown
		require.ErrorIs(t, r.Look(t.Context()), errDown)
		require.Len(t, s.loads, 3)
	})
}

func TestLookJoins(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.takes = time.Second
		require.NoError(t, r.Look(t.Context()))
		loads := len(s.loads)
		go func() { assert.NoError(t, r.Refresh(t.Context())) }()
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, r.Look(t.Context()), "must join the current load")
		require.Equal(t, time.Second, time.Since(begin))
		require.Len(t, s.loads, loads+1)

		sleep(10 * time.Second)
		go func() { assert.NoError(t, r.Refresh(t.Context())) }()
		synctest.Wait()
		go func() { assert.NoError(t, r.Refresh(t.Context())) }()
		synctest.Wait()
		begin = time.Now()
		require.NoError(t, r.Look(t.Context()), "must join a requested load")
		require.Equal(t, 2*time.Second, time.Since(begin))
		require.Len(t, s.loads, loads+3)
		require.NoError(t, r.Look(t.Context()), "joining must not use up the rate limit")
		require.Len(t, s.loads, loads+4)
	})
}

// TestLookBoundsTheWaiting: a flood of made-up kids uses little memory.
func TestLookBoundsTheWaiting(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.takes = time.Second
		results := make(chan error, 1500)
		for range cap(results) {
			go func() { results <- r.Look(t.Context()) }()
		}
		synctest.Wait()
		require.Len(t, results, 500, "at most 1000 calls may wait")
		time.Sleep(time.Second)
		synctest.Wait()
		found := 0
		for range cap(results) {
			if <-results == nil {
				found++
			}
		}
		require.Equal(t, 1000, found)
		sleep(10 * time.Second)
		require.NoError(t, r.Look(t.Context()), "after the load, calls can wait again")
	})
}

// TestLookDoesNotWaitLong: Look waits for a slow source for at most 3 seconds.
func TestLookDoesNotWaitLong(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.takes = time.Minute
		begin := time.Now()
		require.ErrorContains(t, r.Look(t.Context()), "3 seconds")
		require.Equal(t, 3*time.Second, time.Since(begin))
		require.Error(t, r.Look(t.Context()), "must join the current load")
		require.Equal(t, 6*time.Second, time.Since(begin))
		synctest.Wait()
		require.Len(t, s.loads, 1)
	})
}

// foreign configures a source that belongs to another party.
var foreign = refresh.Options{Foreign: true}

// TestForeignStart: before the first good load, the waits are short and the timer ignores the
// rate limit.
func TestForeignStart(t *testing.T) {
	start(t, foreign, errDown, func(t *testing.T, s *source, r *refresh.Refresher) {
		require.Equal(t, []any{errDown, 1, true}, []any{r.State().Err, r.State().Failures, r.State().LastGood.IsZero()})
		require.ErrorIs(t, r.Look(t.Context()), errDown)
		begin := time.Now()
		sleep(5 * time.Minute)
		want := []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}
		requireWaits(t, want, s.waits())
		s.err = nil
		require.NoError(t, r.Refresh(t.Context()))
		require.True(t, r.State().LastGood.After(begin))
	})
	start(t, foreign, errDown, func(t *testing.T, _ *source, r *refresh.Refresher) {
		sleep(time.Second)
		require.EqualValues(t, 2, r.State().Bad, "the first wait must be a second")
	})
}

// TestForeignTakesTurns: a foreign source gets at most six loads a minute for any reason other
// than calls of Refresh.
func TestForeignTakesTurns(t *testing.T) {
	start(t, foreign, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.err = errDown
		for range 6000 { // a flood of unknown kids while the source is down
			_ = r.Look(t.Context())
			sleep(50 * time.Millisecond)
		}
		require.EqualValues(t, 29, r.State().Bad, "the flood must use every turn except the first")
		sleep(time.Hour)
		for range 2 {
			require.NotErrorIs(t, r.Refresh(t.Context()), refresh.ErrTooSoon)
		}
		waits := s.waits()
		for _, wait := range waits[:len(waits)-2] {
			require.GreaterOrEqual(t, wait, 10*time.Second-time.Microsecond) // the limiter rounds
			require.LessOrEqual(t, wait, time.Minute, "must be tried at least once a minute")
		}
	})
}
