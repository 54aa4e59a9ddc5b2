package fleetkey_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A rotation stays due while no token can be issued, and a Status tells its time
// by the clock of the Config.
func TestStatusOfAStaleSigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead = 30 * 24 * time.Hour
		now := func() time.Time { return time.Now().Add(ahead) }
		store := fleetkeytest.NewStore()
		s, err := fleetkey.NewSigner(by(now), store, fleetkey.Config{
			Issuer: "https://issuer.example", Algorithm: "ES256",
			Rotation: fleetkey.Rotation{Every: 48 * time.Hour, Announce: 24 * time.Hour},
		})
		require.NoError(t, err)
		defer s.Close()
		before := s.Status()
		require.NoError(t, before.Err)
		require.Equal(t, now(), before.Time)
		require.Equal(t, before.SigningSince.Add(24*time.Hour), before.RotationDue)

		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault {
			return fleetkeytest.Fault{Err: fleetkey.ErrUnavailable}
		})
		time.Sleep(50 * time.Hour)
		after := s.Status()
		require.ErrorIs(t, after.Err, fleetkey.ErrStale)
		require.Equal(t, now(), after.Time)
		require.Equal(t, before.RotationDue, after.RotationDue)
	})
}
