package lifecycle

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A mounted store is one that others fill.
type mounted struct{ *fleetkeytest.Store }

func (mounted) ReadOnly() bool { return true }

// P6: rotation is accepted on a store that others fill. The instance follows the others,
// stops signing when it cannot see them any more, and never writes.
func TestReadOnlyFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		writer := testkit.Start(t, store, testkit.Rotating())
		mount := mounted{store.Open()}
		reader := testkit.Start(t, mount, testkit.Rotating())
		require.True(t, reader.Status().ReadOnly)
		require.False(t, writer.Status().ReadOnly)
		for range 30 {
			time.Sleep(10 * testkit.Day)
			testkit.Accepts(t, testkit.Issue(t, reader), writer, reader)
			require.Empty(t, reader.Status().Warnings())
		}
		saves := store.Saves()
		require.Positive(t, saves)

		require.NoError(t, writer.Close()) // nobody rotates any more
		time.Sleep(100 * testkit.Day)
		require.Equal(t, saves, store.Saves())
		status := reader.Status()
		require.NoError(t, status.RotationErr)
		require.Len(t, status.Warnings(), 1)
		require.Contains(t, status.Warnings()[0], "a rotation is overdue since ")
		require.Contains(t, status.Warnings()[0], "others have to do it")
		testkit.Accepts(t, testkit.Issue(t, reader), reader)

		mount.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
		time.Sleep(3 * testkit.Day)
		_, err := reader.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrStale)
	})
}

func TestReadOnlyRefuses(t *testing.T) {
	store := fleetkeytest.NewStore()
	testkit.Start(t, store, testkit.Config())
	before, version := store.Content()
	reader := testkit.Start(t, mounted{store.Open()}, testkit.Rotating())
	for name, err := range map[string]error{
		"rotate":     reader.Rotate(t.Context()),
		"revoke":     reader.Revoke(t.Context(), reader.SigningKey().KeyID),
		"revoke all": reader.RevokeAll(t.Context()),
	} {
		require.ErrorIs(t, err, fleetkey.ErrReadOnly, name)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, reader.Status().Store)
	}
	after, same := store.Content()
	require.Equal(t, before, after)
	require.Equal(t, version, same)
	testkit.Accepts(t, testkit.Issue(t, reader), reader)
}

// Nobody else can fill a store that is mounted read-only.
func TestReadOnlyIsAbsent(t *testing.T) {
	old := fleetkeytest.NewStore()
	testkit.Start(t, old, testkit.Config())
	saves := old.Saves()
	for name, adopt := range map[string]fleetkey.KeyStore{"alone": nil, "with keys to adopt": old} {
		store, cfg := fleetkeytest.NewStore(), testkit.Rotating()
		cfg.Adopt = adopt
		_, err := fleetkey.NewSigner(t.Context(), mounted{store}, cfg)
		require.ErrorIs(t, err, fleetkey.ErrNotExist, name)
		require.ErrorIs(t, err, fleetkey.ErrReadOnly, name)
		require.ErrorContains(t, err, "fleetkey init", name)
		require.Zero(t, store.Saves())
		require.Equal(t, saves, old.Saves())

		store.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpLoad))
		_, err = fleetkey.NewSigner(t.Context(), mounted{store}, cfg)
		require.ErrorIs(t, err, fleetkey.ErrAccessDenied, name)
		require.Zero(t, store.Saves())
	}
}

// Keys are adopted from such a store as well. It gets no note, and nobody is warned of that.
func TestReadOnlyIsAdopted(t *testing.T) {
	path, cfg := filepath.Join(t.TempDir(), "keys.pem"), testkit.Config()
	token := testkit.Issue(t, testkit.Start(t, fleetkey.NewFileStore(path), cfg))
	var log testkit.LogBuffer
	cfg.Adopt = fleetkey.NewFileStore(path, func(o *fleetkey.FileOptions) { o.ReadOnly = true })
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	testkit.Accepts(t, token, testkit.Start(t, fleetkeytest.NewStore(), cfg))
	require.Contains(t, log.String(), "adopted the signing keys")
	require.NotContains(t, log.String(), "WARN")
}

// A revocation that the store has lost is honored, but others have to write it back.
func TestReadOnlyKeepsRevocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		writer := testkit.Start(t, store, testkit.Config())
		before, _ := store.Content()
		stolen := testkit.Issue(t, writer)
		require.NoError(t, writer.Revoke(t.Context(), writer.SigningKey().KeyID))
		require.NoError(t, writer.Close())
		reader := testkit.Start(t, mounted{store.Open()}, testkit.Rotating())
		store.Set(before)
		saves := store.Saves()
		time.Sleep(testkit.Day)
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, reader)
		require.Equal(t, saves, store.Saves())
		require.Equal(t, 1, reader.Status().LostRevocations)
		require.Contains(t, strings.Join(reader.Status().Warnings(), "\n"), "others have to do it")
	})
}
