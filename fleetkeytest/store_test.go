package fleetkeytest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func TestStore(t *testing.T) {
	for _, sound := range []string{"no fault", namesPrev} {
		t.Run(sound, func(t *testing.T) {
			fleetkeytest.TestKeyStore(t, func(*testing.T) func() fleetkey.KeyStore {
				s := fleetkeytest.NewStore()
				return func() fleetkey.KeyStore { return &store{Store: s.Open(), fault: sound} }
			})
		})
	}
}

func TestStoreFaults(t *testing.T) {
	lost := errors.New("connection reset")
	for name, tt := range map[string]struct {
		fault    fleetkeytest.Fault
		conflict bool // prev is outdated
		err      error
		loaded   string
		after    string // content after a Save of "new"
		waited   time.Duration
	}{
		"none":                  {loaded: "second", after: "new"},
		"error":                 {fault: fleetkeytest.Fault{Err: lost}, err: lost, after: "second"},
		"lost reply":            {fault: fleetkeytest.Fault{Err: lost, Stored: true}, err: lost, after: "new"},
		"lost reply to a loser": {fault: fleetkeytest.Fault{Err: lost, Stored: true}, conflict: true, err: lost, after: "second"},
		"stale":                 {fault: fleetkeytest.Fault{Stale: 1}, loaded: "first", after: "new"},
		"stale absent":          {fault: fleetkeytest.Fault{Stale: 99}, after: "new"},
		"delay":                 {fault: fleetkeytest.Fault{Delay: time.Second}, loaded: "second", after: "new", waited: time.Second},
		"delay past the context": {
			fault: fleetkeytest.Fault{Delay: time.Hour}, waited: time.Minute, err: context.DeadlineExceeded, after: "second",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := fleetkeytest.NewStore()
				prev := s.Set([]byte("first"))
				if now := s.Set([]byte("second")); !tt.conflict {
					prev = now
				}
				s.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return tt.fault })

				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				got, _, err := s.Load(ctx)
				cancel()
				if tt.fault.Stale == 99 {
					require.ErrorIs(t, err, fleetkey.ErrNotExist)
				} else {
					require.ErrorIs(t, err, tt.err)
				}
				assert.Equal(t, tt.loaded, string(got))
				ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
				_, err = s.Save(ctx, []byte("new"), prev)
				cancel()
				require.ErrorIs(t, err, tt.err)
				assert.Equal(t, 2*tt.waited, time.Since(start))
				got, _ = s.Content()
				assert.Equal(t, tt.after, string(got))
			})
		})
	}
}

func TestStoreCountsAndHooksPerInstance(t *testing.T) {
	a := fleetkeytest.NewStore()
	b := a.Open()
	var calls []fleetkeytest.Call
	a.SetHook(func(c fleetkeytest.Call) fleetkeytest.Fault {
		calls = append(calls, c)
		return fleetkeytest.Fault{}
	})
	v, err := a.Save(t.Context(), []byte("x"), "")
	require.NoError(t, err)
	for _, s := range []*fleetkeytest.Store{a, a, b} {
		_, got, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, v, got)
	}
	assert.Equal(t, []fleetkeytest.Call{{Op: fleetkeytest.OpSave, N: 1}, {Op: fleetkeytest.OpLoad, N: 1}, {Op: fleetkeytest.OpLoad, N: 2}}, calls)
	assert.Equal(t, []int{2, 1, 1, 0}, []int{a.Loads(), a.Saves(), b.Loads(), b.Saves()})
}

func TestStoreOperator(t *testing.T) {
	s := fleetkeytest.NewStore()
	first := s.Set([]byte("one"))
	second := s.Set([]byte("two"))
	assert.NotEqual(t, first, second)

	s.RollBack(first)
	data, v, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "one", string(data))
	assert.Equal(t, first, v)
	_, err = s.Save(t.Context(), []byte("three"), second)
	require.ErrorIs(t, err, fleetkey.ErrConflict)

	s.Delete()
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, fleetkey.ErrNotExist)
	_, v = s.Content()
	assert.Zero(t, v)
	_, err = s.Save(t.Context(), []byte("three"), first)
	require.ErrorIs(t, err, fleetkey.ErrConflict)

	assert.Panics(t, func() { s.RollBack("v99") })
	assert.Panics(t, func() { s.RollBack("") })
	_, err = s.Save(t.Context(), make([]byte, fleetkey.MaxBundleSize+1), "")
	require.ErrorContains(t, err, "65537")
}
