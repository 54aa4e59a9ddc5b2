package fleetkey_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

func TestStartRaceMakesOneKey(t *testing.T) {
	const n = 100
	store := fleetkeytest.NewStore()
	signers, tokens := make([]*fleetkey.Signer, n), make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, err := fleetkey.NewSigner(t.Context(), store.Open(), testkit.Config())
			if assert.NoError(t, err) {
				signers[i] = s
				tokens[i], err = s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	for i, s := range signers {
		require.NotNil(t, s)
		defer s.Close()
		testkit.Accepts(t, tokens[i], signers...)
		require.Equal(t, signers[0].SigningKey().KeyID, s.SigningKey().KeyID)
		require.Len(t, s.PublicKeys(), 1)
	}
}

func TestStart(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		hook  func(*fleetkeytest.Store) func(fleetkeytest.Call) fleetkeytest.Fault
		set   []byte
		want  error  // nil: starts
		text  string // of the error
		saves int
	}{
		"any other failure never creates":         {hook: hooked(testkit.Fail(boom, fleetkeytest.OpLoad)), want: boom, text: "load"},
		"garbage is never overwritten":            {set: []byte("{}"), text: "is not a key bundle"},
		"a refused save":                          {hook: hooked(testkit.Fail(boom, fleetkeytest.OpSave)), want: boom, text: "save", saves: 1},
		"a refused read and a refused save":       {hook: hooked(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpLoad, fleetkeytest.OpSave)), want: fleetkey.ErrAccessDenied, saves: 1},
		"reads stay refused after a create":       {hook: hooked(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpLoad)), want: fleetkey.ErrAccessDenied, saves: 1},
		"a refused read that hid an empty store":  {hook: hideAbsence, saves: 1},
		"a create whose reply is lost":            {hook: hooked(testkit.LoseReply), saves: 1},
		"a secret that exists but stays empty":    {hook: hooked(testkit.Fail(fleetkey.ErrConflict, fleetkeytest.OpSave)), text: "the secret exists but has no value", want: fleetkey.ErrNotExist, saves: 1},
		"a store that is unavailable for a while": {hook: hooked(unavailable(5)), saves: 1},
		"a store that hangs for a while":          {hook: hooked(hang(2)), saves: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				if tc.set != nil {
					store.Set(tc.set)
				}
				if tc.hook != nil {
					store.SetHook(tc.hook(store))
				}
				s, err := fleetkey.NewSigner(t.Context(), store, testkit.Config())
				assert.Equal(t, tc.saves, store.Saves())
				if tc.want == nil && tc.text == "" {
					require.NoError(t, err)
					defer s.Close()
					testkit.Accepts(t, testkit.Issue(t, s), s, testkit.Start(t, store.Open(), testkit.Config()))
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

func hooked(hook func(fleetkeytest.Call) fleetkeytest.Fault) func(*fleetkeytest.Store) func(fleetkeytest.Call) fleetkeytest.Fault {
	return func(*fleetkeytest.Store) func(fleetkeytest.Call) fleetkeytest.Fault { return hook }
}

func unavailable(calls int) func(fleetkeytest.Call) fleetkeytest.Fault {
	return func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
		if c.Op == fleetkeytest.OpLoad && c.N <= calls {
			f.Err = fleetkey.ErrUnavailable
		}
		return f
	}
}

func hang(calls int) func(fleetkeytest.Call) fleetkeytest.Fault {
	return func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
		if c.Op == fleetkeytest.OpLoad && c.N <= calls {
			f.Delay = 24 * time.Hour
		}
		return f
	}
}

// hideAbsence answers as IAM does where the policy covers the secret's stored
// name but not the name as asked for.
func hideAbsence(store *fleetkeytest.Store) func(fleetkeytest.Call) fleetkeytest.Fault {
	return func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
		if _, v := store.Content(); c.Op == fleetkeytest.OpLoad && v == "" {
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
		require.ErrorContains(t, err, "connection refused", "the last cause is told")
		require.Equal(t, time.Hour, time.Since(begin))
		require.Less(t, store.Loads(), 30, "the waits grow")
		require.Zero(t, store.Saves())
	})
}

// kidOf reads the kid from a token's header.
func TestConcurrentUseDuringReloads(t *testing.T) { // L5
	store := fleetkeytest.NewStore()
	s := testkit.Start(t, store, testkit.Config())
	bundles := [][]byte{testkit.ForeignBundle(t, testkit.Config()), testkit.ForeignBundle(t, testkit.Config())}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
				if assert.NoError(t, err) {
					_, err = s.Verify(t.Context(), token)
					assert.NoError(t, err)
				}
				s.Status()
				s.PublicKeys()
			}
		})
	}
	for i := range 100 {
		store.Set(bundles[i%2])
		require.NoError(t, s.Refresh(t.Context()))
	}
	close(done)
	wg.Wait()
}

// Issue grants what Verify never accepts.
func TestIssueRefusesWhatNeverIsValid(t *testing.T) {
	s := fleetkeytest.NewSigner(t, testkit.Config())
	_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "a", NotBefore: time.Now().AddDate(1, 0, 0)})
	require.ErrorIs(t, err, fleetkey.ErrInvalidClaims)
}
