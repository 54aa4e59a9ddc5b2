package lifecycle

import (
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

func adopting(old fleetkey.KeyStore) fleetkey.Config {
	cfg := testkit.Config()
	cfg.Adopt = old
	return cfg
}

// K1, K2: 64 servers, each with keys in a file, move to one store at once, in which they may
// only create (80 ms a call). One CreateSecret is the only write; each still accepts its
// own old tokens, restarts included, and all sign with one key.
func TestK1_K2_AllAdoptAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 64
		shared := fleetkeytest.NewStore()
		slow := func() *fleetkeytest.Store {
			view := shared.Open()
			view.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Delay: 80 * time.Millisecond} })
			return view
		}
		files, tokens, fleet := make([]*fleetkeytest.Store, n), make([]string, n), make([]*fleetkey.Signer, n)
		for i := range n {
			files[i] = fleetkeytest.NewStore()
			s := testkit.Start(t, files[i], testkit.Config())
			tokens[i] = testkit.Issue(t, s)
			require.NoError(t, s.Close())
		}
		var starting sync.WaitGroup
		for i := range n {
			starting.Go(func() { fleet[i] = testkit.Start(t, slow(), adopting(files[i])) })
		}
		starting.Wait()
		_, created := shared.Content()
		for i, s := range fleet {
			require.NoError(t, s.Refresh(t.Context()))
			testkit.Accepts(t, tokens[i], s)
			testkit.Accepts(t, testkit.Issue(t, s), fleet...)
			require.Equal(t, testkit.PublishedKeyIDs(t, fleet[0]), testkit.PublishedKeyIDs(t, s))
			require.Len(t, testkit.PublishedKeyIDs(t, s), 1)
		}
		time.Sleep(30 * time.Minute)
		again := testkit.Start(t, slow(), adopting(files[1]))
		testkit.Accepts(t, tokens[1], again)
		_, version := shared.Content()
		require.Equal(t, created, version, "nothing was merged into the store")
		time.Sleep(40 * time.Minute)
		for i, s := range fleet {
			if s.SigningKey().KeyID != testkit.KeyID(tokens[i]) {
				testkit.Refuses(t, fleetkey.ErrUnknownKey, tokens[i], s)
			}
		}
	})
}

// An adopted key verifies what was issued before the start, and nothing later; a restart does
// not renew that.
func TestAdoptedKeysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
		old := testkit.Start(t, file, testkit.Config())
		kid, before := old.SigningKey().KeyID, testkit.Issue(t, old)
		testkit.Start(t, shared, testkit.Config())
		time.Sleep(time.Minute)
		s := testkit.Start(t, shared.Open(), adopting(file))
		time.Sleep(time.Minute)
		after := testkit.Issue(t, old)
		testkit.Accepts(t, before, s)
		testkit.Refuses(t, fleetkey.ErrUnknownKey, after, s)
		_, err := jwt.Parse(before, s.Keyfunc)
		require.NoError(t, err)
		_, err = jwt.Parse(after, s.Keyfunc)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
		require.NotContains(t, testkit.PublishedKeyIDs(t, s), kid, "others would not know it")
		time.Sleep(61 * time.Minute)
		s = testkit.Start(t, shared.Open(), adopting(file))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, signedBy(t, file, kid), s)
	})
}

// The first server's keys become the fleet's, and what was revoked stays so (K4).
func TestAdoptAfterARevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
		require.NoError(t, testkit.Start(t, file, testkit.Config()).Close())
		bundle, _ := file.Content()
		s := testkit.Start(t, shared, adopting(file))
		noted, _ := file.Content()
		require.Contains(t, string(noted), "PRIVATE KEY", "nothing is lost")
		require.Contains(t, string(noted), "Adopted by the in-memory store at 2000-01-01T")
		victim := s.SigningKey().KeyID
		stolen := signedBy(t, file, victim)
		require.NoError(t, s.Revoke(t.Context(), victim))
		copied := fleetkeytest.NewStore() // the same key in each machine's image
		copied.Set(bundle)
		again := testkit.Start(t, shared.Open(), adopting(copied))
		require.NoError(t, s.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s, again)
	})
}

// P2: the first server knows of the revocations that it has brought along.
func TestAdoptedRevocationsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
		old := testkit.Start(t, file, testkit.Config())
		before, _ := file.Content()
		victim := old.SigningKey().KeyID
		stolen := signedBy(t, file, victim)
		require.NoError(t, old.Revoke(t.Context(), victim))
		s := testkit.Start(t, shared, adopting(file))
		shared.Set(before) // with the stolen key
		_ = s.Refresh(t.Context())
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
	})
}

func TestAdoptRefusesGarbage(t *testing.T) {
	file, shared := fleetkeytest.NewStore(), fleetkeytest.NewStore()
	file.Set([]byte("garbage"))
	_, err := fleetkey.NewSigner(t.Context(), shared, adopting(file))
	require.ErrorContains(t, err, "adopt from")
	require.Zero(t, shared.Saves())
}

// Config.Adopt that names the Signer's own store changes no key.
func TestAdoptFromTheSameStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.pem")
	first := testkit.Start(t, fleetkey.NewFileStore(path), testkit.Config())
	s := testkit.Start(t, fleetkey.NewFileStore(path), adopting(fleetkey.NewFileStore(path)))
	testkit.Accepts(t, testkit.Issue(t, s), first, s)
	require.Equal(t, first.SigningKey().KeyID, s.SigningKey().KeyID)
}

type named struct {
	*fleetkeytest.Store
	name string
}

func (n named) String() string { return n.name }

// The note is about one store: a trial in one place must not stop the move to the real one.
// A path or a secret's name may hold five dashes and line breaks.
func TestAdoptIntoASecondStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fleetkeytest.NewStore()
		old := testkit.Start(t, file, testkit.Config())
		token := testkit.Issue(t, old)
		testkit.Start(t, named{fleetkeytest.NewStore(), "file /srv/a-----b\n-----BEGIN X-----/keys.pem"}, adopting(file))
		testkit.Start(t, file.Open(), testkit.Config()) // the old store can still be read
		s := testkit.Start(t, named{fleetkeytest.NewStore(), "secret production"}, adopting(file))
		testkit.Accepts(t, token, s)
		require.Equal(t, old.SigningKey().KeyID, s.SigningKey().KeyID)
	})
}
