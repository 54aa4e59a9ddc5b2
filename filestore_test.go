package fleetkey_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// The rows F1 to F16 of the fault matrix are spread over
//   - filestore_test.go: what one process can do anywhere,
//   - filestore_unix_test.go: modes, owners, links, special files, signals,
//   - filestore_race_test.go: many real processes at once,
//   - filestore_fault_test.go: every system call killed or failed in turn.

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "keys", "keys.pem") }

// stored returns a store that holds bundle, and its version.
func stored(t *testing.T, path, bundle string) (*fleetkey.FileStore, fleetkey.Version) {
	t.Helper()
	s := fleetkey.NewFileStore(path)
	v, err := s.Save(t.Context(), []byte(bundle), "")
	require.NoError(t, err)
	return s, v
}

func requireContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// temps lists the temporary files that a Save of path left behind.
func temps(t *testing.T, path string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*"))
	require.NoError(t, err)
	return names
}

func TestFileStore_CompareAndSwap(t *testing.T) {
	path := newPath(t)
	s := fleetkey.NewFileStore(path)
	_, v, err := s.Load(t.Context())
	require.ErrorIs(t, err, fleetkey.ErrNotExist)
	require.ErrorContains(t, err, path)
	require.Empty(t, v)

	_, err = s.Save(t.Context(), []byte("x"), "not the version")
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	require.NoDirExists(t, filepath.Dir(path), "a refused Save must not leave a directory")

	v1, err := s.Save(t.Context(), []byte("one"), "")
	require.NoError(t, err)
	_, err = s.Save(t.Context(), []byte("other"), "")
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	v2, err := s.Save(t.Context(), []byte("two"), v1)
	require.NoError(t, err)
	require.NotEqual(t, v1, v2)
	_, err = s.Save(t.Context(), []byte("three"), v1)
	require.ErrorIs(t, err, fleetkey.ErrConflict)

	bundle, v, err := fleetkey.NewFileStore(path).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "two", string(bundle))
	require.Equal(t, v2, v)
	require.Empty(t, temps(t, path))
}

func TestFileStore_String(t *testing.T) {
	path := newPath(t)
	require.Equal(t, "file "+path, fleetkey.NewFileStore(path).String())
}

func TestFileStore_RelativePathSurvivesChdir(t *testing.T) {
	t.Chdir(t.TempDir())
	s, v := stored(t, "keys.pem", "one")
	t.Chdir(t.TempDir())
	_, got, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, v, got)
}

func TestFileStore_BundleSizes(t *testing.T) {
	path := newPath(t)
	big := strings.Repeat("k", fleetkey.MaxBundleSize)
	s, v := stored(t, path, big)
	got, _, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, big, string(got))
	for _, bundle := range []string{"", big + "k"} {
		_, err := s.Save(t.Context(), []byte(bundle), v)
		require.ErrorContains(t, err, path)
		require.NotErrorIs(t, err, fleetkey.ErrConflict)
		requireContent(t, path, big)
	}
}

// An ended context stops both methods, and no Save is half done by it.
func TestFileStore_Context(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	for _, want := range []error{context.Canceled, context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(t.Context())
		if want == context.DeadlineExceeded {
			ctx, cancel = context.WithDeadline(t.Context(), time.Unix(0, 0))
		}
		cancel()
		_, _, err := s.Load(ctx)
		require.ErrorIs(t, err, want)
		_, err = s.Save(ctx, []byte("two"), v)
		require.ErrorIs(t, err, want)
		requireContent(t, path, "one")
	}
}

// A context that ends while the new file is being written stops the Save
// before the rename.
func TestFileStore_ContextEndsBeforeCommit(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	for after := 1; ; after++ {
		_, err := s.Save(&dyingContext{Context: t.Context(), lives: after}, []byte("two"), v)
		if err == nil {
			require.Greater(t, after, 3, "the context is looked at before the lock, at it, and before the rename")
			requireContent(t, path, "two")
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		requireContent(t, path, "one")
		require.Empty(t, temps(t, path))
	}
}

// dyingContext is cancelled once it has been asked lives times.
type dyingContext struct {
	context.Context
	lives int
}

func (c *dyingContext) Err() error {
	if c.lives--; c.lives < 0 {
		return context.Canceled
	}
	return nil
}

func TestFileStore_F11_Damage(t *testing.T) {
	for name, content := range map[string]string{
		"empty":    "",
		"too long": strings.Repeat("k", fleetkey.MaxBundleSize+1),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.pem")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			s := fleetkey.NewFileStore(path)
			_, v, err := s.Load(t.Context())
			requireRefused(t, err, path)
			require.Empty(t, v)
			_, err = s.Save(t.Context(), []byte("new"), "")
			requireRefused(t, err, path)
			requireContent(t, path, content)
		})
	}
	t.Run("100 MiB are not read", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.pem")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Truncate(path, 100<<20))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := fleetkey.NewFileStore(path).Load(t.Context())
		runtime.ReadMemStats(&after)
		requireRefused(t, err, path)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	})
}

// requireRefused: an error that names the path and sends nobody to create a
// new key.
func requireRefused(t *testing.T, err error, path string) {
	t.Helper()
	require.Error(t, err)
	assert.ErrorContains(t, err, path)
	for _, not := range []error{fs.ErrNotExist, fleetkey.ErrConflict, fleetkey.ErrAccessDenied} {
		assert.False(t, errors.Is(err, not), "%v must not match %q", err, not)
	}
}

// F15, the store's half: what an operator does to the file shows at the next
// Load and is not undone by a Save.
func TestFileStore_F15_DeletedOrReplaced(t *testing.T) {
	path := newPath(t)
	s, v1 := stored(t, path, "one")
	require.NoError(t, os.WriteFile(path, []byte("by hand"), 0o600))
	_, err := s.Save(t.Context(), []byte("two"), v1)
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	bundle, v2, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "by hand", string(bundle))

	require.NoError(t, os.Remove(path))
	_, err = s.Save(t.Context(), []byte("two"), v2)
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	require.NoFileExists(t, path)
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, fleetkey.ErrNotExist)
}

func TestFileStore_StaleTemporaryFiles(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	dir, old := filepath.Dir(path), time.Now().Add(-2*time.Hour)
	const goes, stays = true, false
	for name, fate := range map[string]bool{
		".keys.pem.tmp-123":      goes,
		".keys.pem.tmp-":         stays,
		".keys.pem.tmp-12a":      stays,
		".other.pem.tmp-123":     stays,
		"keys.pem.tmp-123":       stays,
		".keys.pem.tmp-123.save": stays,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), old, old))
		defer func() {
			_, err := os.Stat(filepath.Join(dir, name))
			assert.Equal(t, fate == goes, errors.Is(err, fs.ErrNotExist), name)
		}()
	}
	young := filepath.Join(dir, ".keys.pem.tmp-456")
	require.NoError(t, os.WriteFile(young, []byte("x"), 0o600))

	_, err := s.Save(t.Context(), []byte("refused"), "")
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	_, err = s.Save(t.Context(), []byte("two"), v)
	require.NoError(t, err)
	require.FileExists(t, young)
	require.FileExists(t, path+".lock")
}

// A writer that waits gives up at its deadline and names the lock file; a
// reader does not wait.
func TestFileStore_LockHeld(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	holder := flock.New(path + ".lock")
	require.NoError(t, holder.Lock())

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Save(ctx, []byte("two"), v)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, path+".lock")
	_, _, err = s.Load(t.Context())
	require.NoError(t, err)

	require.NoError(t, holder.Unlock())
	_, err = s.Save(t.Context(), []byte("two"), v)
	require.NoError(t, err)
}
