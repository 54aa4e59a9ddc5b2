package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/refresh"
)

const every = 5 * time.Minute

var errDown = errors.New("the source is down")

// A source is loaded by a Refresher, and records the loads.
type source struct {
	err    error         // result of each load
	takes  time.Duration // duration of each load
	deaf   bool          // ignores its context
	loads  []time.Time
	ends   int
	report func(before, after refresh.State, wait time.Duration)
	then   func()
}

// start runs a test in a synctest bubble with a Refresher of a source. err is the result of
// the first load.
func start(t *testing.T, o refresh.Options, err error, test func(t *testing.T, s *source, r *refresh.Refresher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: err, report: func(_, _ refresh.State, _ time.Duration) {}, then: func() {}}
		if o.Clock == nil {
			o.Clock = clock.From(t.Context())
		}
		o.Every, o.Load, o.Then = every, s.load, func(context.Context) { s.then() }
		o.Report = func(before, after refresh.State, wait time.Duration) { s.report(before, after, wait) }
		r := refresh.Start(o, 0, err)
		defer r.Close()
		synctest.Wait()
		test(t, s, r)
	})
}

func (s *source) load(ctx context.Context) (time.Duration, error) {
	s.loads = append(s.loads, time.Now())
	if s.deaf {
		ctx = context.Background()
	}
	if !refresh.Sleep(ctx, s.takes) {
		return 0, ctx.Err()
	}
	s.ends++
	return 0, s.err
}

// waits returns the times between loads.
func (s *source) waits() (waits []time.Duration) {
	for i := 1; i < len(s.loads); i++ {
		waits = append(waits, s.loads[i].Sub(s.loads[i-1]))
	}
	return waits
}

// requireWaits checks that each wait is as wanted, or up to 10% shorter.
func requireWaits(t *testing.T, want, waits []time.Duration) {
	t.Helper()
	for i, wait := range want {
		require.LessOrEqual(t, waits[i], wait)
		require.GreaterOrEqual(t, waits[i], wait*9/10)
	}
}

// TestRefreshShares: calls during a load share the next load, since the current one may have
// read too early for them.
func TestRefreshShares(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.takes = time.Second
		begin := time.Now()
		var all sync.WaitGroup
		come := func(back time.Duration) {
			all.Go(func() {
				assert.NoError(t, r.Refresh(t.Context()))
				assert.Equal(t, back, time.Since(begin))
			})
		}
		come(time.Second)
		synctest.Wait()
		for range 50 {
			come(2 * time.Second)
		}
		all.Wait()
		require.Len(t, s.loads, 2)
	})
}

func TestRefreshEndsWithItsContext(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.takes = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		require.ErrorIs(t, r.Refresh(ctx), context.DeadlineExceeded)
		require.Error(t, r.Look(ctx))
		require.Equal(t, time.Second, time.Since(begin))
		sleep(time.Hour)
		require.Equal(t, 1, s.ends, "the load must not end with its caller's context")
	})
}

// TestLock: nothing is loaded while the lock is held.
func TestLock(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		require.NoError(t, r.Lock(t.Context()))
		require.ErrorIs(t, r.Lock(canceled()), context.Canceled)
		sleep(every) // the flight started by the timer waits
		require.Empty(t, s.loads)
		done := make(chan error)
		go func() { done <- r.Refresh(t.Context()) }()
		synctest.Wait()
		r.Unlock()
		require.NoError(t, <-done)
		synctest.Wait()
		require.Len(t, s.loads, 2, "one for the timer, one for the request")
	})
}

func TestBackOff(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		s.err = errDown
		var told []time.Duration
		s.report = func(_, _ refresh.State, wait time.Duration) { told = append(told, wait) }
		require.Error(t, r.Refresh(t.Context()))
		sleep(6 * every)
		want := []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, every, every}
		require.Equal(t, want, told[:len(want)])
		requireWaits(t, want, s.waits())
		for range 100 { // the doubling must not overflow
			require.Error(t, r.Refresh(t.Context()))
		}
		require.Equal(t, every, told[len(told)-1])
		s.err = nil
		require.NoError(t, r.Refresh(t.Context()))
		require.Equal(t, every, told[len(told)-1])
		s.err = errDown
		require.Error(t, r.Refresh(t.Context()))
		require.Equal(t, 10*time.Second, told[len(told)-1], "the waits must start again")
	})
}

