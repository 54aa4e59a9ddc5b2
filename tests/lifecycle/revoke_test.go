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

// The rows A10 and A11 of a store that an operator has changed by hand: tokens of the key
// that vanished are good until they end.
func TestVanishedKeys(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *fleetkeytest.Store, fleetkey.Version){
		"A10 exchanged for another fleet's bundle": func(t *testing.T, store *fleetkeytest.Store, _ fleetkey.Version) {
			store.Set(testkit.ForeignBundle(t, testkit.Config()))
		},
		"A11 rolled back to before the key": func(_ *testing.T, store *fleetkeytest.Store, first fleetkey.Version) { store.RollBack(first) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				s := testkit.Start(t, store, testkit.Config())
				_, first := store.Content()
				require.NoError(t, s.Rotate(t.Context()))
				time.Sleep(25 * time.Hour)
				token := testkit.Issue(t, s) // by the second key
				change(t, store, first)
				require.NoError(t, s.Refresh(t.Context()))
				require.NotEqual(t, testkit.KeyID(token), s.SigningKey().KeyID)
				time.Sleep(59 * time.Minute)
				testkit.Accepts(t, token, s)
				require.Contains(t, testkit.PublishedKeyIDs(t, s), testkit.KeyID(token), "and published")
				time.Sleep(20 * time.Minute)
				require.NotContains(t, testkit.PublishedKeyIDs(t, s), testkit.KeyID(token), "until its tokens have ended")
			})
		})
	}
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
