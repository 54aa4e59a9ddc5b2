package fleetkey_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// This file keeps what the simulation, or thinking about it, has found: each
// fault in the smallest fleet that shows it.

// atBounds returns a policy at its bounds.
func atBounds() fleetkey.Config {
	cfg := tightPolicy(30 * day)
	cfg.Issuer, cfg.Logger = issuer, config().Logger
	return cfg
}

// An announcement that is rolled back just before it takes effect: an instance
// that hears of it early must still trust the key, since one that hears of it
// late has signed with it.
func TestFoundRollbackBeforeActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		early, late := startBy(t, off(0), store, atBounds()), startBy(t, off(0), store.Open(), atBounds())
		_, before := store.Content()
		require.NoError(t, early.Rotate(t.Context()))
		require.NoError(t, late.Refresh(t.Context()))
		begin := early.Status().NextActivation

		time.Sleep(time.Until(begin.Add(-50 * time.Minute)))
		require.NoError(t, late.Refresh(t.Context())) // the next one is after begin
		store.RollBack(before)
		require.NoError(t, early.Refresh(t.Context()))

		time.Sleep(time.Until(begin.Add(time.Second)))
		token := issue(t, late)
		require.NotEqual(t, early.SigningKey().KeyID, kidOf(t, token), "late signs with the key that was rolled back")
		accepts(t, token, early)
		time.Sleep(time.Hour - time.Second)
		accepts(t, token, early) // to its end
	})
}

// An instance loses its store just before the slowest clock announces a key. On
// the fastest clock it signs as long as it dares; the tokens must live on.
func TestFoundCutOffOnTheFastestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		skew := atBounds().ClockSkew
		store := fleetkeytest.NewStore()
		writer := startBy(t, off(-skew), store, atBounds())
		verifier, cutOff := startBy(t, off(skew), store.Open(), atBounds()), store.Open()
		signer := startBy(t, off(skew), cutOff, atBounds())
		read := time.Now()
		cutOff.SetHook(fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		require.NoError(t, writer.Rotate(t.Context()))
		require.NoError(t, verifier.Refresh(t.Context()))

		var token string
		time.Sleep(2*time.Hour + 30*time.Minute) // it still signs, as the loop shows
		for range 2 * 3600 {
			time.Sleep(time.Second)
			next, err := signer.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
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
		accepts(t, token, verifier)
	})
}

// A load that took long says what the store held when it began.
func TestFoundSlowLoadIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := startBy(t, off(0), store, atBounds())
		begin := time.Now()
		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Delay: 20 * time.Second} })
		require.NoError(t, s.Refresh(t.Context()))
		require.Equal(t, begin, s.Status().LastLoad)
	})
}

// After a rollback, the first instance to notice announces a key again. The
// others never see the bundle that was rolled back to, and must yet understand
// that the key they miss was lost, not revoked.
func TestFoundRollbackAndAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		first, second := startBy(t, off(0), store, atBounds()), startBy(t, off(0), store.Open(), atBounds())
		_, before := store.Content()
		old := second.SigningKey().KeyID
		for second.SigningKey().KeyID == old { // until the second key signs
			time.Sleep(time.Minute)
		}
		token := issue(t, second)
		store.RollBack(before)
		require.NoError(t, first.Refresh(t.Context()))
		synctest.Wait()
		_, now := store.Content()
		require.NotEqual(t, before, now, "a key was announced")
		require.NoError(t, second.Refresh(t.Context()))
		accepts(t, token, first, second)
	})
}

// A revoked key that was announced: an instance that reads the store only when
// the key would have begun, and another one was announced meanwhile, must not
// take the loss for a rollback.
func TestFoundRevokedBeforeActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		operator, cutOff := startBy(t, off(0), store, atBounds()), store.Open()
		late := startBy(t, off(0), cutOff, atBounds())
		require.NoError(t, operator.Rotate(t.Context()))
		require.NoError(t, late.Refresh(t.Context()))
		cutOff.SetHook(fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		status := operator.Status()
		bundle, _ := store.Content()
		thief := fleetkeytest.NewStore()
		thief.Set(bundle)
		require.NoError(t, operator.Revoke(t.Context(), status.Keys[0].KeyID))
		time.Sleep(time.Until(status.NextActivation.Add(-10 * time.Minute)))
		stolen := signedBy(t, thief, status.Keys[0].KeyID)
		accepts(t, stolen, late)
		cutOff.SetHook(nil)
		require.NoError(t, late.Refresh(t.Context()))
		refuses(t, fleetkey.ErrUnknownKey, stolen, late, operator)
	})
}
