package lifecycle

import (
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
	})
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

// A clock that was ahead for one refresh, and is right again: no key is lost.
func TestClockAheadForAWhile(t *testing.T) { // F16
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		s := testkit.StartBy(t, now, fleetkeytest.NewStore(), testkit.Config())
		require.NoError(t, s.Rotate(t.Context()))
		time.Sleep(testkit.Day - 10*time.Minute)
		token := testkit.Issue(t, s)
		time.Sleep(15 * time.Minute) // its key has retired
		for _, ahead := range []time.Duration{2 * testkit.Day, 11 * 365 * testkit.Day} {
			offset.Store(int64(ahead))
			require.NoError(t, s.Refresh(t.Context()))
			offset.Store(0)
			require.NoError(t, s.Refresh(t.Context()))
			testkit.Accepts(t, token, s)
			testkit.Accepts(t, testkit.Issue(t, s), s)
		}
	})
}
