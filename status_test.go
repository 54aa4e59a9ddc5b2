package fleetkey_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A retired key is trusted for at most two years, unless the bundle was edited.
func TestWarnsOfALongTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signing, old := keysettest.Key(t, "ES256", time.Now().Add(-time.Hour)), keysettest.Key(t, "ES256", time.Now())
		for years, want := range map[int]int{2: 0, 3: 1} {
			bundle, err := keyset.New([]*keyset.Key{signing}, []keyset.Retired{{ID: old.ID, Alg: old.Alg, Public: old.Public,
				Until: time.Now().Add(time.Duration(years) * 365 * keysettest.Day)}}, nil).Encode()
			require.NoError(t, err)
			store := fleetkeytest.NewStore()
			store.Set(bundle)
			warnings := testkit.Start(t, store, testkit.Config()).Status().Warnings()
			require.Len(t, warnings, want)
			if want > 0 {
				require.Contains(t, warnings[0], "retired key "+old.ID+" is trusted until 2002-12-31")
			}
		}
	})
}

func TestStatusOfARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Rotating())
		status := s.Status()
		require.Equal(t, status.SigningSince.AddDate(0, 0, 89), status.RotationDue, "a day before the key is 90 days old")
		require.Zero(t, status.NextActivation)
		require.NoError(t, s.Rotate(t.Context()))
		time.Sleep(time.Hour)
		status = s.Status()
		require.Equal(t, status.Keys[0].NotBefore, status.NextActivation)
		require.Zero(t, status.RotationDue)
		require.Empty(t, status.Warnings())
		store.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpSave))
		time.Sleep(91 * testkit.Day)
		require.Contains(t, strings.Join(s.Status().Warnings(), "\n"), "a rotation has been overdue since "+s.Status().RotationDue.Format(time.RFC3339))
	})
}

// TestCounters covers what the tests of otelfleetkey do not.
func TestCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		token := testkit.Issue(t, s)
		_, err := s.Sign(t.Context(), "JWT", map[string]any{"sub": "alice"})
		require.NoError(t, err)
		_, err = s.Issue(t.Context(), fleetkey.Claims{})
		require.Error(t, err)
		time.Sleep(2 * time.Hour)
		testkit.Refuses(t, fleetkey.ErrExpired, token, s)
		store.SetHook(testkit.Fail(errors.New("boom"), fleetkeytest.OpLoad))
		require.Error(t, s.Refresh(t.Context()))

		got := s.Status().Counters
		require.Equal(t, []uint64{2, 1, 1}, []uint64{got.Issued, got.Verified["expired"], got.FailedLoads})
		require.Zero(t, got.Verified["invalid_claims"], "a rejection must count once, under its most specific reason")
		require.InDelta(t, 24, got.Loads, 3, "loads in two hours")
	})
}

// TestHealthOfAVerifier: 503 before the first keys. An unreachable issuer is only a warning,
// after an hour: load balancers must not drop a service for that before MaxStale.
func TestHealthOfAVerifier(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		p.Serve(testkit.JWKSURL, nil)
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.MaxStale = 2 * time.Hour })
		health := func(code int, want string) {
			t.Helper()
			answer := ask(v.Health(), "GET")
			require.Equal(t, code, answer.StatusCode)
			require.Contains(t, string(body(t, answer)), want)
		}
		time.Sleep(3 * time.Hour)
		health(503, "the issuer's keys could not be fetched yet")
		require.Empty(t, v.Status().Warnings(), "Err already says it")
		_, err := v.Keyfunc(&jwt.Token{Header: map[string]any{"kid": "x"}, Method: jwt.SigningMethodES256})
		require.ErrorIs(t, err, fleetkey.ErrUnavailable)
		for token, want := range map[string]error{testkit.AccessToken(key): fleetkey.ErrUnavailable, "junk": fleetkey.ErrMalformed} {
			_, err := v.Verify(t.Context(), token)
			require.ErrorIs(t, err, want)
			require.NotContains(t, err.Error(), "MaxStale", "keys that were never loaded have no age")
		}
		p.Publish(key.JWK(), `{"kty":"oct","kid":"o","k":"AAAA"}`)
		require.NoError(t, v.Refresh(t.Context()))
		health(200, `"status":"ok"`)
		health(200, `"keys":[{"kid":"`+key.KID+`","alg":"ES256","role":"published"}]`)
		status := v.Status()
		require.Equal(t, map[string]int{"private": 1}, status.SkippedKeys)
		require.Equal(t, "issuer "+jwstest.Issuer, status.Store)
		status.SkippedKeys["private"] = 7
		require.Equal(t, 1, v.Status().SkippedKeys["private"], "Status must return a copy")

		p.Serve(testkit.JWKSURL, testkit.Answer(500, ""))
		time.Sleep(time.Hour - 1)
		health(200, `"status":"ok"`)
		require.Empty(t, v.Status().Warnings())
		time.Sleep(time.Nanosecond)
		health(200, `"status":"degraded"`)
		health(200, "HTTP status 500")
		time.Sleep(time.Hour + time.Nanosecond)
		health(503, "more than MaxStale")
		p.Publish(key.JWK())
		time.Sleep(time.Minute)
		health(200, `"status":"ok"`)
	})
}