func TestState(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		begin := time.Now()
		require.Equal(t, fmt.Sprint(begin.Round(0)), fmt.Sprint(r.State().LastGood), "LastGood must be the load before Start")
		s.report = func(before, after refresh.State, _ time.Duration) {
			assert.Equal(t, before.Good+before.Bad+1, after.Good+after.Bad)
			assert.Equal(t, after, r.State(), "the state must be set before it is reported")
		}
		s.takes, s.err = time.Minute, errDown
		for range 2 {
			require.Error(t, r.Refresh(t.Context()))
		}
		got := r.State()
		require.Equal(t, []any{begin.Round(0), errDown, 2, uint64(0), uint64(2)}, []any{got.LastGood, got.Err, got.Failures, got.Good, got.Bad})
		s.err = nil
		require.NoError(t, r.Refresh(t.Context()))
		got = r.State()
		require.Equal(t, []any{nil, 0, uint64(1), uint64(2)}, []any{got.Err, got.Failures, got.Good, got.Bad})
		require.Equal(t, s.loads[len(s.loads)-1].Round(0), got.LastGood, "a load is as old as its start")
		require.Equal(t, time.Minute, r.Age(time.Now()))
	})
}

// TestRefused: a load whose content was refused still counts as fresh, and Then is called. For
// the callers the load has failed.
func TestRefused(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		var told []time.Duration
		s.report = func(_, _ refresh.State, wait time.Duration) { told = append(told, wait) }
		thens := 0
		s.then = func() { thens++ }
		s.err = fmt.Errorf("no key could sign: %w", refresh.ErrRefused)
		require.Error(t, r.Look(t.Context()))
		sleep(time.Second)
		require.ErrorIs(t, r.Refresh(t.Context()), refresh.ErrRefused)
		synctest.Wait()
		got := r.State()
		require.Equal(t, []any{s.err, 2, uint64(0), uint64(2), 2}, []any{got.Err, got.Failures, got.Good, got.Bad, thens})
		require.Equal(t, time.Now().Round(0), got.LastGood)
		require.Zero(t, r.Age(time.Now()))
		require.Equal(t, []time.Duration{10 * time.Second, 20 * time.Second}, told, "must be retried as after any failure")
	})
}

// TestThen: Then is called after the callers waiting for the load have the result, and the next
// load waits for it.
func TestThen(t *testing.T) {
	start(t, refresh.Options{}, nil, func(t *testing.T, s *source, r *refresh.Refresher) {
		var thens int
		s.then = func() { thens++; time.Sleep(time.Minute) }
		begin := time.Now()
		require.NoError(t, r.Refresh(t.Context()))
		require.Equal(t, begin, time.Now())
		synctest.Wait()
		require.Equal(t, 1, thens)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, r.Lock(ctx), context.DeadlineExceeded, "Then must hold the lock")
		require.Error(t, r.Look(canceled()), "there must be no flight to join")
		s.err = errDown
		require.Error(t, r.Refresh(t.Context()))
		require.Equal(t, time.Minute, time.Since(begin))
		synctest.Wait()
		require.Equal(t, 1, thens, "must not be called after a failure")
	})
}

// sleep waits for d, and then until everything that was due has been done.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestStartSpreads: instances that start at the same time do not read at the same time. For a
// foreign source, the time until the first load is not randomized.
func TestStartSpreads(t *testing.T) {
	for foreign, least := range map[bool]time.Duration{false: 0, true: every * 9 / 10} {
		synctest.Test(t, func(t *testing.T) {
			begin, firsts := time.Now(), make(chan time.Duration, 100)
			for range cap(firsts) {
				first := sync.OnceFunc(func() { firsts <- time.Since(begin) })
				load := func(context.Context) (time.Duration, error) { first(); return 0, nil }
				defer refresh.Start(refresh.Options{Every: every, Foreign: foreign, Clock: clock.From(t.Context()), Load: load,
					Report: func(_, _ refresh.State, _ time.Duration) {}}, 0, nil).Close()
			}
			sleep(every)
			require.Len(t, firsts, cap(firsts), "a load must not be late")
			earliest := <-firsts // they are in order
			require.GreaterOrEqual(t, earliest, least)
			require.Less(t, earliest, least+every/10)
		})
	}
}

// TestJitter: reads are spread, and never late.
func TestJitter(t *testing.T) {
	jittered, spread, distinct := time.Duration(0), time.Duration(0), map[time.Duration]bool{}
	for range 1000 {
		j, s := refresh.Jitter(every), refresh.Spread(every)
		require.LessOrEqual(t, j, every)
		require.GreaterOrEqual(t, j, every*9/10)
		require.GreaterOrEqual(t, s, every/2)
		require.Less(t, s, every*3/2)
		jittered, spread, distinct[j] = jittered+j, spread+s, true
	}
	require.Greater(t, len(distinct), 900)
	require.InDelta(t, 0.95, float64(jittered)/float64(every)/1000, 0.01)
	require.InDelta(t, 1, float64(spread)/float64(every)/1000, 0.05)
}
