package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http/httptest"
	"strings"
	"sync/atomic"
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

func TestLifeOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Rotating())
		first := s.SigningKey().KeyID
		steps := []struct {
			at    time.Duration // after the start
			roles []fleetkey.Role
			want  string
		}{
			{0, []fleetkey.Role{fleetkey.RoleSigning}, "one key, backdated by a day"},
			{88*testkit.Day - time.Hour, []fleetkey.Role{fleetkey.RoleSigning}, "not due yet"},
			{88*testkit.Day + time.Hour, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}, "a successor is announced a day ahead"},
			{89*testkit.Day + time.Hour, []fleetkey.Role{fleetkey.RoleSigning, fleetkey.RoleRetired}, "and takes over"},
			{90*testkit.Day + time.Hour, []fleetkey.Role{fleetkey.RoleSigning, fleetkey.RoleGone}, "the old key is trusted no more"},
			{97*testkit.Day + time.Hour, []fleetkey.Role{fleetkey.RoleSigning}, "and pruned when nobody can need it"},
		}
		private := []int{1, 1, 2, 2, 2, 1}
		begin := time.Now()
		for i, step := range steps {
			time.Sleep(time.Until(begin.Add(step.at)))
			require.Equal(t, step.roles, roles(s), step.want)
			bundle, _ := store.Content()
			require.Equal(t, private[i], strings.Count(string(bundle), "BEGIN PRIVATE KEY"), step.want)
			testkit.Accepts(t, testkit.Issue(t, s), s, testkit.Start(t, store.Open(), testkit.Rotating()))
		}
		require.NotEqual(t, first, s.SigningKey().KeyID)
	})
}

func TestExactlyOneRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		var fleet []*fleetkey.Signer
		for range 50 {
			fleet = append(fleet, testkit.Start(t, store.Open(), testkit.Lazily(testkit.Rotating())))
		}
		time.Sleep(89*testkit.Day + 7*time.Hour)
		for _, s := range fleet {
			require.Equal(t, []fleetkey.Role{fleetkey.RoleSigning, fleetkey.RoleRetired}, roles(s))
			testkit.Accepts(t, testkit.Issue(t, s), fleet...)
		}
	})
}

func TestBounds(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*fleetkey.Config)
		want   string
	}{
		"announced too short":              {func(c *fleetkey.Config) { c.Rotation.Announce = 26*time.Minute + 59*time.Second }, "2 RefreshEvery + JWKSMaxAge + 2 ClockSkew = 27m0s"},
		"retained too short":               {func(c *fleetkey.Config) { c.Rotation.Retain = 61 * time.Minute }, "MaxTokenTTL + 2 ClockSkew = 1h2m0s"},
		"rotates faster than it announces": {func(c *fleetkey.Config) { c.Rotation.Every = time.Hour }, "less than Announce"},
		"too many keys":                    {func(c *fleetkey.Config) { c.Rotation.Every, c.Rotation.Retain = 25*time.Hour, 365*testkit.Day }, "a bundle has room for 16"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testkit.Rotating()
			tc.change(&cfg)
			store := fleetkeytest.NewStore()
			_, err := fleetkey.NewSigner(t.Context(), store, cfg)
			require.ErrorContains(t, err, tc.want)
			require.Zero(t, store.Loads())
		})
	}
}

func TestSwitchingRotationOnAndOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		off := testkit.Start(t, store, testkit.Lazily(testkit.Config()))
		time.Sleep(3 * 365 * testkit.Day)
		old := off.SigningKey().KeyID
		on := testkit.Start(t, store.Open(), testkit.Lazily(testkit.Rotating()))
		time.Sleep(14 * time.Hour)
		require.Equal(t, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}, roles(on))
		require.Equal(t, roles(on), roles(off), "the instances without rotation follow")
		time.Sleep(testkit.Day)
		testkit.Accepts(t, testkit.Issue(t, off), on, off)
		require.NotEqual(t, old, off.SigningKey().KeyID)
		require.NoError(t, on.Close())
		time.Sleep(365 * testkit.Day)
		testkit.Accepts(t, testkit.Issue(t, off), off)
	})
}

func TestNextKeyHasTheNewAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		old := testkit.Start(t, store, testkit.Rotating())
		cfg := testkit.Rotating()
		cfg.Algorithm = "EdDSA"
		s := testkit.Start(t, store.Open(), cfg)
		require.Equal(t, "ES256", s.SigningKey().Algorithm)
		require.NoError(t, s.Rotate(t.Context()))
		token := testkit.Issue(t, s)
		time.Sleep(testkit.Day + time.Minute)
		require.Equal(t, "EdDSA", s.SigningKey().Algorithm)
		testkit.Accepts(t, testkit.Issue(t, s), s, old)
		testkit.Refuses(t, fleetkey.ErrExpired, token, s, old)
	})
}

func TestRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		a, b := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), testkit.Config())
		first := a.SigningKey().KeyID
		require.NoError(t, a.Rotate(t.Context()))
		require.NoError(t, b.Rotate(t.Context()), "a second operator")
		require.Equal(t, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}, roles(b), "announces nothing more")
		require.Equal(t, first, b.SigningKey().KeyID)
		require.WithinDuration(t, time.Now().Add(testkit.Day), b.Status().NextActivation, 2*time.Second)
		time.Sleep(testkit.Day + 2*time.Second)
		require.NotEqual(t, first, a.SigningKey().KeyID)
		require.Equal(t, a.SigningKey().KeyID, b.SigningKey().KeyID)
	})
}

func TestRotateMendsAFleetWithoutAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Rotating())
		require.NoError(t, s.Close())
		time.Sleep(11 * 365 * testkit.Day)
		s = testkit.Start(t, store.Open(), testkit.Rotating())
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrKeyExpired)
		require.NoError(t, s.Rotate(t.Context()))
		testkit.Accepts(t, testkit.Issue(t, s), s)
	})
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

// Whoever loses a rotation that was due adopts the winner's key at once.
func TestRotationLostIsDone(t *testing.T) { // A12
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s, winner := testkit.Start(t, store, testkit.Rotating()), testkit.Start(t, store.Open(), testkit.Config())
		var known atomic.Pointer[[]string]
		store.SetHook(func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
			if c.Op == fleetkeytest.OpSave && known.Load() == nil {
				require.NoError(t, winner.Rotate(t.Context()))
				known.Store(new(testkit.PublishedKeyIDs(t, winner)))
			}
			return f
		})
		for end := time.Now().Add(90 * testkit.Day); known.Load() == nil && time.Now().Before(end); {
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		require.Len(t, *known.Load(), 2)
		require.Equal(t, *known.Load(), testkit.PublishedKeyIDs(t, s))
		require.NoError(t, s.Status().RotationErr)
	})
}

func TestFleetThatMayNotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Lazily(testkit.Rotating()))
		store.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		end := s.SigningKey().Certificate.NotAfter
		saves := store.Saves()
		time.Sleep(100 * testkit.Day)
		require.ErrorIs(t, s.Status().RotationErr, fleetkey.ErrAccessDenied)
		code, body := health(t, s)
		require.Equal(t, 200, code)
		require.Contains(t, body, "could not be rotated")
		require.Less(t, store.Saves()-saves, 70, "at most a try in 6 hours, in the long run")
		require.Greater(t, store.Saves()-saves, 20)
		testkit.Accepts(t, testkit.Issue(t, s), s)

		time.Sleep(time.Until(end.Add(-time.Hour)))
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrKeyExpired)
		code, _ = health(t, s)
		require.Equal(t, 503, code)
	})
}

func health(t *testing.T, s *fleetkey.Signer) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.Health().ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
	return w.Code, w.Body.String()
}

func TestRecoveredRightsRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Rotating())
		store.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		saves := store.Saves()
		time.Sleep(100 * testkit.Day)
		require.Less(t, store.Saves()-saves, 60, "11 days of at most a try in 6 hours, in the long run")
		store.SetHook(nil)
		time.Sleep(7 * time.Hour)
		require.NoError(t, s.Status().RotationErr)
		require.Equal(t, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}, roles(s))
	})
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

func TestCachedTokensOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testkit.Config()
		cfg.CachedTokens = math.MaxInt
		require.NotPanics(t, func() {
			if s, err := fleetkey.NewSigner(t.Context(), fleetkeytest.NewStore(), cfg); err == nil {
				s.Close()
			}
		})
	})
}
