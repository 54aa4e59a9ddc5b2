package lifecycle

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// signedBy is what a thief makes of a stolen key: a token that is valid now.
func signedBy(t *testing.T, store *fleetkeytest.Store, kid string) string {
	t.Helper()
	bundle, _ := store.Content()
	token, err := testkit.Forge(testkit.PrivateKey(t, bundle, kid), kid, time.Now(), time.Now().Add(time.Minute))
	require.NoError(t, err)
	return token
}

// A replica of the store that lags behind brings no revoked key back.
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

// A fleet with clocks that are off by a minute rejects the tokens of a revoked key after its
// next refresh, and signs by the same key. TestRevoke of internal/keyset goes through what
// the set may hold.
func TestRevoke(t *testing.T) { // L6
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		var fleet []*fleetkey.Signer
		for _, off := range []time.Duration{0, -time.Minute, time.Minute} {
			fleet = append(fleet, testkit.StartBy(t, testkit.Off(off), store.Open(), testkit.Config()))
		}
		operator := fleet[1]
		require.NoError(t, operator.Rotate(t.Context()))
		time.Sleep(testkit.Day + time.Hour)
		victim := operator.SigningKey().KeyID
		bundle, _ := store.Content()
		private := testkit.PrivateKey(t, bundle, victim)
		require.NoError(t, operator.Revoke(t.Context(), victim))
		require.NoError(t, operator.Revoke(t.Context(), victim), "twice")
		require.NoError(t, operator.Revoke(t.Context(), operator.SigningKey().KeyID), "the next one, before the others have looked")
		for range 2 {
			stolen, err := testkit.Forge(private, victim, time.Now(), time.Now().Add(time.Minute))
			require.NoError(t, err)
			for _, s := range fleet {
				require.NoError(t, s.Refresh(t.Context()))
				testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
				require.Equal(t, operator.SigningKey().KeyID, s.SigningKey().KeyID)
				require.Equal(t, testkit.PublishedKeyIDs(t, operator), testkit.PublishedKeyIDs(t, s))
				require.NotContains(t, testkit.PublishedKeyIDs(t, s), victim)
				testkit.Accepts(t, testkit.Issue(t, s), operator)
			}
			time.Sleep(2 * testkit.Day)
		}
	})
}

// P2: where the store is rolled back to before a revocation and cannot be written, an instance
// that knows of the revocation continues with the fresh key: the others may no longer trust the
// one before the revoked.
func TestRollBackBeforeRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Rotating())
		older := s.SigningKey().KeyID
		require.NoError(t, s.Rotate(t.Context()))
		time.Sleep(testkit.Day + time.Hour)
		revoked := s.SigningKey().KeyID
		require.NotEqual(t, older, revoked)
		_, before := store.Content()
		require.NoError(t, s.Revoke(t.Context(), revoked))
		fresh := s.SigningKey().KeyID
		require.NotContains(t, []string{older, revoked}, fresh)
		store.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpSave))
		store.RollBack(before)
		time.Sleep(4 * time.Hour)
		require.ErrorContains(t, s.Status().LoadErr, "from before")
		require.Equal(t, fresh, s.SigningKey().KeyID)
		store.SetHook(nil)
		time.Sleep(testkit.Day)
		require.NoError(t, s.Refresh(t.Context()))
		require.NotContains(t, []string{older, revoked}, s.SigningKey().KeyID)
		require.NotContains(t, testkit.PublishedKeyIDs(t, s), revoked)
	})
}
