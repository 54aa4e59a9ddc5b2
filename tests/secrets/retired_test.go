package secrets

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestPrivateHalvesOfRetiredKeysAreDropped: a week after a key has retired, its private
// half is in the store no more, although its tokens are still good. A machine whose
// clock is behind may need it until then.
func TestPrivateHalvesOfRetiredKeysAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, cfg := fleetkeytest.NewStore(), testkit.Rotating()
		cfg.MaxTokenTTL, cfg.TokenTTL = 50*testkit.Day, 50*testkit.Day
		cfg.Rotation.Retain = 60 * testkit.Day // longer than the private half stays
		s := testkit.Start(t, store, cfg)
		retired := NewDetector()
		bundle, _ := store.Content()
		retired.HideBundle(bundle)
		first := s.SigningKey().KeyID

		time.Sleep(89*testkit.Day + 12*time.Hour)
		token := testkit.Issue(t, s)
		time.Sleep(testkit.Day)
		require.NotEqual(t, first, s.SigningKey().KeyID)
		bundle, _ = store.Content()
		require.Equal(t, 2, strings.Count(string(bundle), "BEGIN PRIVATE KEY"))

		time.Sleep(7 * testkit.Day)
		bundle, _ = store.Content()
		keys := strings.Split(string(bundle), "BEGIN PRIVATE KEY")
		require.Len(t, keys, 2)
		require.Contains(t, retired.Find("-----BEGIN PRIVATE KEY"+keys[1]), "looks like", "the key that signs, and no other")
		_, rest, _ := strings.Cut(keys[1], "END PRIVATE KEY")
		require.Empty(t, retired.Find(rest))
		fresh := testkit.Start(t, store.Open(), cfg)
		verified, err := fresh.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, first, verified.KeyID())
	})
}
