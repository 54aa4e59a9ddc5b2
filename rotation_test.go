package fleetkey_test

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

const day = 24 * time.Hour

func rotating() fleetkey.Config {
	cfg := config()
	cfg.Rotation.Every = 90 * day
	return cfg
}

// lazily makes years pass quickly: with fewer loads in them.
func lazily(cfg fleetkey.Config) fleetkey.Config {
	cfg.RefreshEvery = 6 * time.Hour
	return cfg
}

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
		s := start(t, store, rotating())
		first := s.SigningKey().KeyID
		steps := []struct {
			at    time.Duration // after the start
			roles []fleetkey.Role
			want  string
		}{
			{0, []fleetkey.Role{fleetkey.Signing}, "one key"},
			{89*day - time.Hour, []fleetkey.Role{fleetkey.Signing}, "not due yet"},
			{89*day + time.Hour, []fleetkey.Role{fleetkey.Announced, fleetkey.Signing}, "a successor is announced a day ahead"},
			{90*day + time.Hour, []fleetkey.Role{fleetkey.Signing, fleetkey.Retired}, "and takes over"},
			{90*day + 7*time.Hour, []fleetkey.Role{fleetkey.Signing, fleetkey.Retired}, "the old private key goes"},
			{91*day + time.Hour, []fleetkey.Role{fleetkey.Signing}, "and in the end the old key"},
		}
		private := []int{1, 1, 2, 2, 1, 1}
		begin := time.Now()
		for i, step := range steps {
			time.Sleep(time.Until(begin.Add(step.at)))
			require.Equal(t, step.roles, roles(s), step.want)
			bundle, _ := store.Content()
			require.Equal(t, private[i], strings.Count(string(bundle), "BEGIN PRIVATE KEY"), step.want)
			accepts(t, issue(t, s), s, start(t, store.Open(), rotating()))
		}
		require.NotEqual(t, first, s.SigningKey().KeyID)
	})
}

func TestExactlyOneRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		var fleet []*fleetkey.Signer
		for range 50 {
			fleet = append(fleet, start(t, store.Open(), lazily(rotating())))
		}
		time.Sleep(90*day + 7*time.Hour)
		for _, s := range fleet {
			require.Equal(t, []fleetkey.Role{fleetkey.Signing, fleetkey.Retired}, roles(s))
			accepts(t, issue(t, s), fleet...)
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
		"too many keys":                    {func(c *fleetkey.Config) { c.Rotation.Every, c.Rotation.Retain = 25*time.Hour, 365*day }, "a bundle has room for 16"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := rotating()
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
		off := start(t, store, lazily(config()))
		time.Sleep(3 * 365 * day)
		old := off.SigningKey().KeyID
		on := start(t, store.Open(), lazily(rotating()))
		time.Sleep(14 * time.Hour)
		require.Equal(t, []fleetkey.Role{fleetkey.Announced, fleetkey.Signing}, roles(on))
		require.Equal(t, roles(on), roles(off), "the instances without rotation follow")
		time.Sleep(day)
		accepts(t, issue(t, off), on, off)
		require.NotEqual(t, old, off.SigningKey().KeyID)
		require.NoError(t, on.Close())
		time.Sleep(365 * day)
		accepts(t, issue(t, off), off)
	})
}

func TestNextKeyHasTheNewAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		old := start(t, store, rotating())
		cfg := rotating()
		cfg.Algorithm = "EdDSA"
		s := start(t, store.Open(), cfg)
		require.Equal(t, "ES256", s.SigningKey().Algorithm)
		require.NoError(t, s.Rotate(t.Context()))
		token := issue(t, s)
		time.Sleep(day + time.Minute)
		require.Equal(t, "EdDSA", s.SigningKey().Algorithm)
		accepts(t, issue(t, s), s, old)
		refuses(t, fleetkey.ErrExpired, token, s, old)
	})
}

func TestRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		a, b := start(t, store, config()), start(t, store.Open(), config())
		first := a.SigningKey().KeyID
		require.NoError(t, a.Rotate(t.Context()))
		require.NoError(t, b.Rotate(t.Context()), "a second operator")
		require.Equal(t, []fleetkey.Role{fleetkey.Announced, fleetkey.Signing}, roles(b), "announces nothing more")
		require.Equal(t, first, b.SigningKey().KeyID)
		require.WithinDuration(t, time.Now().Add(day), b.Status().NextActivation, 2*time.Second)
		time.Sleep(day + 2*time.Second)
		require.NotEqual(t, first, a.SigningKey().KeyID)
		require.Equal(t, a.SigningKey().KeyID, b.SigningKey().KeyID)
	})
}

func TestRotateMendsAFleetWithoutAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, store, rotating())
		require.NoError(t, s.Close())
		time.Sleep(11 * 365 * day)
		s = start(t, store.Open(), rotating())
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
		require.ErrorIs(t, err, fleetkey.ErrKeyExpired)
		require.NoError(t, s.Rotate(t.Context()))
		accepts(t, issue(t, s), s)
	})
}

func TestRotateLosesToAnotherWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, store, config())
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
		conflicts = 100
		require.ErrorIs(t, s.Revoke(t.Context(), s.PublicKeys()[0].KeyID), fleetkey.ErrConflict)
	})
}

func TestRevoke(t *testing.T) {
	announced := func(s *fleetkey.Signer) string { return s.Status().Keys[0].KeyID }
	signing := func(s *fleetkey.Signer) string { return s.SigningKey().KeyID }
	oldest := func(s *fleetkey.Signer) string { keys := s.Status().Keys; return keys[len(keys)-1].KeyID }
	for name, tc := range map[string]struct {
		prepare time.Duration // after Rotate; 0: no Rotate
		victim  func(*fleetkey.Signer) string
		fresh   bool // a fresh key signs at once
	}{
		"the only key":                       {0, signing, true},
		"the signing key, one announced":     {time.Minute, signing, true},
		"the announced key":                  {time.Minute, announced, false},
		"the announced key about to sign":    {day - time.Minute, announced, false},
		"the signing key just begun":         {day + 2*time.Second, signing, true},
		"the key replaced just now":          {day + 2*time.Second, oldest, false},
		"the key replaced some time ago":     {day + time.Hour, oldest, false},
		"the signing key, an old one behind": {day + time.Hour, signing, true},
	} {
		for _, offset := range []time.Duration{-time.Minute, 0, time.Minute} {
			t.Run(fmt.Sprintf("%s, operator's clock off by %v", name, offset), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := fleetkeytest.NewStore()
					s := start(t, store, config())
					behind, ahead, operator := config(), config(), config()
					behind.Now = func() time.Time { return time.Now().Add(-time.Minute) }
					ahead.Now = func() time.Time { return time.Now().Add(time.Minute) }
					operator.Now = func() time.Time { return time.Now().Add(offset) }
					fleet := []*fleetkey.Signer{s, start(t, store.Open(), behind), start(t, store.Open(), ahead)}
					if tc.prepare > 0 {
						require.NoError(t, s.Rotate(t.Context()))
						time.Sleep(tc.prepare)
					}
					for _, s := range fleet {
						require.NoError(t, s.Refresh(t.Context()))
					}
					victim, before := tc.victim(s), s.SigningKey().KeyID
					stolen := signedBy(t, store, victim)
					require.NoError(t, start(t, store.Open(), operator).Revoke(t.Context(), victim))
					for _, s := range fleet {
						require.NoError(t, s.Refresh(t.Context()))
						refuses(t, fleetkey.ErrUnknownKey, stolen, s)
						require.NotContains(t, jwks(t, s), victim)
						accepts(t, issue(t, s), fleet...)
					}
					require.Equal(t, tc.fresh, before != s.SigningKey().KeyID)
					require.ErrorIs(t, s.Revoke(t.Context(), victim), fleetkey.ErrUnknownKey)
					time.Sleep(2 * day)
					for _, s := range fleet {
						accepts(t, issue(t, s), fleet...)
						require.NotContains(t, jwks(t, s), victim)
					}
				})
			})
		}
	}
}

