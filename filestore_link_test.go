//go:build unix

package fleetkey_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// Row F8: symbolic links.

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func link(t *testing.T, target, name string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
	require.NoError(t, os.Symlink(target, name))
}

func TestFileStore_F8_LinksAreFollowed(t *testing.T) {
	for name, setUp := range map[string]func(t *testing.T, dir string) (linked string){
		"at the path": func(t *testing.T, dir string) string {
			link(t, filepath.Join(dir, "real", "keys.pem"), filepath.Join(dir, "keys.pem"))
			return filepath.Join(dir, "keys.pem")
		},
		"relative": func(t *testing.T, dir string) string {
			link(t, "../real/keys.pem", filepath.Join(dir, "other", "keys.pem"))
			return filepath.Join(dir, "other", "keys.pem")
		},
		"to a link": func(t *testing.T, dir string) string {
			link(t, "real", filepath.Join(dir, "data"))
			link(t, "data/keys.pem", filepath.Join(dir, "keys.pem"))
			return filepath.Join(dir, "keys.pem")
		},
		"in the parent": func(t *testing.T, dir string) string {
			link(t, "real", filepath.Join(dir, "data"))
			return filepath.Join(dir, "data", "keys.pem")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "real", "keys.pem")
			_, v := stored(t, target, "one")
			require.NoError(t, os.Remove(target+".lock"))
			path := setUp(t, dir)

			linked := fleetkey.NewFileStore(path)
			_, got, err := linked.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, v, got)
			_, err = linked.Save(t.Context(), []byte("two"), v)
			require.NoError(t, err)
			requireContent(t, target, "two")
			real, err := filepath.EvalSymlinks(path)
			require.NoError(t, err)
			want, err := filepath.EvalSymlinks(target)
			require.NoError(t, err)
			require.Equal(t, want, real, "the link was replaced")
			require.FileExists(t, target+".lock", "both paths must share one lock")
		})
	}
}

// A first Save through a linked directory lands in the directory it leads to.
func TestFileStore_F8_CreateBelowLink(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	link(t, "real", filepath.Join(dir, "data"))
	stored(t, filepath.Join(dir, "data", "new", "keys.pem"), "one")
	requireContent(t, filepath.Join(dir, "real", "new", "keys.pem"), "one")
}

func TestFileStore_F8_DanglingIsNotAbsent(t *testing.T) {
	for name, setUp := range map[string]func(t *testing.T, dir string) (path, guilty string){
		"at the path": func(t *testing.T, dir string) (string, string) {
			link(t, "missing.pem", filepath.Join(dir, "keys.pem"))
			return filepath.Join(dir, "keys.pem"), filepath.Join(dir, "keys.pem")
		},
		"in the parent": func(t *testing.T, dir string) (string, string) {
			link(t, "not-mounted", filepath.Join(dir, "data"))
			return filepath.Join(dir, "data", "a", "keys.pem"), filepath.Join(dir, "data")
		},
		"to a link": func(t *testing.T, dir string) (string, string) {
			link(t, "missing", filepath.Join(dir, "data"))
			link(t, "data/keys.pem", filepath.Join(dir, "keys.pem"))
			return filepath.Join(dir, "keys.pem"), filepath.Join(dir, "keys.pem")
		},
		"loop": func(t *testing.T, dir string) (string, string) {
			link(t, "b.pem", filepath.Join(dir, "keys.pem"))
			link(t, "keys.pem", filepath.Join(dir, "b.pem"))
			return filepath.Join(dir, "keys.pem"), filepath.Join(dir, "keys.pem")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, guilty := setUp(t, dir)
			before, err := os.ReadDir(dir)
			require.NoError(t, err)
			s := fleetkey.NewFileStore(path)
			_, _, err = s.Load(t.Context())
			requireRefused(t, err, guilty)
			_, err = s.Save(t.Context(), []byte("new"), "")
			requireRefused(t, err, guilty)
			after, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Equal(t, len(before), len(after), "nothing may be made")
		})
	}
}

