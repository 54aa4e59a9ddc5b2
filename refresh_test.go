package fleetkey_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		a, b := start(t, store, config()), start(t, store.Open(), config())
		old := issue(t, a)

		time.Sleep(24 * time.Hour)
		require.InDelta(t, 24*12, store.Loads(), 24, "one load in five minutes")

		store.Set(foreignBundle(t, config()))
		time.Sleep(6 * time.Minute)
		require.NotEqual(t, old, a.SigningKey().KeyID)
		require.Equal(t, a.SigningKey().KeyID, b.SigningKey().KeyID, "a replaced secret is adopted without a restart")
		accepts(t, issue(t, a), a, b)

		_, version := store.Content()
		store.Set([]byte("garbage"))
		require.ErrorContains(t, a.Refresh(t.Context()), "not a key bundle")
		time.Sleep(time.Hour)
		require.Equal(t, version, a.Status().Version, "garbage is reported and ignored")
		require.Error(t, a.Status().LoadErr)
		accepts(t, issue(t, a), a, b)
		bundle, _ := store.Content()
		require.Equal(t, "garbage", string(bundle), "and never overwritten")
	})
}

func TestStoreDownChangesNothingForIssueAndVerify(t *testing.T) { // A1, A2, A3, A5, F3, F5
	for name, f := range map[string]fleetkeytest.Fault{
		"refused":   {Err: fleetkey.ErrAccessDenied},
		"throttled": {Err: fleetkey.ErrUnavailable},
		"hanging":   {Delay: time.Hour},
		"deleted":   {Err: fleetkey.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				s := start(t, store, config())
				store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return f })
				begin, loads, saves := time.Now(), store.Loads(), store.Saves()
				time.Sleep(30 * 24 * time.Hour)
				calls := float64(store.Loads()-loads) / time.Since(begin).Minutes()
				require.LessOrEqual(t, calls, 0.3, "calls a minute")
				require.Equal(t, saves, store.Saves(), "nothing is created")

				now := time.Now()
				accepts(t, issue(t, s), s)
				require.Equal(t, now, time.Now(), "Issue and Verify do not wait")
				status := s.Status()
				require.NoError(t, status.Err)
				require.Error(t, status.LoadErr)
				require.Positive(t, status.Failures)
				require.NotEmpty(t, status.Warnings())

				store.SetHook(nil)
				time.Sleep(6 * time.Minute)
				require.NoError(t, s.Status().LoadErr, "recovers alone")
			})
		})
	}
}

// TestUnknownKey: Verify looks for the key of a token that it does not know. A flood of
// such tokens costs the store little, and those of known keys nothing.
func TestUnknownKey(t *testing.T) { // L2
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, store, config())
		store.Set(foreignBundle(t, config()))
		honest := issue(t, start(t, store.Open(), config()))
		accepts(t, honest, s)

		junk := issue(t, start(t, fleetkeytest.NewStore(), config()))
		before, begin := store.Loads(), time.Now()
		for time.Since(begin) < time.Minute {
			refuses(t, fleetkey.ErrUnknownKey, junk, s)
			now := time.Now()
			accepts(t, honest, s)
			require.Equal(t, now, time.Now(), "known keys are not touched")
			time.Sleep(50 * time.Millisecond)
		}
		require.LessOrEqual(t, store.Loads()-before, 7)
		require.GreaterOrEqual(t, store.Loads()-before, 5, "and the store is asked all the same")

		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Delay: time.Hour} })
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		_, err := s.Verify(ctx, junk)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
		require.Equal(t, time.Second, time.Since(begin), "ctx bounds the wait")
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, store, config())
		token := issue(t, s)
		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Delay: time.Hour} })
		waiting := make(chan error)
		go func() { waiting <- s.Refresh(context.Background()) }()
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, s.Close())
		require.NoError(t, s.Close(), "twice")
		require.Equal(t, begin, time.Now(), "Close does not wait for a hanging store")
		require.Error(t, <-waiting)
		require.ErrorIs(t, s.Refresh(t.Context()), fleetkey.ErrClosed)
		require.ErrorIs(t, s.Rotate(t.Context()), fleetkey.ErrClosed)
		accepts(t, token, s)
		accepts(t, issue(t, s), s)
		require.NoError(t, s.Status().LoadErr, "closing is not the store's failure")
	}) // the bubble fails if a goroutine is left
}
