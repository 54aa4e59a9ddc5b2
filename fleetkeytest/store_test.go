package fleetkeytest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func TestStore(t *testing.T) {
	fleetkeytest.TestKeyStore(t, func(*testing.T) func() fleetkey.KeyStore {
		s := fleetkeytest.NewStore()
		return func() fleetkey.KeyStore { return s.Open() }
	})
}

// TestStoreNamesPrev: a sound store may name the version that it was given in an error.
func TestStoreNamesPrev(t *testing.T) {
	const long = "-0123456789abcdef0123456789abcdef0123456789abcdef"
	fleetkeytest.TestKeyStore(t, func(*testing.T) func() fleetkey.KeyStore {
		s := &store{Store: fleetkeytest.NewStore(), fault: fault{load: func(ctx context.Context, s *store) ([]byte, fleetkey.Version, error) {
			b, v, err := s.Store.Load(ctx)
			if err == nil {
				v += long
			}
			return b, v, err
		}, save: func(ctx context.Context, s *store, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			v, err := s.Store.Save(ctx, b, fleetkey.Version(strings.TrimSuffix(string(prev), long)))
			if err != nil {
				return "", fmt.Errorf("expected version %q: %w", prev, err)
			}
			return v + long, nil
		}}}
		return func() fleetkey.KeyStore { return s }
	})
}

func TestStoreFaults(t *testing.T) {
	lost := errors.New("connection reset")
	for name, tt := range map[string]struct {
		fault   fleetkeytest.Fault
		loadErr error
		loaded  string
		saveErr error
		after   string // content once a Save of "new" has returned
		waited  time.Duration
	}{
		"none":         {loaded: "second", after: "new"},
		"error":        {fault: fleetkeytest.Fault{Err: lost}, loadErr: lost, saveErr: lost, after: "second"},
		"lost reply":   {fault: fleetkeytest.Fault{Err: lost, Stored: true}, loadErr: lost, saveErr: lost, after: "new"},
		"stale":        {fault: fleetkeytest.Fault{Stale: 1}, loaded: "first", after: "new"},
		"stale absent": {fault: fleetkeytest.Fault{Stale: 99}, loadErr: fleetkey.ErrNotExist, after: "new"},
		"delay":        {fault: fleetkeytest.Fault{Delay: time.Second}, loaded: "second", after: "new", waited: time.Second},
		"delay past the context": {
			fault: fleetkeytest.Fault{Delay: time.Hour}, waited: time.Minute,
			loadErr: context.DeadlineExceeded, saveErr: context.DeadlineExceeded, after: "second",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := fleetkeytest.NewStore()
				s.Set([]byte("first"))
				v := s.Set([]byte("second"))
				s.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return tt.fault })

				call := func(f func(context.Context) error) error {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					start := time.Now()
					err := f(ctx)
					assert.Equal(t, tt.waited, time.Since(start))
					return err
				}
				var got []byte
				require.ErrorIs(t, call(func(ctx context.Context) (err error) {
					got, _, err = s.Load(ctx)
					return err
				}), tt.loadErr)
				assert.Equal(t, tt.loaded, string(got))
				require.ErrorIs(t, call(func(ctx context.Context) error {
					_, err := s.Save(ctx, []byte("new"), v)
					return err
				}), tt.saveErr)
				got, _ = s.Content()
				assert.Equal(t, tt.after, string(got))
			})
		})
	}
}

// A lost reply does not turn a lost race into a win.
func TestStoreLostReplyOfAConflict(t *testing.T) {
	s, lost := fleetkeytest.NewStore(), errors.New("connection reset")
	s.Set([]byte("theirs"))
	s.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Err: lost, Stored: true} })
	_, err := s.Save(t.Context(), []byte("ours"), "")
	require.ErrorIs(t, err, lost)
	got, _ := s.Content()
	assert.Equal(t, "theirs", string(got))
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
	load := func() (string, fleetkey.Version) {
		b, v, err := s.Load(t.Context())
		require.NoError(t, err)
		return string(b), v
	}
	first := s.Set([]byte("one"))
	second := s.Set([]byte("two"))
	assert.NotEqual(t, first, second)

	s.RollBack(first)
	data, v := load()
	assert.Equal(t, "one", data)
	assert.Equal(t, first, v)
	_, err := s.Save(t.Context(), []byte("three"), second)
	require.ErrorIs(t, err, fleetkey.ErrConflict)

	s.Delete()
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, fleetkey.ErrNotExist)
	_, v = s.Content()
	assert.Zero(t, v)
	_, err = s.Save(t.Context(), []byte("three"), first)
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	_, err = s.Save(t.Context(), []byte("three"), "")
	require.NoError(t, err)

	assert.Panics(t, func() { s.RollBack("v99") })
	assert.Panics(t, func() { s.RollBack("") })
	_, err = s.Save(t.Context(), make([]byte, fleetkey.MaxBundleSize+1), "")
	require.ErrorContains(t, err, "65537")
}