// A key that a rollback took out of the set is remembered, and can be revoked
// all the same.
func TestRevokeAVanishedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		a, b := start(t, store, config()), start(t, store.Open(), config())
		_, first := store.Content()
		require.NoError(t, a.Rotate(t.Context()))
		time.Sleep(25 * time.Hour)
		token := issue(t, a)
		store.RollBack(first)
		refresh(t, a, b)
		accepts(t, token, a, b)
		require.NoError(t, a.Revoke(t.Context(), kidOf(t, token)))
		refresh(t, a, b)
		refuses(t, fleetkey.ErrUnknownKey, token, a, b)
		requireOneFleet(t, 2, a, b)
	})
}

// One public key may stand under two kids; a stolen key is gone under both.
func TestRevokeUnderEveryName(t *testing.T) {
	store := fleetkeytest.NewStore()
	s := start(t, store, config())
	other := start(t, fleetkeytest.NewStore(), config()).SigningKey()
	require.NoError(t, s.Trust(t.Context(), other.Certificate, ""))
	require.NoError(t, s.Trust(t.Context(), other.Certificate, "legacy"))
	thumb := sha1.Sum(other.Certificate.Raw)
	require.NoError(t, s.Revoke(t.Context(), hex.EncodeToString(thumb[:])), "by any of its names")
	refuses(t, fleetkey.ErrUnknownKey, issueWith(t, other), s)
	other.KeyID = "legacy"
	refuses(t, fleetkey.ErrUnknownKey, issueWith(t, other), s)
	require.Len(t, s.PublicKeys(), 1)
}

// signedBy is what a thief makes of a stolen key: a token that is valid now.
func signedBy(t *testing.T, store *fleetkeytest.Store, kid string) string {
	t.Helper()
	bundle, _ := store.Content()
	private := fleetkey.PrivateKey(t, bundle, kid)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": issuer, "aud": issuer, "sub": "mallory",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	token.Header["kid"], token.Header["typ"] = kid, "at+jwt"
	signed, err := token.SignedString(private)
	require.NoError(t, err)
	return signed
}

func TestFleetThatMayNotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, store, lazily(rotating()))
		store.SetHook(fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		end := s.SigningKey().Certificate.NotAfter
		saves := store.Saves()
		time.Sleep(100 * day)
		require.ErrorIs(t, s.Status().RotationErr, fleetkey.ErrAccessDenied)
		code, body := health(t, s)
		require.Equal(t, 200, code)
		require.Contains(t, body, "could not be rotated")
		require.Less(t, store.Saves()-saves, 70, "at most a try in 6 hours, in the long run")
		require.Greater(t, store.Saves()-saves, 20)
		accepts(t, issue(t, s), s)

		time.Sleep(time.Until(end.Add(-time.Hour)))
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
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
		s := start(t, store, rotating())
		store.SetHook(fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		time.Sleep(100 * day)
		store.SetHook(nil)
		time.Sleep(7 * time.Hour)
		require.NoError(t, s.Status().RotationErr)
		require.Equal(t, []fleetkey.Role{fleetkey.Announced, fleetkey.Signing}, roles(s))
	})
}

func TestInstanceCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		alone := store.Open()
		s := start(t, alone, rotating())
		alone.SetHook(fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		limit := 2*day - time.Hour - 4*time.Minute // Announce + Retain - MaxTokenTTL - 3 ClockSkew - a stale read
		time.Sleep(limit)
		token := issue(t, s)
		time.Sleep(6 * time.Minute)
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
		require.ErrorIs(t, err, fleetkey.ErrStale)
		code, body := health(t, s)
		require.Equal(t, 503, code)
		require.Contains(t, body, "stale")
		accepts(t, token, s)
		alone.SetHook(nil)
		time.Sleep(6 * time.Minute)
		accepts(t, issue(t, s), s)
	})
}

