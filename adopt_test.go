package fleetkey_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A server that had its own key in a file moves it to the shared store.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := []*fleetkeytest.Store{fleetkeytest.NewStore(), fleetkeytest.NewStore()}
		var kids, tokens []string
		for _, file := range files {
			s := start(t, file, config())
			kids, tokens = append(kids, s.SigningKey().KeyID), append(tokens, issue(t, s))
			require.NoError(t, s.Close())
		}
		shared := fleetkeytest.NewStore()
		var fleet []*fleetkey.Signer
		for _, file := range files {
			cfg := config()
			cfg.Adopt = file
			fleet = append(fleet, start(t, shared.Open(), cfg))
		}
		for _, s := range fleet {
			require.NoError(t, s.Refresh(t.Context()))
			require.Equal(t, kids[0], s.SigningKey().KeyID, "the first one's key is the fleet's, under the same kid")
			require.ElementsMatch(t, kids, jwks(t, s))
		}
		for _, token := range tokens {
			accepts(t, token, fleet...)
		}
		_, version := shared.Content()
		for _, file := range files {
			bundle, _ := file.Content()
			require.Contains(t, string(bundle), "PRIVATE KEY", "nothing is lost")
			require.Contains(t, string(bundle), "Moved: these keys were adopted by the in-memory store")
			cfg := config()
			cfg.Adopt = file
			start(t, shared.Open(), cfg)
		}
		_, again := shared.Content()
		require.Equal(t, version, again, "the next start finds nothing to do")
	})
}

func TestAdoptWithoutRightsToWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
		alone := start(t, file, config())
		token := issue(t, alone)
		start(t, shared, config())
		readOnly := shared.Open()
		readOnly.SetHook(fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		cfg := config()
		cfg.Adopt = file
		s := start(t, readOnly, cfg)
		accepts(t, token, s)
		accepts(t, issue(t, s), s)
		bundle, _ := file.Content()
		require.Contains(t, string(bundle), "PRIVATE KEY", "nothing is lost")
	})
}

func TestAdoptRefusesGarbage(t *testing.T) {
	file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
	file.Set([]byte("garbage"))
	cfg := config()
	cfg.Adopt = file
	_, err := fleetkey.NewSigner(t.Context(), shared, cfg)
	require.ErrorContains(t, err, "adopt from")
	require.Zero(t, shared.Saves())
}

// Config.Adopt that leads to the Signer's own store empties it of private keys.
func TestAdoptFromTheSameStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.pem")
	first, err := fleetkey.NewSigner(t.Context(), fleetkey.NewFileStore(path), config())
	require.NoError(t, err)
	require.NoError(t, first.Close())

	cfg := config()
	cfg.Adopt = fleetkey.NewFileStore(path)
	s, err := fleetkey.NewSigner(t.Context(), fleetkey.NewFileStore(path), cfg)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	bundle, _, err := fleetkey.NewFileStore(path).Load(t.Context())
	require.NoError(t, err)
	require.Contains(t, string(bundle), "PRIVATE KEY", "the fleet's only private key is destroyed")
}

// A revoked key comes back to the whole fleet with an instance that still has
// it in the store that Config.Adopt names.
func TestAdoptBringsARevokedKeyBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fleetkeytest.NewStore()
		require.NoError(t, start(t, file, config()).Close())
		copied := fleetkeytest.NewStore() // the same key in each machine's image
		bundle, _ := file.Content()
		copied.Set(bundle)

		shared := fleetkeytest.NewStore()
		cfg := config()
		cfg.Adopt = file
		s := start(t, shared, cfg)
		victim := s.SigningKey().KeyID
		stolen := signedBy(t, shared, victim)
		require.NoError(t, s.Revoke(t.Context(), victim))
		refuses(t, fleetkey.ErrUnknownKey, stolen, s)

		cfg.Adopt = copied
		start(t, shared.Open(), cfg)
		require.NoError(t, s.Refresh(t.Context()))
		refuses(t, fleetkey.ErrUnknownKey, stolen, s)
	})
}

// The old server had announced a key when it moved.
func TestAdoptWithAnAnnouncedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
		first := start(t, shared, config())
		old := start(t, file, config())
		token := issue(t, old)
		require.NoError(t, old.Rotate(t.Context()))
		require.NoError(t, old.Close())
		cfg := config()
		cfg.Adopt, cfg.Rotation.Retain = file, 2*time.Hour
		start(t, shared.Open(), cfg)
		require.NoError(t, first.Refresh(t.Context()))
		accepts(t, token, first)
	})
}

type named struct {
	*fleetkeytest.Store
	name string
}

func (n named) String() string { return n.name }

// A path or a secret's name may hold five dashes.
func TestMovedNoteWithDashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), named{fleetkeytest.NewStore(), "file /srv/a-----b/keys.pem"}
		start(t, file, config())
		cfg := config()
		cfg.Adopt = file
		start(t, shared, cfg)
		start(t, file.Open(), config()) // the old store can still be read
		start(t, named{shared.Open(), shared.name}, cfg)
	})
}

// A trial in one place must not stop the move to the real one.
func TestAdoptIntoASecondStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fleetkeytest.NewStore()
		old := start(t, file, config())
		token := issue(t, old)
		cfg := config()
		cfg.Adopt = file
		start(t, named{fleetkeytest.NewStore(), "secret test"}, cfg)
		s := start(t, named{fleetkeytest.NewStore(), "secret production"}, cfg)
		accepts(t, token, s)
	})
}
