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
	"testing/synctest"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// This file has the tests that need only one process. For processes that die, disks that
// fail and other users, see tests/crash.

func TestFileStoreConformance(t *testing.T) {
	fleetkeytest.TestKeyStore(t, func(t *testing.T) func() fleetkey.KeyStore {
		path := newPath(t)
		return func() fleetkey.KeyStore { return fleetkey.NewFileStore(path) }
	})
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "keys", "keys.pem") }

// stored returns a store that holds bundle, and the bundle's version.
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

// requireRefused checks that an error names the path and does not cause a new key to be
// created.
func requireRefused(t *testing.T, err error, path string) {
	t.Helper()
	require.Error(t, err)
	assert.ErrorContains(t, err, path)
	for _, not := range []error{fs.ErrNotExist, fleetkey.ErrConflict, fleetkey.ErrAccessDenied} {
		assert.NotErrorIs(t, err, not)
	}
}

func TestFileStore_RelativePathSurvivesChdir(t *testing.T) {
	t.Chdir(t.TempDir())
	s, v := stored(t, "keys.pem", "one")
	t.Chdir(t.TempDir())
	_, got, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, v, got)
}

func readOnly(o *fleetkey.FileOptions) { o.ReadOnly = true }

// No call on a ReadOnly store creates or changes a file.
func TestFileStore_F19_ReadOnly(t *testing.T) {
	path := newPath(t)
	s := fleetkey.NewFileStore(path, readOnly)
	require.True(t, s.ReadOnly())
	require.False(t, fleetkey.NewFileStore(path).ReadOnly())
	refuses := func(prev fleetkey.Version) {
		_, err := s.Save(t.Context(), []byte("x"), prev)
		require.ErrorIs(t, err, fleetkey.ErrReadOnly)
		requireRefused(t, err, path)
	}
	refuses("")
	refuses("x")
	require.NoDirExists(t, filepath.Dir(path))
	_, v := stored(t, path, "one")
	require.NoError(t, os.Remove(path+".lock"))
	refuses(v)
	requireContent(t, path, "one")
	require.NoFileExists(t, path+".lock")
}

// On Windows a virus scanner may have a file open that has just changed.
func TestFileStore_F20_RefusedForNow(t *testing.T) {
	refused, broken := errors.New("sharing violation"), errors.New("broken")
	for name, tc := range map[string]struct {
		first, then, want error
		until, after      time.Duration // when first stops being returned; when the call ends
		limit             time.Duration // of the context
	}{
		"accepted":             {nil, nil, nil, 0, 0, time.Hour},
		"broken":               {broken, nil, broken, time.Hour, 0, time.Hour},
		"refused for a while":  {refused, nil, nil, 1900 * time.Millisecond, 1900 * time.Millisecond, time.Hour},
		"refused, then broken": {refused, broken, broken, time.Second, time.Second, time.Hour},
		"refused for long":     {refused, nil, refused, time.Hour, 2 * time.Second, time.Hour},
		"the context ends":     {refused, nil, refused, time.Hour, 100 * time.Millisecond, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), tc.limit)
				defer cancel()
				got := fleetkey.Insist(ctx, func(err error) bool { return err == refused }, func() error {
					if time.Since(start) < tc.until {
						return tc.first
					}
					return tc.then
				})
				require.Equal(t, tc.want, got)
				require.InDelta(t, tc.after, time.Since(start), float64(50*time.Millisecond))
			})
		})
	}
}

func TestFileStore_F11_Damage(t *testing.T) {
	for name, size := range map[string]int64{"empty": 0, "too long": fleetkey.MaxBundleSize + 1, "100 MiB": 100 << 20} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.pem")
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			require.NoError(t, os.Truncate(path, size))
			s := fleetkey.NewFileStore(path)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := s.Load(t.Context())
			runtime.ReadMemStats(&after)
			requireRefused(t, err, path)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), "must not read more than a bundle")

			_, err = s.Save(t.Context(), []byte("new"), "")
			requireRefused(t, err, path)
			fi, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, size, fi.Size(), "the file must not change")
		})
	}
}

// F15, for the store: no Save undoes what an operator does to the file. A Save that fails
// changes nothing.
func TestFileStore_F15_DeletedOrReplaced(t *testing.T) {
	path := newPath(t)
	_, err := fleetkey.NewFileStore(path).Save(t.Context(), []byte("x"), "not the version")
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	require.NoDirExists(t, filepath.Dir(path), "a failed Save must not leave a directory")
	s, v := stored(t, path, "one")
	for _, bundle := range []string{"", strings.Repeat("k", fleetkey.MaxBundleSize+1)} {
		_, err = s.Save(t.Context(), []byte(bundle), v)
		requireRefused(t, err, path)
		requireContent(t, path, "one")
	}
	require.NoError(t, os.WriteFile(path, []byte("by hand"), 0o600))
	_, err = s.Save(t.Context(), []byte("two"), v)
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	requireContent(t, path, "by hand")

	_, v, err = s.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	_, err = s.Save(t.Context(), []byte("two"), v)
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	require.NoFileExists(t, path)
}

func TestFileStore_F1_StaleTemporaryFiles(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	old := time.Now().Add(-2 * time.Hour)
	touch := func(name string, at time.Time) string {
		name = filepath.Join(filepath.Dir(path), name)
		require.NoError(t, os.WriteFile(name, nil, 0o600))
		require.NoError(t, os.Chtimes(name, at, at))
		return name
	}
	stale := touch(".keys.pem.tmp-123", old)
	stay := []string{touch(".keys.pem.tmp-456", time.Now())}
	for _, name := range []string{"keys.pem.lock", ".keys.pem.tmp-", ".keys.pem.tmp-12a", ".keys.pem.tmp-123.save",
		".other.pem.tmp-123", "keys.pem.tmp-123"} {
		stay = append(stay, touch(name, old))
	}
	_, err := s.Save(t.Context(), []byte("two"), v)
	require.NoError(t, err)
	require.NoFileExists(t, stale)
	for _, name := range stay {
		require.FileExists(t, name)
	}
}

// A writer gives up when its context ends, even if the holder of the lock is stopped, and
// names the lock file. A reader does not wait.
func TestFileStore_F14_LockHeld(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	holder := flock.New(path + ".lock")
	require.NoError(t, holder.Lock())

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Save(ctx, []byte("two"), v)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, path+".lock")
	requireContent(t, path, "one")
	_, _, err = s.Load(t.Context())
	require.NoError(t, err)

	require.NoError(t, holder.Unlock())
	_, err = s.Save(t.Context(), []byte("two"), v)
	require.NoError(t, err)
}
