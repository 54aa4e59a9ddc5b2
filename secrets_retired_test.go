package fleetkey_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/leak"
)

// TestPrivateHalvesOfRetiredKeysAreDropped: a thief who reads the store finds no
// key that has retired more than a week ago, though tokens of it are still good;
// and no instance can sign with it.
func TestPrivateHalvesOfRetiredKeysAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		cfg := rotating()
		cfg.MaxTokenTTL, cfg.TokenTTL = 50*day, 50*day
		cfg.Rotation.Retain = 60 * day // longer than the private half stays
		s := start(t, store, cfg)
		retired := newDetector()
		bundle, _ := store.Content()
		retired.HideBundle(bundle)
		holds := func() bool {
			bundle, _ := store.Content()
			return retired.Find(string(bundle)) != ""
		}
		require.True(t, holds())
		first := s.SigningKey().KeyID

		time.Sleep(89*day + 12*time.Hour)
		require.Equal(t, first, s.SigningKey().KeyID)
		token := issue(t, s)
		time.Sleep(day)
		require.NotEqual(t, first, s.SigningKey().KeyID)
		require.True(t, holds(), "a machine whose clock is behind may still need it")

		time.Sleep(7 * day)
		require.False(t, holds())
		bundle, _ = store.Content()
		require.Equal(t, 1, strings.Count(string(bundle), "BEGIN PRIVATE KEY"))
		require.Empty(t, leak.Shape(strings.Split(string(bundle), "-----END PRIVATE KEY-----")[1]))
		fresh := start(t, store.Open(), cfg)
		verified, err := fresh.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, first, verified.KeyID())
		for _, k := range fresh.PublicKeys() {
			require.True(t, k.KeyID == first || k.KeyID == s.SigningKey().KeyID)
		}
	})
}