func TestClockJumpsUnderRotation(t *testing.T) { // F16
	jumps := map[string]func(time.Time) time.Time{
		"an hour ahead": func(t time.Time) time.Time { return t.Add(time.Hour) },
		"an hour back":  func(t time.Time) time.Time { return t.Add(-time.Hour) },
		"to 1970":       func(time.Time) time.Time { return time.Unix(0, 0) },
		"to 2106":       func(t time.Time) time.Time { return t.AddDate(106, 0, 0) },
	}
	for name, jump := range jumps {
		for _, booted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, booted=%v", name, booted), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := fleetkeytest.NewStore()
					right := start(t, store, rotating())
					time.Sleep(90*day + time.Minute) // the second key has just begun
					saves := store.Saves()

					cfg := rotating()
					var wrong atomic.Bool
					wrong.Store(booted)
					cfg.Now = func() time.Time {
						if wrong.Load() {
							return jump(time.Now())
						}
						return time.Now()
					}
					other := store.Open()
					start(t, other, cfg)
					time.Sleep(10 * time.Minute)
					wrong.Store(true)
					time.Sleep(30 * time.Minute)
					accepts(t, issue(t, right), right)
					time.Sleep(2 * day)
					accepts(t, issue(t, right), right)
					require.LessOrEqual(t, store.Saves()+other.Saves()-saves, 4, "no storm")
					require.Equal(t, []fleetkey.Role{fleetkey.Signing}, roles(right))
				})
			})
		}
	}
}

// The certificate of another system, whose tokens stay good during a move.
func TestTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := lazily(config())
		cfg.FormerIssuers = []string{"http://adfs.example/adfs/services/trust"}
		store := fleetkeytest.NewStore()
		s := start(t, store, cfg)
		other := start(t, fleetkeytest.NewStore(), config()).SigningKey()
		require.NoError(t, s.Trust(t.Context(), other.Certificate, ""))
		require.NoError(t, s.Trust(t.Context(), other.Certificate, ""), "twice")
		again := start(t, store.Open(), cfg)

		thumb := sha1.Sum(other.Certificate.Raw)
		kids := map[string]string{
			"RFC 7638":             other.KeyID,
			"x5t":                  base64.RawURLEncoding.EncodeToString(thumb[:]),
			"hex":                  strings.ToUpper(hex.EncodeToString(thumb[:])),
			"hex with algorithm":   strings.ToUpper(hex.EncodeToString(thumb[:])) + "ES256",
			"hex in lower letters": hex.EncodeToString(thumb[:]),
		}
		for name, kid := range kids {
			claims := jwt.MapClaims{"iss": cfg.FormerIssuers[0], "aud": issuer, "exp": time.Now().Add(8 * time.Hour).Unix(), "scope": []string{"a", "b"}}
			token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
			token.Header["kid"], token.Header["x5t"] = kid, kids["x5t"]
			signed, err := token.SignedString(other.Signer)
			require.NoError(t, err)
			accepts(t, signed, s, again)
			got, err := s.Verify(t.Context(), signed)
			require.NoError(t, err)
			require.True(t, got.HasScope("b"))
			require.Contains(t, jwks(t, again), kid, name)
		}
		require.Equal(t, other.KeyID, kidOf(t, issueWith(t, other)))
		require.NotEqual(t, other.KeyID, s.SigningKey().KeyID, "it never signs")
		time.Sleep(2 * 365 * day)
		accepts(t, issueWith(t, other), s)
		require.NoError(t, s.Revoke(t.Context(), other.KeyID))
		require.NoError(t, again.Refresh(t.Context()))
		refuses(t, fleetkey.ErrUnknownKey, issueWith(t, other), s, again)
	})
}

