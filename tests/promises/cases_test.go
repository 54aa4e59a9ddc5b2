package promises

import (
	"crypto"
	"errors"
	"log/slog"
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

// Cases with texts, dates or numbers of writes that the model of the histories does not know.

// roles returns the role of each key, newest first.
func roles(s *fleetkey.Signer) (roles []fleetkey.Role) {
	for _, k := range s.Status().Keys {
		roles = append(roles, k.Role)
	}
	return roles
}

var (
	oneKey  = []fleetkey.Role{fleetkey.RoleSigning}
	twoKeys = []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}
)

// requireHealth requires that Health answers with a status code and a body that contains a text.
func requireHealth(t *testing.T, s *fleetkey.Signer, code int, text string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.Health().ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
	require.Equal(t, code, w.Code)
	require.Contains(t, w.Body.String(), text)
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
			private int // private keys in the store
			want    string
		}{
			{0, oneKey, 1, "one key, backdated by a day"},
			{88*day - time.Hour, oneKey, 1, "not due yet"},
			{88*day + hours, twoKeys, 2, "a successor is announced a day ahead"},
			{89*day + hours, []fleetkey.Role{fleetkey.RoleSigning, fleetkey.RoleRetired}, 2, "and takes over"},
			{90*day + hours, []fleetkey.Role{fleetkey.RoleSigning, fleetkey.RoleGone}, 2, "the old key is no longer trusted"},
			{97*day + hours, oneKey, 1, "and pruned when nobody can need it"},
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

// A fleet without permission to write continues until its certificate expires, and tries rarely.
// With permission, an operator can rotate at once, or the fleet rotates at its next try.
func TestFleetThatMayNotWrite(t *testing.T) { // A6, A15
	synctest.Test(t, func(t *testing.T) {
		var log testkit.LogBuffer
		store, end := fleetkeytest.NewStore(), time.Now().Add(200*day)
		store.Set([]byte(newPair("ES256", time.Now().Add(-time.Hour), end).Text))
		cfg := testkit.Rotating()
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := testkit.Start(t, store, cfg)
		store.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		time.Sleep(100 * day)
		require.ErrorIs(t, s.Status().RotationErr, fleetkey.ErrAccessDenied)
		requireHealth(t, s, 200, "could not be rotated")
		require.Contains(t, log.String(), "cannot rotate the signing key")
		require.Less(t, store.Saves(), 70, "in the long run, at most one try in 6 hours")
		require.Greater(t, store.Saves(), 20)
		testkit.Accepts(t, testkit.Issue(t, s), s)
		time.Sleep(10*day - time.Hour) // 91 days before the end
		require.NotContains(t, log.String(), "ends soon")
		time.Sleep(2 * day)
		require.Contains(t, log.String(), "ends soon")

		time.Sleep(time.Until(end.Add(-time.Hour)))
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrKeyExpired)
		requireHealth(t, s, 503, "")
		time.Sleep(30 * day)
		store.SetHook(nil)
		require.NoError(t, s.Rotate(t.Context()))
		testkit.Accepts(t, testkit.Issue(t, s), s)

		store.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		time.Sleep(100 * day)
		require.Error(t, s.Status().RotationErr)
		store.SetHook(nil)
		time.Sleep(7 * time.Hour)
		require.NoError(t, s.Status().RotationErr)
		require.Equal(t, twoKeys, roles(s), "a regained permission is used without anybody's help")
	})
}

// P5: a writer that loses to others does not give up before its context ends.
func TestRotateLosesToAnotherWriter(t *testing.T) { // A12
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		store.SetHook(testkit.Fail(fleetkey.ErrConflict, fleetkeytest.OpSave))
		time.AfterFunc(time.Hour, func() { store.SetHook(nil) })
		require.NoError(t, s.Rotate(t.Context()))
		require.Equal(t, twoKeys, roles(s))
		require.Greater(t, store.Saves(), 300)
	})
}

func TestInstanceCutOff(t *testing.T) { // L1, L4
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Rotating())
		requireHealth(t, s, 200, `"status":"ok"`)
		requireHealth(t, s, 200, s.SigningKey().KeyID)
		require.NoError(t, s.Rotate(t.Context()))
		store.SetHook(testkit.Fail(errors.New("boom"), fleetkeytest.OpLoad))
		require.Error(t, s.Refresh(t.Context()))
		requireHealth(t, s, 200, `"degraded"`) // one store must not take the whole fleet down
		requireHealth(t, s, 200, "boom")
		time.Sleep(2*day - time.Hour - 4*time.Minute) // Announce + Retain - MaxTokenTTL - 3 ClockSkew - a stale read
		token := testkit.Issue(t, s)
		time.Sleep(6 * time.Minute)
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrStale)
		requireHealth(t, s, 503, "stale")
		testkit.Accepts(t, token, s)
		require.Len(t, testkit.PublishedKeyIDs(t, s), 2)
		time.Sleep(70 * time.Minute) // trust ends even without the store
		require.Len(t, s.PublicKeys(), 1)
		require.Len(t, testkit.PublishedKeyIDs(t, s), 1)
		store.SetHook(nil)
		time.Sleep(6 * time.Minute)
		testkit.Accepts(t, testkit.Issue(t, s), s)
	})
}

