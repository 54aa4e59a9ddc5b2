package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

func TestStart(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		hook  func(fleetkeytest.Call) fleetkeytest.Fault
		set   []byte
		want  error  // nil: NewSigner succeeds
		text  string // of the error
		saves int
	}{
		"any other failure never creates":         {hook: testkit.Fail(boom, fleetkeytest.OpLoad), want: boom, text: "load"},
		"garbage is never overwritten":            {set: []byte("{}"), text: "is not a key bundle"},
		"a refused save":                          {hook: testkit.Fail(boom, fleetkeytest.OpSave), want: boom, text: "save", saves: 1},
		"a refused read and a refused save":       {hook: testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpLoad, fleetkeytest.OpSave), want: fleetkey.ErrAccessDenied, saves: 1},
		"reads stay refused after a create":       {hook: testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpLoad), want: fleetkey.ErrAccessDenied, saves: 1},
		"a refused read that hid an empty store":  {hook: hideAbsence(), saves: 1},
		"a create whose reply is lost":            {hook: testkit.LoseReply, saves: 1},
		"a secret that exists but stays empty":    {hook: testkit.Fail(fleetkey.ErrConflict, fleetkeytest.OpSave), text: "the secret exists but has no value", want: fleetkey.ErrNotExist, saves: 1},
		"a store that is unavailable for a while": {hook: atFirst(5, fleetkeytest.Fault{Err: fleetkey.ErrUnavailable}), saves: 1},
		"a store that hangs for a while":          {hook: atFirst(2, fleetkeytest.Fault{Delay: 24 * time.Hour}), saves: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				if tc.set != nil {
					store.Set(tc.set)
				}
				store.SetHook(tc.hook)
				s, err := fleetkey.NewSigner(t.Context(), store, testkit.Config())
				assert.Equal(t, tc.saves, store.Saves())
				if tc.want == nil && tc.text == "" {
					require.NoError(t, err)
					testkit.Accepts(t, testkit.Issue(t, s), s, testkit.Start(t, store.Open(), testkit.Config()))
					require.NoError(t, s.Close())
					require.ErrorIs(t, s.Rotate(t.Context()), fleetkey.ErrClosed)
					return
				}
				require.Nil(t, s)
				if tc.want != nil {
					require.ErrorIs(t, err, tc.want)
				}
				require.ErrorContains(t, err, tc.text)
				require.ErrorContains(t, err, "in-memory store")
				bundle, _ := store.Content()
				if tc.set != nil {
					require.Equal(t, tc.set, bundle)
				}
			})
		})
	}
}

// atFirst returns a hook that applies f to the first loads.
func atFirst(calls int, f fleetkeytest.Fault) func(fleetkeytest.Call) fleetkeytest.Fault {
	return func(c fleetkeytest.Call) fleetkeytest.Fault {
		if c.Op == fleetkeytest.OpLoad && c.N <= calls {
			return f
		}
		return fleetkeytest.Fault{}
	}
}

// hideAbsence acts like IAM with a policy that covers the ARN of an existing secret but not
// its bare name.
func hideAbsence() func(fleetkeytest.Call) fleetkeytest.Fault {
	created := false
	return func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
		if created = created || c.Op == fleetkeytest.OpSave; !created {
			f.Err = fleetkey.ErrAccessDenied
		}
		return f
	}
}

func TestStartWaitsForTheStoreUntilItsContextEnds(t *testing.T) { // A16
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		store.SetHook(testkit.Fail(fmt.Errorf("%w: connection refused", fleetkey.ErrUnavailable), fleetkeytest.OpLoad))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		_, err := fleetkey.NewSigner(ctx, store, testkit.Config())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "connection refused", "the error must include the last cause")
		require.Equal(t, time.Hour, time.Since(begin))
		require.Less(t, store.Loads(), 150, "the waits must grow")
		require.Zero(t, store.Saves())
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
				s := testkit.Start(t, store, testkit.Config())
				store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return f })
				begin, loads, saves := time.Now(), store.Loads(), store.Saves()
				time.Sleep(30 * 24 * time.Hour)
				calls := float64(store.Loads()-loads) / time.Since(begin).Minutes()
				require.LessOrEqual(t, calls, 0.3, "calls per minute")
				require.Equal(t, saves, store.Saves(), "nothing must be saved")

				now := time.Now()
				testkit.Accepts(t, testkit.Issue(t, s), s)
				require.Equal(t, now, time.Now(), "Issue and Verify must not wait")
				status := s.Status()
				require.NoError(t, status.Err)
				require.Error(t, status.LoadErr)
				require.Positive(t, status.Failures)
				require.NotEmpty(t, status.Warnings())

				store.SetHook(nil)
				time.Sleep(6 * time.Minute)
				require.NoError(t, s.Status().LoadErr, "must recover by itself")
			})
		})
	}
}
