package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// roles returns the role of each key, newest first.
func roles(s *fleetkey.Signer) []fleetkey.Role {
	var roles []fleetkey.Role
	for _, k := range s.Status().Keys {
		roles = append(roles, k.Role)
	}
	return roles
}

func TestRotateLosesToAnotherWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		conflicts := 2
		store.SetHook(func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
			if c.Op == fleetkeytest.OpSave && conflicts > 0 {
				conflicts--
				f.Err = fleetkey.ErrConflict
			}
			return f
		})
		require.NoError(t, s.Rotate(t.Context()))
		require.Len(t, s.PublicKeys(), 2)
		conflicts = 1 << 30
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.ErrorIs(t, s.Revoke(ctx, s.PublicKeys()[0].KeyID), fleetkey.ErrConflict)
		require.Greater(t, store.Saves(), 300, "it does not give up before its context ends (P5)")
	})
}

func health(t *testing.T, s *fleetkey.Signer) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.Health().ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
	return w.Code, w.Body.String()
}

func TestInstanceCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		alone := store.Open()
		s := testkit.Start(t, alone, testkit.Rotating())
		alone.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		limit := 2*testkit.Day - time.Hour - 4*time.Minute // Announce + Retain - MaxTokenTTL - 3 ClockSkew - a stale read
		time.Sleep(limit)
		token := testkit.Issue(t, s)
		time.Sleep(6 * time.Minute)
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrStale)
		code, body := health(t, s)
		require.Equal(t, 503, code)
		require.Contains(t, body, "stale")
		testkit.Accepts(t, token, s)
		alone.SetHook(nil)
		time.Sleep(6 * time.Minute)
		testkit.Accepts(t, testkit.Issue(t, s), s)
	})
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		code, body := health(t, s)
		require.Equal(t, 200, code)
		var answer map[string]any
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
		require.Equal(t, "ok", answer["status"])
		require.Equal(t, s.SigningKey().KeyID, answer["signing_kid"])
		store.SetHook(testkit.Fail(errors.New("boom"), fleetkeytest.OpLoad))
		require.Error(t, s.Refresh(t.Context()))
		code, body = health(t, s)
		require.Equal(t, 200, code, "one store must not take the whole fleet down")
		require.Contains(t, body, `"degraded"`)
		require.Contains(t, body, "boom")
	})
}

// A fleet that may not write continues until its certificate ends; when it may again, an
// operator rotates by hand.
func TestFleetThatMayNotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		end := time.Now().Add(200 * testkit.Day)
		store.Set(testkit.BundleEnding(t, end))
		s := testkit.Start(t, store, testkit.Lazily(testkit.Rotating()))
		store.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		time.Sleep(100 * testkit.Day)
		require.ErrorIs(t, s.Status().RotationErr, fleetkey.ErrAccessDenied)
		code, body := health(t, s)
		require.Equal(t, 200, code)
		require.Contains(t, body, "could not be rotated")
		require.Less(t, store.Saves(), 70, "at most a try in 6 hours, in the long run")
		require.Greater(t, store.Saves(), 20)
		testkit.Accepts(t, testkit.Issue(t, s), s)

		time.Sleep(time.Until(end.Add(-time.Hour)))
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrKeyExpired)
		code, _ = health(t, s)
		require.Equal(t, 503, code)

		time.Sleep(365 * testkit.Day)
		store.SetHook(nil)
		require.NoError(t, s.Rotate(t.Context()))
		testkit.Accepts(t, testkit.Issue(t, s), s)
	})
}

func TestRecoveredRightsRotate(t *testing.T) { // A15
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Rotating())
		time.Sleep(87 * testkit.Day)
		store.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		saves := store.Saves()
		time.Sleep(13 * testkit.Day)
		require.Less(t, store.Saves()-saves, 60, "11 days of at most a try in 6 hours, in the long run")
		store.SetHook(nil)
		time.Sleep(7 * time.Hour)
		require.NoError(t, s.Status().RotationErr)
		require.Equal(t, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}, roles(s))
	})
}

func TestLifeOfAKey(t *testing.T) { // S3
	synctest.Test(t, func(t *testing.T) {
		const hours = 13 * time.Hour // more than two refreshes
		store, cfg := fleetkeytest.NewStore(), testkit.Lazily(testkit.Rotating())
		s := testkit.Start(t, store, cfg)
		first, begin := s.SigningKey().KeyID, time.Now()
		for _, step := range []struct {
			at      time.Duration // after the start
			roles   []fleetkey.Role
			private int // keys in the store
			want    string
		}{
			{0, []fleetkey.Role{fleetkey.RoleSigning}, 1, "one key, backdated by a day"},
			{88*testkit.Day - time.Hour, []fleetkey.Role{fleetkey.RoleSigning}, 1, "not due yet"},
			{88*testkit.Day + hours, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}, 2, "a successor is announced a day ahead"},
			{89*testkit.Day + hours, []fleetkey.Role{fleetkey.RoleSigning, fleetkey.RoleRetired}, 2, "and takes over"},
			{90*testkit.Day + hours, []fleetkey.Role{fleetkey.RoleSigning, fleetkey.RoleGone}, 2, "the old key is trusted no more"},
			{97*testkit.Day + hours, []fleetkey.Role{fleetkey.RoleSigning}, 1, "and pruned when nobody can need it"},
		} {
			time.Sleep(time.Until(begin.Add(step.at)))
			require.Equal(t, step.roles, roles(s), step.want)
			bundle, _ := store.Content()
			require.Equal(t, step.private, strings.Count(string(bundle), "BEGIN PRIVATE KEY"), step.want)
			testkit.Accepts(t, testkit.Issue(t, s), s, testkit.Start(t, store.Open(), cfg))
		}
		require.NotEqual(t, first, s.SigningKey().KeyID)
	})
}