// An instance whose clock has jumped leaves changes of the key set to the others for as long
// as a new key is announced.
func TestClockJumpHoldsWritesBack(t *testing.T) { // F16
	synctest.Test(t, func(t *testing.T) {
		clock, store := new(testkit.Clock), fleetkeytest.NewStore()
		s := testkit.StartBy(t, clock.Now, store, testkit.Rotating())
		time.Sleep(30 * day)
		saves := store.Saves()
		clock.Set(60 * day) // by this clock, a new key is due
		time.Sleep(day - time.Minute)
		require.Equal(t, saves, store.Saves())
		require.Equal(t, oneKey, roles(s))
		time.Sleep(15 * time.Minute)
		require.Equal(t, twoKeys, roles(s), "if the others do nothing, it rotates")
	})
}

// P3: a set that cannot sign is rejected while this instance can sign. The load still counts
// as fresh, and the revocations in the set apply.
func TestSetThatCannotSign(t *testing.T) { // K5
	synctest.Test(t, func(t *testing.T) {
		store, now := fleetkeytest.NewStore(), time.Now()
		old, mine := newPair("ES256", now.Add(-2*time.Hour), now.Add(365*day)), newPair("ES256", now.Add(-time.Hour), now.Add(365*day))
		store.Set([]byte(mine.Text + old.Text))
		s := testkit.Start(t, store, testkit.Config())
		stolen := testkit.Forge(old.Private, old.ID, "at+jwt", now, "exp", now.Add(time.Hour).Unix())
		testkit.Accepts(t, stolen, s)
		for _, private := range []crypto.Signer{testkit.NewKey("ES256"), mine.Private} { // or our key, with an expired certificate
			time.Sleep(time.Minute)
			store.Set(append(testkit.Bundle(private, now.Add(-2*day), now.Add(-time.Hour)), revokedBlock(old.ID)...))
			require.ErrorContains(t, s.Refresh(t.Context()), "holds no key that can sign")
			testkit.Accepts(t, testkit.Issue(t, s), s)
			testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
			require.WithinDuration(t, time.Now(), s.Status().LastLoad, time.Second, "the load counts as fresh")
		}
	})
}

// A lagging replica of the store does not bring back a revoked key.
func TestStaleReadsDoNotTurnTheClockBack(t *testing.T) { // A14
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		stolen := testkit.Issue(t, s)
		require.NoError(t, s.Rotate(t.Context()))
		require.NoError(t, s.Revoke(t.Context(), s.SigningKey().KeyID))
		_, current := store.Content()
		for changes := range 3 {
			store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Stale: changes} })
			require.NoError(t, s.Refresh(t.Context()))
			testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
			require.Equal(t, current, s.Status().Version)
		}
	})
}

// P2, P3: after a change that read a revocation and then failed, an instance does not sign
// with a key that the others no longer trust.
func TestChangeThatReadOfRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		way := store.Open()
		a, b := testkit.Start(t, store, testkit.Rotating()), testkit.Start(t, way, testkit.Lazily(testkit.Rotating()))
		first := a.SigningKey().KeyID
		require.NoError(t, a.Rotate(t.Context()))
		time.Sleep(3*day + time.Hour)
		require.NotContains(t, testkit.PublishedKeyIDs(t, a), first)
		require.Equal(t, a.SigningKey().KeyID, b.SigningKey().KeyID)
		require.NoError(t, a.Revoke(t.Context(), a.SigningKey().KeyID))
		way.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		require.ErrorIs(t, b.Rotate(t.Context()), fleetkey.ErrAccessDenied)
		testkit.Accepts(t, testkit.Issue(t, b), a, b)
	})
}