// A link in the place of the lock file could make root create or lock a file
// elsewhere.
func TestFileStore_F8_LockIsALink(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.Remove(path+".lock"))
	for _, exists := range []bool{false, true} {
		if exists {
			require.NoError(t, os.WriteFile(victim, nil, 0o600))
		} else {
			link(t, victim, path+".lock")
		}
		_, err := s.Save(t.Context(), []byte("two"), v)
		requireRefused(t, err, path+".lock")
		requireContent(t, path, "one")
		_, err = os.Stat(victim)
		require.Equal(t, exists, err == nil)
	}
}

func TestFileStore_F8_LinkMovedBetweenLoadAndSave(t *testing.T) {
	dir := t.TempDir()
	a, b, path := filepath.Join(dir, "a.pem"), filepath.Join(dir, "b.pem"), filepath.Join(dir, "keys.pem")
	_, va := stored(t, a, "a")
	stored(t, b, "b")
	link(t, "a.pem", path)
	s := fleetkey.NewFileStore(path)
	require.NoError(t, os.Remove(path))
	link(t, "b.pem", path)
	_, err := s.Save(t.Context(), []byte("new"), va)
	require.ErrorIs(t, err, fleetkey.ErrConflict)
	requireContent(t, a, "a")
	requireContent(t, b, "b")
}

// The link is moved at each point at which Save asks its context, up to the
// commit. A Save that succeeds is what the link now leads to.
func TestFileStore_F8_LinkMovedDuringSave(t *testing.T) {
	conflicts := 0
	for n := 1; n <= 3; n++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "keys.pem")
		_, v := stored(t, filepath.Join(dir, "a.pem"), "the same in both")
		stored(t, filepath.Join(dir, "b.pem"), "the same in both")
		link(t, "a.pem", path)
		link(t, "b.pem", filepath.Join(dir, "next"))
		ctx := &hookContext{Context: t.Context(), n: n, hook: func() {
			require.NoError(t, os.Rename(filepath.Join(dir, "next"), path))
		}}
		_, err := fleetkey.NewFileStore(path).Save(ctx, []byte("two"), v)
		require.NoFileExists(t, filepath.Join(dir, "next"), "the hook did not run")
		requireContent(t, filepath.Join(dir, "a.pem"), "the same in both")
		if err == nil {
			requireContent(t, path, "two")
		} else {
			require.ErrorIs(t, err, fleetkey.ErrConflict)
			conflicts++
		}
	}
	require.Positive(t, conflicts)
}

// hookContext calls hook the nth time that it is asked for its error.
type hookContext struct {
	context.Context
	n    int
	hook func()
}

func (c *hookContext) Err() error {
	if c.n--; c.n == 0 {
		c.hook()
	}
	return c.Context.Err()
}

// A volume that is updated by moving a link, as Kubernetes does, and whose old
// target goes at once: a reader may meet the gap but never calls it absence.
func TestFileStore_F8_LinkMovedDuringLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.pem")
	link(t, "data/keys.pem", path)
	move := func(i int) {
		next := filepath.Join(dir, fmt.Sprint("v", i))
		require.NoError(t, os.Mkdir(next, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(next, "keys.pem"), []byte("one"), 0o600))
		link(t, fmt.Sprint("v", i), filepath.Join(dir, "next"))
		require.NoError(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "data")))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, fmt.Sprint("v", i-1))))
	}
	move(0)
	done, loads := make(chan struct{}), make(chan int)
	go func() {
		good := 0
		for {
			_, _, err := fleetkey.NewFileStore(path).Load(t.Context())
			if err == nil {
				good++
			} else {
				assert.NotErrorIs(t, err, os.ErrNotExist)
			}
			select {
			case <-done:
				loads <- good
				return
			default:
			}
		}
	}()
	for i := range 200 {
		move(i + 1)
	}
	close(done)
	require.Positive(t, <-loads)
}
