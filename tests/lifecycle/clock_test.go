package lifecycle

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

func TestClockJumps(t *testing.T) { // F16, of the clock that no policy rotates by
	for name, jump := range map[string]time.Duration{"an hour back": -time.Hour, "an hour ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var offset atomic.Int64
				now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
				s := testkit.StartBy(t, now, fleetkeytest.NewStore(), testkit.Config())
				time.Sleep(2 * time.Hour)
				offset.Store(int64(jump))
				testkit.Accepts(t, testkit.Issue(t, s), s)
				require.Len(t, s.PublicKeys(), 1)
			})
		})
	}
	t.Run("to 1970", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var wrong atomic.Bool
			now := func() time.Time {
				if wrong.Load() {
					return time.Unix(0, 0)
				}
				return time.Now()
			}
			store := fleetkeytest.NewStore()
			s := testkit.StartBy(t, now, store, testkit.Config())
			wrong.Store(true)
			_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
			require.ErrorIs(t, err, fleetkey.ErrNoSigningKey)
			require.ErrorContains(t, err, "clock")
			require.ErrorIs(t, s.Status().Err, fleetkey.ErrNoSigningKey)
			require.Equal(t, 1, store.Saves())
		})
	})
}

func TestCertificateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testkit.LogBuffer
		cfg := testkit.Lazily(testkit.Config())
		cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		s := testkit.Start(t, fleetkeytest.NewStore(), cfg)
		end := s.SigningKey().Certificate.NotAfter
		time.Sleep(time.Until(end.Add(-91 * 24 * time.Hour)))
		synctest.Wait()
		require.Empty(t, log.String())
		require.Empty(t, s.Status().Warnings())
		time.Sleep(3 * 24 * time.Hour)
		synctest.Wait()
		require.Contains(t, log.String(), "ends soon")
		require.NotEmpty(t, s.Status().Warnings())
		last := end.Add(-time.Hour - 2*time.Minute)
		time.Sleep(time.Until(last))
		token := testkit.Issue(t, s)
		time.Sleep(time.Second)
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrKeyExpired)
		time.Sleep(time.Hour - 2*time.Second)
		testkit.Accepts(t, token, s)
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
					right := testkit.Start(t, store, testkit.Rotating())
					time.Sleep(89*testkit.Day + time.Minute) // the second key has just begun
					saves := store.Saves()

					cfg := testkit.Rotating()
					var wrong atomic.Bool
					wrong.Store(booted)
					now := func() time.Time {
						if wrong.Load() {
							return jump(time.Now())
						}
						return time.Now()
					}
					other := store.Open()
					testkit.StartBy(t, now, other, cfg)
					time.Sleep(10 * time.Minute)
					wrong.Store(true)
					time.Sleep(30 * time.Minute)
					testkit.Accepts(t, testkit.Issue(t, right), right)
					time.Sleep(2 * testkit.Day)
					testkit.Accepts(t, testkit.Issue(t, right), right)
					require.LessOrEqual(t, store.Saves()+other.Saves()-saves, 4, "no storm")
					require.Equal(t, []fleetkey.Role{fleetkey.RoleSigning, fleetkey.RoleGone}, roles(right))
				})
			})
		}
	}
}

// An instance whose clock has jumped leaves the key set to the others, for as long
// as a new key is announced.
func TestClockJumpHoldsWritesBack(t *testing.T) { // F16
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		var ahead atomic.Int64
		cfg := testkit.Rotating()
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		s := testkit.StartBy(t, now, store, cfg)
		time.Sleep(30 * testkit.Day)
		saves := store.Saves()

		ahead.Store(int64(60 * testkit.Day)) // by which a new key is due
		time.Sleep(testkit.Day - time.Minute)
		require.Equal(t, saves, store.Saves())
		require.Equal(t, []fleetkey.Role{fleetkey.RoleSigning}, roles(s))
		time.Sleep(15 * time.Minute)
		require.Equal(t, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}, roles(s), "if the others do nothing, it is right")
	})
}

