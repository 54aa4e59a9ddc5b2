package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// The rows A10 and A11 of a store that an operator has changed by hand.
func TestVanishedKeys(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(t *testing.T, store *fleetkeytest.Store, s *fleetkey.Signer, first fleetkey.Version)
		kept   bool
	}{
		"A10 exchanged for another fleet's bundle": {func(t *testing.T, store *fleetkeytest.Store, _ *fleetkey.Signer, _ fleetkey.Version) {
			store.Set(testkit.ForeignBundle(t, testkit.Config()))
		}, true},
		"A11 rolled back to before the key": {func(_ *testing.T, store *fleetkeytest.Store, _ *fleetkey.Signer, first fleetkey.Version) {
			store.RollBack(first)
		}, true},
		"revoked": {func(t *testing.T, store *fleetkeytest.Store, s *fleetkey.Signer, _ fleetkey.Version) {
			other := testkit.Start(t, store.Open(), testkit.Config())
			require.NoError(t, other.Revoke(t.Context(), s.SigningKey().KeyID))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				s := testkit.Start(t, store, testkit.Config())
				_, first := store.Content()
				require.NoError(t, s.Rotate(t.Context()))
				time.Sleep(25 * time.Hour)
				token := testkit.Issue(t, s) // by the second key
				tc.change(t, store, s, first)
				require.NoError(t, s.Refresh(t.Context()))
				require.NotEqual(t, testkit.KeyID(token), s.SigningKey().KeyID)
				if !tc.kept {
					testkit.Refuses(t, fleetkey.ErrUnknownKey, token, s)
					return
				}
				time.Sleep(59 * time.Minute)
				testkit.Accepts(t, token, s)
				require.Contains(t, testkit.PublishedKeyIDs(t, s), testkit.KeyID(token), "and published")
				time.Sleep(20 * time.Minute)
				require.NotContains(t, testkit.PublishedKeyIDs(t, s), testkit.KeyID(token), "until its tokens have ended")
			})
		})
	}
}

func TestStaleReadsDoNotTurnTheClockBack(t *testing.T) { // A14
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		stolen := testkit.Issue(t, s)
		require.NoError(t, s.Revoke(t.Context(), s.SigningKey().KeyID))
		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Stale: 1} })
		require.NoError(t, s.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
		_, current := store.Content()
		require.Equal(t, current, s.Status().Version)
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
		"the announced key about to sign":    {testkit.Day - time.Minute, announced, false},
		"the signing key just begun":         {testkit.Day + 2*time.Second, signing, true},
		"the key replaced just now":          {testkit.Day + 2*time.Second, oldest, false},
		"the key replaced some time ago":     {testkit.Day + time.Hour, oldest, false},
		"the signing key, an old one behind": {testkit.Day + time.Hour, signing, true},
	} {
		for _, offset := range []time.Duration{-time.Minute, 0, time.Minute} {
			t.Run(fmt.Sprintf("%s, operator's clock off by %v", name, offset), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := fleetkeytest.NewStore()
					s := testkit.Start(t, store, testkit.Config())
					behind, ahead, operator := testkit.Off(-time.Minute), testkit.Off(time.Minute), testkit.Off(offset)
					fleet := []*fleetkey.Signer{s, testkit.StartBy(t, behind, store.Open(), testkit.Config()), testkit.StartBy(t, ahead, store.Open(), testkit.Config())}
					if tc.prepare > 0 {
						require.NoError(t, s.Rotate(t.Context()))
						time.Sleep(tc.prepare)
					}
					for _, s := range fleet {
						require.NoError(t, s.Refresh(t.Context()))
					}
					victim, before := tc.victim(s), s.SigningKey().KeyID
					stolen := signedBy(t, store, victim)
					require.NoError(t, testkit.StartBy(t, operator, store.Open(), testkit.Config()).Revoke(t.Context(), victim))
					for _, s := range fleet {
						require.NoError(t, s.Refresh(t.Context()))
						testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
						require.NotContains(t, testkit.PublishedKeyIDs(t, s), victim)
						testkit.Accepts(t, testkit.Issue(t, s), fleet...)
					}
					require.Equal(t, tc.fresh, before != s.SigningKey().KeyID)
					require.NoError(t, s.Revoke(t.Context(), victim), "twice")
					time.Sleep(2 * testkit.Day)
					for _, s := range fleet {
						testkit.Accepts(t, testkit.Issue(t, s), fleet...)
						require.NotContains(t, testkit.PublishedKeyIDs(t, s), victim)
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
		a, b := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), testkit.Config())
		_, first := store.Content()
		require.NoError(t, a.Rotate(t.Context()))
		time.Sleep(25 * time.Hour)
		token := testkit.Issue(t, a)
		store.RollBack(first)
		require.NoError(t, a.Refresh(t.Context()))
		require.NoError(t, b.Refresh(t.Context()))
		testkit.Accepts(t, token, a, b)
		require.NoError(t, a.Revoke(t.Context(), testkit.KeyID(token)))
		require.NoError(t, a.Refresh(t.Context()))
		require.NoError(t, b.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, token, a, b)
		testkit.Accepts(t, testkit.Issue(t, a), a, b)
		require.Equal(t, testkit.PublishedKeyIDs(t, a), testkit.PublishedKeyIDs(t, b))
	})
}

