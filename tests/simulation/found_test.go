package simulation

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file keeps what the simulation has found: each fault in the smallest fleet that
// shows it. These fleets read their store every hour.

// atBounds returns a policy at its bounds.
func atBounds() fleetkey.Config {
	cfg := tightPolicy(30 * day)
	cfg.Rotation.Announce -= 2 * (cfg.RefreshEvery - time.Hour)
	cfg.RefreshEvery = time.Hour
	return cfg
}

func start(t *testing.T, ahead time.Duration, store fleetkey.KeyStore) *fleetkey.Signer {
	t.Helper()
	return testkit.StartBy(t, testkit.Off(ahead), store, atBounds())
}

// An announcement is rolled back just before it takes effect. An instance that learns it
// early must still trust the key, since one that learns it late has signed with it.
func TestFoundRollbackBeforeActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		early, late := start(t, 0, store), start(t, 0, store.Open())
		_, before := store.Content()
		require.NoError(t, early.Rotate(t.Context()))
		require.NoError(t, late.Refresh(t.Context()))
		begin := early.Status().NextActivation

		time.Sleep(time.Until(begin.Add(-50 * time.Minute)))
		require.NoError(t, late.Refresh(t.Context())) // the next one is after begin
		store.RollBack(before)
		require.NoError(t, early.Refresh(t.Context()))

		time.Sleep(time.Until(begin.Add(time.Second)))
		token := testkit.Issue(t, late)
		require.NotEqual(t, early.SigningKey().KeyID, testkit.KeyID(token), "late signs with the key that was rolled back")
		testkit.Accepts(t, token, early)
		time.Sleep(time.Hour - time.Second)
		testkit.Accepts(t, token, early) // to its end
	})
}

// An instance loses its store just before the slowest clock announces a key. On the
// fastest clock it signs as long as it dares, and its tokens must stay valid.
func TestFoundCutOffOnTheFastestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		skew := atBounds().ClockSkew
		store := fleetkeytest.NewStore()
		writer := start(t, -skew, store)
		verifier, cutOff := start(t, skew, store.Open()), store.Open()
		signer := start(t, skew, cutOff)
		read := time.Now()
		cutOff.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		require.NoError(t, writer.Rotate(t.Context()))
		require.NoError(t, verifier.Refresh(t.Context()))

		var token string
		time.Sleep(2*time.Hour + 30*time.Minute) // it still signs, as the loop shows
		for range 2 * 3600 {
			time.Sleep(time.Second)
			next, err := signer.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
			if err != nil {
				require.ErrorIs(t, err, fleetkey.ErrStale)
				break
			}
			token = next
		}
		require.NotEmpty(t, token)
		require.Less(t, time.Since(read), 4*time.Hour)
		exp := time.Now().Add(skew + time.Hour - time.Second)
		time.Sleep(time.Until(exp.Add(-2 * time.Second)))
		testkit.Accepts(t, token, verifier)
	})
}

// A load that took long shows what the store held when it began.
func TestFoundSlowLoadIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, 0, store)
		begin := time.Now()
		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Delay: 20 * time.Second} })
		require.NoError(t, s.Refresh(t.Context()))
		require.Equal(t, begin, s.Status().LastLoad)
	})
}

// After a rollback, the first instance to notice announces a key again. The others never
// see the bundle that was rolled back to, and must still understand that the key was lost
// and not revoked.
func TestFoundRollbackAndAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		first, second := start(t, 0, store), start(t, 0, store.Open())
		_, before := store.Content()
		old := second.SigningKey().KeyID
		for second.SigningKey().KeyID == old { // until the second key signs
			time.Sleep(time.Minute)
		}
		token := testkit.Issue(t, second)
		store.RollBack(before)
		require.NoError(t, first.Refresh(t.Context()))
		synctest.Wait()
		_, now := store.Content()
		require.NotEqual(t, before, now, "a key was announced")
		require.NoError(t, second.Refresh(t.Context()))
		testkit.Accepts(t, token, first, second)
	})
}

// A key is revoked after its announcement. An instance that reads the store only when the
// key would have begun, after another one was announced, must not mistake the loss for a
// rollback.
func TestFoundRevokedBeforeActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		operator, cutOff := start(t, 0, store), store.Open()
		late := start(t, 0, cutOff)
		require.NoError(t, operator.Rotate(t.Context()))
		require.NoError(t, late.Refresh(t.Context()))
		cutOff.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		status := operator.Status()
		bundle, _ := store.Content()
		keys, err := testkit.Keys(bundle)
		require.NoError(t, err)
		require.NoError(t, operator.Revoke(t.Context(), status.Keys[0].KeyID))
		time.Sleep(time.Until(status.NextActivation.Add(-10 * time.Minute)))
		stolen, err := testkit.Forge(keys[0].Private, keys[0].ID, time.Now(), time.Now().Add(time.Minute))
		require.NoError(t, err)
		testkit.Accepts(t, stolen, late)
		cutOff.SetHook(nil)
		require.NoError(t, late.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, late, operator)
	})
}
