package lifecycle

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A server that had its own key in a file moves it to the shared store.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := []*fleetkeytest.Store{fleetkeytest.NewStore(), fleetkeytest.NewStore()}
		var kids, tokens []string
		for _, file := range files {
			s := testkit.Start(t, file, testkit.Config())
			kids, tokens = append(kids, s.SigningKey().KeyID), append(tokens, testkit.Issue(t, s))
			require.NoError(t, s.Close())
		}
		shared := fleetkeytest.NewStore()
		var fleet []*fleetkey.Signer
		for _, file := range files {
			cfg := testkit.Config()
			cfg.Adopt = file
			fleet = append(fleet, testkit.Start(t, shared.Open(), cfg))
		}
		for _, s := range fleet {
			require.NoError(t, s.Refresh(t.Context()))
			require.Equal(t, kids[0], s.SigningKey().KeyID, "the first one's key is the fleet's, under the same kid")
			require.ElementsMatch(t, kids, testkit.PublishedKeyIDs(t, s))
		}
		for _, token := range tokens {
			testkit.Accepts(t, token, fleet...)
		}
		_, version := shared.Content()
		for _, file := range files {
			bundle, _ := file.Content()
			require.Contains(t, string(bundle), "PRIVATE KEY", "nothing is lost")
			require.Contains(t, string(bundle), "Moved: these keys were adopted by the in-memory store")
			cfg := testkit.Config()
			cfg.Adopt = file
			testkit.Start(t, shared.Open(), cfg)
		}
		_, again := shared.Content()
		require.Equal(t, version, again, "the next start finds nothing to do")
	})
}

func TestAdoptWithoutRightsToWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
		alone := testkit.Start(t, file, testkit.Config())
		token := testkit.Issue(t, alone)
		testkit.Start(t, shared, testkit.Config())
		readOnly := shared.Open()
		readOnly.SetHook(testkit.Fail(fleetkey.ErrAccessDenied, fleetkeytest.OpSave))
		cfg := testkit.Config()
		cfg.Adopt = file
		s := testkit.Start(t, readOnly, cfg)
		testkit.Accepts(t, token, s)
		testkit.Accepts(t, testkit.Issue(t, s), s)
		bundle, _ := file.Content()
		require.Contains(t, string(bundle), "PRIVATE KEY", "nothing is lost")
	})
}

func TestAdoptRefusesGarbage(t *testing.T) {
	file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
	file.Set([]byte("garbage"))
	cfg := testkit.Config()
	cfg.Adopt = file
	_, err := fleetkey.NewSigner(t.Context(), shared, cfg)
	require.ErrorContains(t, err, "adopt from")
	require.Zero(t, shared.Saves())
}

// Config.Adopt that leads to the Signer's own store empties it of private keys.
func TestAdoptFromTheSameStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.pem")
	first, err := fleetkey.NewSigner(t.Context(), fleetkey.NewFileStore(path), testkit.Config())
	require.NoError(t, err)
	require.NoError(t, first.Close())

	cfg := testkit.Config()
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
		require.NoError(t, testkit.Start(t, file, testkit.Config()).Close())
		copied := fleetkeytest.NewStore() // the same key in each machine's image
		bundle, _ := file.Content()
		copied.Set(bundle)

		shared := fleetkeytest.NewStore()
		cfg := testkit.Config()
		cfg.Adopt = file
		s := testkit.Start(t, shared, cfg)
		victim := s.SigningKey().KeyID
		stolen := signedBy(t, shared, victim)
		require.NoError(t, s.Revoke(t.Context(), victim))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)

		cfg.Adopt = copied
		testkit.Start(t, shared.Open(), cfg)
		require.NoError(t, s.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
	})
}

// The old server had announced a key when it moved.
func TestAdoptWithAnAnnouncedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
		first := testkit.Start(t, shared, testkit.Config())
		old := testkit.Start(t, file, testkit.Config())
		token := testkit.Issue(t, old)
		require.NoError(t, old.Rotate(t.Context()))
		require.NoError(t, old.Close())
		cfg := testkit.Config()
		cfg.Adopt, cfg.Rotation.Retain = file, 2*time.Hour
		testkit.Start(t, shared.Open(), cfg)
		require.NoError(t, first.Refresh(t.Context()))
		testkit.Accepts(t, token, first)
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
		testkit.Start(t, file, testkit.Config())
		cfg := testkit.Config()
		cfg.Adopt = file
		testkit.Start(t, shared, cfg)
		testkit.Start(t, file.Open(), testkit.Config()) // the old store can still be read
		testkit.Start(t, named{shared.Open(), shared.name}, cfg)
	})
}

// A trial in one place must not stop the move to the real one.
func TestAdoptIntoASecondStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fleetkeytest.NewStore()
		old := testkit.Start(t, file, testkit.Config())
		token := testkit.Issue(t, old)
		cfg := testkit.Config()
		cfg.Adopt = file
		testkit.Start(t, named{fleetkeytest.NewStore(), "secret test"}, cfg)
		s := testkit.Start(t, named{fleetkeytest.NewStore(), "secret production"}, cfg)
		testkit.Accepts(t, token, s)
	})
}