// signedBy is what a thief makes of a stolen key: a token that is valid now.
func signedBy(t *testing.T, store *fleetkeytest.Store, kid string) string {
	t.Helper()
	bundle, _ := store.Content()
	token, err := testkit.Forge(testkit.PrivateKey(t, bundle, kid), kid, time.Now(), time.Now().Add(time.Minute))
	require.NoError(t, err)
	return token
}

// Two revocations between two refreshes of an instance.
func TestRevokeTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		operator, s := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), testkit.Config())
		victim := s.SigningKey().KeyID
		stolen := signedBy(t, store, victim)
		require.NoError(t, operator.Revoke(t.Context(), victim))
		require.NoError(t, operator.Revoke(t.Context(), operator.SigningKey().KeyID))
		require.NoError(t, s.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
	})
}

// An announced key is revoked; an instance refreshes only once it would have begun.
func TestRevokeAnAnnouncedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		cfg := testkit.Config()
		cfg.RefreshEvery = 30 * time.Minute
		operator, s := testkit.Start(t, store, cfg), testkit.Start(t, store.Open(), cfg)
		require.NoError(t, operator.Rotate(t.Context()))
		require.NoError(t, s.Refresh(t.Context()))
		victim := s.Status().Keys[0].KeyID
		time.Sleep(testkit.Day - 10*time.Minute)
		require.NoError(t, s.Refresh(t.Context()))
		bundle, _ := store.Content()
		require.NoError(t, operator.Revoke(t.Context(), victim))
		time.Sleep(20 * time.Minute)
		require.NoError(t, s.Refresh(t.Context()))
		thief := fleetkeytest.NewStore()
		thief.Set(bundle)
		testkit.Refuses(t, fleetkey.ErrUnknownKey, signedBy(t, thief, victim), s)
	})
}

// The same for a retired key and an instance that was cut off.
func TestRevokeARetiredKeyBehindACutOffInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		operator := testkit.Start(t, store, testkit.Config())
		alone := store.Open()
		s := testkit.Start(t, alone, testkit.Config())
		victim := s.SigningKey().KeyID
		alone.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		require.NoError(t, operator.Rotate(t.Context()))
		time.Sleep(testkit.Day + time.Hour)
		require.NoError(t, operator.Revoke(t.Context(), victim))
		alone.SetHook(nil)
		require.NoError(t, s.Refresh(t.Context()))
		require.NotContains(t, testkit.PublishedKeyIDs(t, s), victim)
	})
}

// The store's content is exchanged; one instance refreshes at once, another
// only when it is due, and issues until then.
func TestExchangedKeyIsKeptForThePollToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		early, late := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), testkit.Config())
		time.Sleep(5*time.Minute + 45*time.Second) // late has refreshed a short time ago
		require.NoError(t, late.Refresh(t.Context()))
		store.Set(testkit.ForeignBundle(t, testkit.Config()))
		require.NoError(t, early.Refresh(t.Context()))
		time.Sleep(4*time.Minute + 20*time.Second)
		token := testkit.Issue(t, late)
		require.NotEqual(t, early.SigningKey().KeyID, testkit.KeyID(token))
		time.Sleep(time.Hour - time.Second)
		testkit.Accepts(t, token, early)
	})
}

// A key kept after the store's content was exchanged cannot be revoked.
func TestRevokeAKeptKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		victim := s.SigningKey().KeyID
		store.Set(testkit.ForeignBundle(t, testkit.Config()))
		require.NoError(t, s.Refresh(t.Context()))
		require.Contains(t, testkit.PublishedKeyIDs(t, s), victim)
		require.NoError(t, s.Revoke(t.Context(), victim))
		require.NotContains(t, testkit.PublishedKeyIDs(t, s), victim)
	})
}

// A key that has retired stays retired when its successor is revoked, whether
// its tokens may still live or not.
func TestRevokeDoesNotBringBackWhatWasReplaced(t *testing.T) {
	for name, after := range map[string]time.Duration{"trusted still": 2 * testkit.Day, "gone": 3 * testkit.Day} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				s := testkit.Start(t, store, testkit.Config())
				first := s.SigningKey().KeyID
				require.NoError(t, s.Rotate(t.Context()))
				time.Sleep(after - time.Hour)
				require.NoError(t, s.Revoke(t.Context(), s.SigningKey().KeyID))
				time.Sleep(2 * time.Hour)
				require.NoError(t, s.Refresh(t.Context()))
				require.NotContains(t, testkit.PublishedKeyIDs(t, s), first)
				bundle, _ := store.Content()
				require.Equal(t, 1, strings.Count(string(bundle), "BEGIN PRIVATE KEY"))
			})
		})
	}
}

// A replica two changes behind brings a revoked key back.
func TestStaleReadAfterTwoChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		stolen := testkit.Issue(t, s)
		require.NoError(t, s.Rotate(t.Context()))
		require.NoError(t, s.Revoke(t.Context(), s.SigningKey().KeyID))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Stale: 2} })
		require.NoError(t, s.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
	})
}