// A key that a wrong clock has announced for a later year does not keep the fleet
// from its own rotation.
func TestClockOfAnotherYearAnnounces(t *testing.T) { // F16
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Lazily(testkit.Rotating()))
		first := s.Status().SigningKeyID

		cfg := testkit.Config()
		now := func() time.Time { return time.Now().AddDate(1, 0, 0) }
		require.NoError(t, testkit.StartBy(t, now, store.Open(), cfg).Rotate(t.Context()))
		time.Sleep(88*testkit.Day + 12*time.Hour)
		require.Equal(t, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleAnnounced, fleetkey.RoleSigning}, roles(s))
		time.Sleep(testkit.Day)
		require.NotEqual(t, first, s.Status().SigningKeyID)
		testkit.Accepts(t, testkit.Issue(t, s), s)
	})
}

// A certificate of one's own that ends before Every has passed is not replaced.
func TestRotationMindsNotAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		store.Set(testkit.BundleEnding(t, time.Now().Add(30*testkit.Day)))
		s := testkit.Start(t, store, testkit.Lazily(testkit.Rotating()))
		time.Sleep(31 * testkit.Day)
		_, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.NoError(t, err, "rotation is on, the store can be written")
	})
}

// A clock that was ahead for one refresh, and is right again.
func TestClockAheadForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		cfg := testkit.Config()
		now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		s := testkit.StartBy(t, now, fleetkeytest.NewStore(), cfg)
		token := testkit.Issue(t, s)
		offset.Store(int64(11 * 365 * testkit.Day))
		require.NoError(t, s.Refresh(t.Context()))
		offset.Store(0)
		require.NoError(t, s.Refresh(t.Context()))
		testkit.Accepts(t, token, s)
		testkit.Accepts(t, testkit.Issue(t, s), s)
	})
}

// The same with two days, and a key that has retired.
func TestClockDaysAheadForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		cfg := testkit.Config()
		now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		s := testkit.StartBy(t, now, fleetkeytest.NewStore(), cfg)
		require.NoError(t, s.Rotate(t.Context()))
		time.Sleep(testkit.Day - 10*time.Minute)
		token := testkit.Issue(t, s)
		time.Sleep(15 * time.Minute)
		offset.Store(int64(2 * testkit.Day))
		require.NoError(t, s.Refresh(t.Context()))
		offset.Store(0)
		require.NoError(t, s.Refresh(t.Context()))
		testkit.Accepts(t, token, s)
	})
}

// One instance that boots with a clock three days ahead, while a key is announced.
func TestWrongClockAtBootPrunesTheSigningKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Rotating())
		time.Sleep(88*testkit.Day + time.Hour) // one is announced
		require.Equal(t, []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning}, roles(s))
		token := testkit.Issue(t, s)
		cfg := testkit.Rotating()
		now := func() time.Time { return time.Now().Add(3 * testkit.Day) }
		testkit.StartBy(t, now, store.Open(), cfg)
		time.Sleep(12 * time.Minute)
		testkit.Accepts(t, token, s)
		testkit.Accepts(t, testkit.Issue(t, s), s)
	})
}

// The JWKS lists what PublicKeys does not, while the store is down.
func TestJWKSDropsWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		require.NoError(t, s.Rotate(t.Context()))
		store.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		time.Sleep(2*testkit.Day + time.Hour)
		require.Len(t, s.PublicKeys(), 1)
		require.Len(t, testkit.PublishedKeyIDs(t, s), 1)
	})
}

// A policy that NewSigner accepts and under which no token is issued after three days.
func TestMaxTokenTTLAsLongAsACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testkit.Config()
		cfg.MaxTokenTTL = 10 * 365 * testkit.Day
		s, err := fleetkey.NewSigner(t.Context(), fleetkeytest.NewStore(), cfg)
		if err != nil {
			return
		}
		defer s.Close()
		time.Sleep(4 * testkit.Day)
		testkit.Issue(t, s)
	})
}

// Two keys that begin in the same second: the older one never retires.
func TestEqualNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		end := time.Now().AddDate(10, 0, 0)
		store.Set(append(testkit.BundleEnding(t, end), testkit.BundleEnding(t, end)...))
		s := testkit.Start(t, store, testkit.Lazily(testkit.Rotating()))
		time.Sleep(10 * testkit.Day)
		require.Len(t, s.PublicKeys(), 1)
	})
}