// P2, P3: a key that was revoked before it signed never replaces another, even if a rollback
// brings it back after its date: the key before it continues to sign, and its tokens stay good.
func TestRollBackBeforeRevocationOfAnnounced(t *testing.T) {
	for _, cfg := range []fleetkey.Config{testkit.Config(), testkit.Rotating()} {
		synctest.Test(t, func(t *testing.T) {
			store := fleetkeytest.NewStore()
			a, b := testkit.Start(t, store, cfg), testkit.Start(t, store.Open(), cfg)
			signs := a.SigningKey().KeyID
			require.NoError(t, a.Rotate(t.Context()))
			_, before := store.Content()
			require.NoError(t, a.Revoke(t.Context(), a.Status().Keys[0].KeyID))
			time.Sleep(30 * day)
			require.Equal(t, signs, a.SigningKey().KeyID)
			token := testkit.Issue(t, a)
			store.RollBack(before)
			time.Sleep(11 * time.Minute)
			require.NoError(t, a.Status().LoadErr)
			testkit.Accepts(t, token, a, b)
			testkit.Accepts(t, testkit.Issue(t, a), a, b)
		})
	}
}

// A failed change does not take its instance back to an older version that a replica returned:
// neither one that the instance never had, nor one that was current when the save began.
func TestFailedChangeDoesNotTurnTheClockBack(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg   fleetkey.Config
		wait  time.Duration // from the change until Rotate
		takes time.Duration // duration of the save
	}{
		"skipped":   {cfg: testkit.Config()},
		"slow save": {testkit.Lazily(testkit.Config()), 30 * time.Second, 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				way := store.Open()
				writer, s := testkit.Start(t, store, tc.cfg), testkit.Start(t, way, tc.cfg)
				if name == "slow save" {
					require.NoError(t, s.Rotate(t.Context()))
				} else {
					require.NoError(t, writer.Revoke(t.Context(), testkit.Thumbprint(testkit.NewKey("ES256").Public())))
					require.NoError(t, writer.Rotate(t.Context()))
					require.NoError(t, s.Refresh(t.Context()))
				}
				_, current := store.Content()
				time.Sleep(tc.wait)
				way.SetHook(func(c fleetkeytest.Call) fleetkeytest.Fault {
					if c.Op == fleetkeytest.OpLoad {
						return fleetkeytest.Fault{Stale: 1}
					}
					return fleetkeytest.Fault{Delay: tc.takes, Err: fleetkey.ErrAccessDenied}
				})
				require.ErrorIs(t, s.Rotate(t.Context()), fleetkey.ErrAccessDenied)
				require.Equal(t, current, s.Status().Version)
			})
		})
	}
}

// A mounted store is read-only; others write it (P6).
type mounted struct{ *fleetkeytest.Store }

func (mounted) ReadOnly() bool { return true }

func TestReadOnlyRefuses(t *testing.T) { // F19
	store := fleetkeytest.NewStore()
	testkit.Start(t, store, testkit.Config())
	_, version := store.Content()
	reader := testkit.Start(t, mounted{store.Open()}, testkit.Rotating())
	for name, err := range map[string]error{
		"rotate":     reader.Rotate(t.Context()),
		"revoke":     reader.Revoke(t.Context(), reader.SigningKey().KeyID),
		"revoke all": reader.RevokeAll(t.Context()),
	} {
		require.ErrorIs(t, err, fleetkey.ErrReadOnly, name)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, reader.Status().Store)
	}
	_, same := store.Content()
	require.Equal(t, version, same)

	// An instance cannot create the first bundle in a read-only store.
	for _, adopt := range []fleetkey.KeyStore{nil, store} {
		absent, cfg := fleetkeytest.NewStore(), testkit.Rotating()
		cfg.Adopt = adopt
		_, err := fleetkey.NewSigner(t.Context(), mounted{absent}, cfg)
		require.ErrorIs(t, err, fleetkey.ErrNotExist)
		require.ErrorIs(t, err, fleetkey.ErrReadOnly)
		require.ErrorContains(t, err, "fleetkey init")
		absent.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpLoad))
		_, err = fleetkey.NewSigner(t.Context(), mounted{absent}, cfg)
		require.ErrorIs(t, err, fleetkey.ErrAccessDenied)
		require.Zero(t, absent.Saves())
	}
	require.Equal(t, 1, store.Saves())

	// Its keys can be adopted. It gets no note, which is not worth a warning.
	var log testkit.LogBuffer
	cfg := testkit.Config()
	cfg.Adopt, cfg.Logger = mounted{store}, slog.New(slog.NewTextHandler(&log, nil))
	testkit.Accepts(t, testkit.Issue(t, reader), testkit.Start(t, fleetkeytest.NewStore(), cfg))
	require.Contains(t, log.String(), "adopted the signing keys")
	require.NotContains(t, log.String(), "WARN")
}
