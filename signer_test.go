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
)

const issuer = "https://id.example"

// config is a Config for tests: quick keys and no log.
func config() fleetkey.Config {
	return fleetkey.Config{Issuer: issuer, Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)}
}

// start makes a signer that the test closes.
func start(t *testing.T, store fleetkey.KeyStore, cfg fleetkey.Config) *fleetkey.Signer {
	t.Helper()
	return startBy(t, time.Now, store, cfg)
}

// startBy makes a signer that goes by a wall clock.
func startBy(t *testing.T, now func() time.Time, store fleetkey.KeyStore, cfg fleetkey.Config) *fleetkey.Signer {
	t.Helper()
	s, err := fleetkey.NewSigner(by(now), store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func issue(t *testing.T, s *fleetkey.Signer) string {
	t.Helper()
	token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
	require.NoError(t, err)
	return token
}

// accepts and refuses check one token at each of some signers.
func accepts(t *testing.T, token string, signers ...*fleetkey.Signer) {
	t.Helper()
	for i, s := range signers {
		_, err := s.Verify(t.Context(), token)
		require.NoError(t, err, "signer %d", i)
	}
}

func refuses(t *testing.T, want error, token string, signers ...*fleetkey.Signer) {
	t.Helper()
	for i, s := range signers {
		got, err := s.Verify(t.Context(), token)
		require.ErrorIs(t, err, want, "signer %d", i)
		require.Nil(t, got)
	}
}

// foreignBundle is the bundle of another fleet.
func foreignBundle(t *testing.T, cfg fleetkey.Config) []byte {
	t.Helper()
	other := fleetkeytest.NewStore()
	s, err := fleetkey.NewSigner(t.Context(), other, cfg)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	bundle, _ := other.Content()
	return bundle
}

// fail makes every call of the given ops fail.
func fail(err error, ops ...fleetkeytest.Op) func(fleetkeytest.Call) fleetkeytest.Fault {
	return func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
		for _, op := range ops {
			if c.Op == op {
				f.Err = err
			}
		}
		return f
	}
}

func TestStartRaceMakesOneKey(t *testing.T) {
	const n = 100
	store := fleetkeytest.NewStore()
	signers, tokens := make([]*fleetkey.Signer, n), make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, err := fleetkey.NewSigner(t.Context(), store.Open(), config())
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
		accepts(t, tokens[i], signers...)
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
		"any other failure never creates":         {hook: hooked(fail(boom, fleetkeytest.OpLoad)), want: boom, text: "load"},
		"garbage is never overwritten":            {set: []byte("{}"), text: "is not a key bundle"},
		"a refused save":                          {hook: hooked(fail(boom, fleetkeytest.OpSave)), want: boom, text: "save", saves: 1},
		"a refused read and a refused save":       {hook: hooked(fail(fleetkey.ErrAccessDenied, fleetkeytest.OpLoad, fleetkeytest.OpSave)), want: fleetkey.ErrAccessDenied, saves: 1},
		"reads stay refused after a create":       {hook: hooked(fail(fleetkey.ErrAccessDenied, fleetkeytest.OpLoad)), want: fleetkey.ErrAccessDenied, saves: 1},
		"a refused read that hid an empty store":  {hook: hideAbsence, saves: 1},
		"a create whose reply is lost":            {hook: hooked(loseReply), saves: 1},
		"a secret that exists but stays empty":    {hook: hooked(fail(fleetkey.ErrConflict, fleetkeytest.OpSave)), text: "the secret exists but has no value", want: fleetkey.ErrNotExist, saves: 1},
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
				s, err := fleetkey.NewSigner(t.Context(), store, config())
				assert.Equal(t, tc.saves, store.Saves())
				if tc.want == nil && tc.text == "" {
					require.NoError(t, err)
					defer s.Close()
					accepts(t, issue(t, s), s, start(t, store.Open(), config()))
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

func loseReply(c fleetkeytest.Call) (f fleetkeytest.Fault) {
	if c.Op == fleetkeytest.OpSave {
		f = fleetkeytest.Fault{Err: fleetkey.ErrUnavailable, Stored: true}
	}
	return f
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
		store.SetHook(fail(fmt.Errorf("%w: connection refused", fleetkey.ErrUnavailable), fleetkeytest.OpLoad))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		_, err := fleetkey.NewSigner(ctx, store, config())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "connection refused", "the last cause is told")
		require.Equal(t, time.Hour, time.Since(begin))
		require.Less(t, store.Loads(), 30, "the waits grow")
		require.Zero(t, store.Saves())
	})
}

// kidOf reads the kid from a token's header.
func kidOf(t *testing.T, token string) string {
	t.Helper()
	var header struct{ Kid string }
	require.NoError(t, json.Unmarshal(segment(t, token, 0), &header))
	return header.Kid
}

// jwks returns the kids that a signer publishes.
func jwks(t *testing.T, s *fleetkey.Signer) []string {
	t.Helper()
	w := httptest.NewRecorder()
	s.JWKS().ServeHTTP(w, httptest.NewRequest("GET", fleetkey.JWKSPath, nil))
	require.Equal(t, 200, w.Code)
	var set struct{ Keys []struct{ Kid string } }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
	var kids []string
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	return kids
}

func TestConcurrentUseDuringReloads(t *testing.T) { // L5
	store := fleetkeytest.NewStore()
	s := start(t, store, config())
	bundles := [][]byte{foreignBundle(t, config()), foreignBundle(t, config())}
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
	s := fleetkeytest.NewSigner(t, config())
	_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "a", NotBefore: time.Now().AddDate(1, 0, 0)})
	require.ErrorIs(t, err, fleetkey.ErrInvalidClaims)
}
