package fleetkey_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func TestCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, store, config())
		token := issue(t, s)
		accepts(t, token, s, s, s)
		_, err := s.Sign(t.Context(), "JWT", map[string]any{"sub": "alice"})
		require.NoError(t, err)
		_, err = s.Issue(t.Context(), fleetkey.Claims{})
		require.Error(t, err)
		refuses(t, fleetkey.ErrMalformed, "x", s, s)
		time.Sleep(2 * time.Hour)
		refuses(t, fleetkey.ErrExpired, token, s)
		before := s.Status().Counters
		store.SetHook(fail(errors.New("boom"), fleetkeytest.OpLoad))
		require.Error(t, s.Refresh(t.Context()))

		got := s.Status().Counters
		require.Equal(t, uint64(2), got.Issued)
		require.Equal(t, uint64(3), got.Verified["accepted"])
		require.Equal(t, uint64(2), got.CacheHits)
		require.Equal(t, uint64(2), got.Verified["malformed"])
		require.Equal(t, uint64(1), got.Verified["expired"])
		require.Zero(t, got.Verified["invalid_claims"], "a rejection counts once, under its own reason")
		require.Len(t, got.Verified, 12)
		require.InDelta(t, 24, got.Loads, 3, "in two hours")
		require.Zero(t, before.FailedLoads)
		require.Equal(t, uint64(1), got.FailedLoads)
	})
}