// issueWith signs an access token as another system would.
func issueWith(t *testing.T, k fleetkey.SigningKey) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": issuer, "aud": issuer, "sub": "alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	token.Header["kid"], token.Header["typ"] = k.KeyID, "at+jwt"
	signed, err := token.SignedString(k.Signer)
	require.NoError(t, err)
	return signed
}

func TestTrustUnderAGivenKeyID(t *testing.T) {
	store := fleetkeytest.NewStore()
	s := start(t, store, config())
	other := start(t, fleetkeytest.NewStore(), config()).SigningKey()
	require.NoError(t, s.Trust(t.Context(), other.Certificate, "key-2019/a"))
	again := start(t, store.Open(), config())
	other.KeyID = "key-2019/a"
	accepts(t, issueWith(t, other), s, again)
	require.Contains(t, jwks(t, again), "key-2019/a")
	bundle, _ := store.Content()
	require.Contains(t, string(bundle), "Kid: key-2019/a")
	require.Error(t, s.Trust(t.Context(), other.Certificate, "a\nb"))
}

// A server that had its own key in a file moves it to the shared store.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := []*fleetkeytest.Store{fleetkeytest.NewStore(), fleetkeytest.NewStore()}
		var kids, tokens []string
		for _, file := range files {
			s := start(t, file, config())
			kids, tokens = append(kids, s.SigningKey().KeyID), append(tokens, issue(t, s))
			require.NoError(t, s.Close())
		}
		shared := fleetkeytest.NewStore()
		var fleet []*fleetkey.Signer
		for _, file := range files {
			cfg := config()
			cfg.Adopt = file
			fleet = append(fleet, start(t, shared.Open(), cfg))
		}
		for _, s := range fleet {
			require.NoError(t, s.Refresh(t.Context()))
			require.Equal(t, kids[0], s.SigningKey().KeyID, "the first one's key is the fleet's, under the same kid")
			require.ElementsMatch(t, kids, jwks(t, s))
		}
		for _, token := range tokens {
			accepts(t, token, fleet...)
		}
		_, version := shared.Content()
		for _, file := range files {
			bundle, _ := file.Content()
			require.NotContains(t, string(bundle), "PRIVATE KEY", "moved, not copied")
			cfg := config()
			cfg.Adopt = file
			start(t, shared.Open(), cfg)
		}
		_, again := shared.Content()
		require.Equal(t, version, again, "the next start finds nothing to do")
	})
}

func TestAdoptWithoutRightsToWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
		alone := start(t, file, config())
		token := issue(t, alone)
		start(t, shared, config())
		readOnly := shared.Open()
		readOnly.SetHook(fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		cfg := config()
		cfg.Adopt = file
		s := start(t, readOnly, cfg)
		accepts(t, token, s)
		accepts(t, issue(t, s), s)
		bundle, _ := file.Content()
		require.Contains(t, string(bundle), "PRIVATE KEY", "nothing is lost")
	})
}

func TestAdoptRefusesGarbage(t *testing.T) {
	file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
	file.Set([]byte("garbage"))
	cfg := config()
	cfg.Adopt = file
	_, err := fleetkey.NewSigner(t.Context(), shared, cfg)
	require.ErrorContains(t, err, "adopt from")
	require.Zero(t, shared.Saves())
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, store, config())
		code, body := health(t, s)
		require.Equal(t, 200, code)
		var answer map[string]any
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
		require.Equal(t, "ok", answer["status"])
		require.Equal(t, s.SigningKey().KeyID, answer["signing_kid"])
		store.SetHook(fail(errors.New("boom"), fleetkeytest.OpLoad))
		require.Error(t, s.Refresh(t.Context()))
		code, body = health(t, s)
		require.Equal(t, 200, code, "one store must not take the whole fleet down")
		require.Contains(t, body, `"degraded"`)
		require.Contains(t, body, "boom")
	})
}
