//go:build unix

package fleetkey_test

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// This file tests modes, owners, special files and symbolic links.

// Anything but a regular file is rejected before it is opened, both as keys and as settings.
// Opening a FIFO would block until another process opens its other end.
func TestFileStore_F6_F21_NotAFile(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"socket": func(path string) error {
			l, err := net.Listen("unix", filepath.Base(path)) // relative, since a socket's path has at most 104 bytes
			t.Cleanup(func() { l.Close() })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.pem")
			t.Chdir(filepath.Dir(path))
			require.NoError(t, create(path))
			s := fleetkey.NewFileStore(path)
			_, _, errLoad := s.Load(t.Context())
			_, errSave := s.Save(t.Context(), []byte("new"), "")
			store, errOpen := fleetkey.OpenStore(t.Context(), path)
			require.Nil(t, store)
			for _, err := range []error{errLoad, errSave, errOpen} {
				requireRefused(t, err, path)
				if err == errOpen || name != "socket" { // open itself fails on a socket
					require.ErrorContains(t, err, "not a regular file")
				}
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			require.Len(t, entries, 1, "no other file may be created")
			require.False(t, entries[0].Type().IsRegular(), "it must not be replaced")
		})
	}
	require.NoFileExists(t, "/dev/zero.lock")
}

// This cannot happen on Windows, whose environment is UTF-16.
func TestOpenStore_F22_EnvironmentIsNotText(t *testing.T) {
	t.Setenv("OpenIDServerSigningSettings__File__Path", "/k\xff.pem")
	_, err := fleetkey.OpenStore(t.Context(), "")
	require.ErrorContains(t, err, "OpenIDServerSigningSettings__File__Path: ")
	require.ErrorContains(t, err, "contains invalid UTF-8")
}

func TestFileStore_F7_ModeOfOthers(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o611} {
		t.Run(fmt.Sprintf("%04o", mode), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "the server's keys.pem")
			s, v := stored(t, path, "one")
			require.NoError(t, os.Chmod(path, mode))
			_, _, err := s.Load(t.Context())
			requireRefused(t, err, path)
			require.ErrorContains(t, err, fmt.Sprintf("mode %04o", mode))
			_, err = s.Save(t.Context(), []byte("two"), v)
			requireRefused(t, err, path)
			requireContent(t, path, "one")

			// The error ends with the command that fixes the mode.
			_, command, ok := strings.Cut(err.Error(), "run: ")
			require.True(t, ok)
			require.NoError(t, exec.Command("sh", "-c", command).Run(), command)
			_, err = s.Save(t.Context(), []byte("two"), v)
			require.NoError(t, err)
		})
	}
}

// mounted makes a directory like a Secret mounted by Kubernetes, and returns the path of the
// keys in it.
func mounted(t *testing.T, mode fs.FileMode) (path string) {
	t.Helper()
	dir := t.TempDir()
	link(t, dir, "keys.pem -> ..data/keys.pem", "..data -> ..2026_11_27")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "..2026_11_27"), 0o755))
	path = filepath.Join(dir, "keys.pem")
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
	require.NoError(t, os.Chmod(path, mode))
	return path
}

func TestFileStore_F19_MountedSecret(t *testing.T) {
	for _, mode := range []fs.FileMode{0o400, 0o440, 0o444, 0o644, 0o660, 0o777} {
		path := mounted(t, mode)
		for range 2 {
			bundle, _, err := fleetkey.NewFileStore(path, readOnly).Load(t.Context())
			require.NoError(t, err, "%04o", mode)
			require.Equal(t, "one", string(bundle))
		}
		_, _, err := fleetkey.NewFileStore(path).Load(t.Context())
		require.Equal(t, mode&0o077 != 0, err != nil, "%04o: %v", mode, err)
	}
}

// A Load while the file is being replaced returns the old or the new bundle, never an error.
// An update of a Secret (F19) points ..data to a new directory and removes the old one.
func TestFileStore_F15_F19_ReplacedUnderAReader(t *testing.T) {
	plain, secret := filepath.Join(t.TempDir(), "keys.pem"), mounted(t, 0o440)
	stored(t, plain, "one")
	dir := filepath.Dir(secret)
	for path, replace := range map[string]func(n int) error{
		plain: func(n int) error {
			next := fmt.Sprintf("%s.next%d", plain, n)
			return cmp.Or(os.WriteFile(next, []byte("two"), 0o600), os.Rename(next, plain))
		},
		secret: func(n int) error {
			old, err := os.Readlink(filepath.Join(dir, "..data"))
			next := filepath.Join(dir, fmt.Sprintf("..%d", n))
			return cmp.Or(err, os.Mkdir(next, 0o755),
				os.WriteFile(filepath.Join(next, "keys.pem"), []byte("two"), 0o440),
				os.Symlink(filepath.Base(next), filepath.Join(dir, "..data_tmp")),
				os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
				os.RemoveAll(filepath.Join(dir, old)))
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			var err error
			for n := 0; err == nil && ctx.Err() == nil; n++ {
				err = replace(n)
			}
			done <- err
		}()
		s := fleetkey.NewFileStore(path, readOnly)
		for range 2000 {
			bundle, _, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Contains(t, []string{"one", "two"}, string(bundle))
		}
		cancel()
		require.NoError(t, <-done)
	}
}

// link makes symbolic links below dir, each written as "name -> target".
func link(t *testing.T, dir string, links ...string) {
	t.Helper()
	for _, l := range links {
		name, target, _ := strings.Cut(l, " -> ")
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}
}

func TestFileStore_F8_LinksAreFollowed(t *testing.T) {
	for _, tc := range []struct {
		name, path string
		links      []string
	}{
		{"at the path", "keys.pem", []string{"keys.pem -> real/keys.pem"}},
		{"to another directory", "other/keys.pem", []string{"other/keys.pem -> ../real/keys.pem"}},
		{"to a link", "keys.pem", []string{"data -> real", "keys.pem -> data/keys.pem"}},
		{"in the parent", "data/keys.pem", []string{"data -> real"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			require.NoError(t, err)
			target, path := filepath.Join(dir, "real", "keys.pem"), filepath.Join(dir, tc.path)
			_, v := stored(t, target, "one")
			require.NoError(t, os.Remove(target+".lock"))
			link(t, dir, tc.links...)

			linked := fleetkey.NewFileStore(path)
			_, got, err := linked.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, v, got)
			_, err = linked.Save(t.Context(), []byte("two"), v)
			require.NoError(t, err)
			requireContent(t, target, "two")
			real, err := filepath.EvalSymlinks(path)
			require.NoError(t, err)
			require.Equal(t, target, real, "the link was replaced")
			require.FileExists(t, target+".lock", "both paths must share one lock")
		})
	}
	dir := t.TempDir() // first Save in a directory reached through a link
	link(t, dir, "data -> real")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	stored(t, filepath.Join(dir, "data", "new", "keys.pem"), "one")
	requireContent(t, filepath.Join(dir, "real", "new", "keys.pem"), "one")
}

func TestFileStore_F8_DanglingIsNotAbsent(t *testing.T) {
	for _, tc := range []struct {
		name, path, guilty string
		links              []string
	}{
		{"at the path", "keys.pem", "keys.pem", []string{"keys.pem -> missing.pem"}},
		{"in the parent", "data/a/keys.pem", "data", []string{"data -> not-mounted"}},
		{"to a link", "keys.pem", "keys.pem", []string{"data -> missing", "keys.pem -> data/keys.pem"}},
		{"loop", "keys.pem", "keys.pem", []string{"keys.pem -> b.pem", "b.pem -> keys.pem"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			link(t, dir, tc.links...)
			s := fleetkey.NewFileStore(filepath.Join(dir, tc.path))
			_, _, err := s.Load(t.Context())
			requireRefused(t, err, filepath.Join(dir, tc.guilty))
			_, err = s.Save(t.Context(), []byte("new"), "")
			requireRefused(t, err, filepath.Join(dir, tc.guilty))
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, len(tc.links), "nothing may be created")
		})
	}
}

// A link instead of the lock file could make root create or lock a file elsewhere. A FIFO
// there must not block Save.
func TestFileStore_F8_LockIsALink(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.Remove(path+".lock"))
	link(t, filepath.Dir(path), "keys.pem.lock -> "+victim)
	_, err := s.Save(t.Context(), []byte("two"), v)
	requireRefused(t, err, path+".lock")
	require.NoFileExists(t, victim)
	require.NoError(t, os.WriteFile(victim, nil, 0o600))
	_, err = s.Save(t.Context(), []byte("two"), v)
	requireRefused(t, err, path+".lock")
	requireContent(t, path, "one")

	require.NoError(t, os.Remove(path+".lock"))
	require.NoError(t, syscall.Mkfifo(path+".lock", 0o600))
	_, _ = s.Save(t.Context(), []byte("two"), v) // succeeds on systems where flock works on a FIFO
}

// The link is moved at each point before the commit at which Save checks its context. A Save
// that succeeds must have written the file that the link now leads to.
func TestFileStore_F8_LinkMovedDuringSave(t *testing.T) {
	conflicts := 0
	for n := 1; n <= 3; n++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "keys.pem")
		_, v := stored(t, filepath.Join(dir, "a.pem"), "the same in both")
		stored(t, filepath.Join(dir, "b.pem"), "the same in both")
		link(t, dir, "keys.pem -> a.pem", "next -> b.pem")
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

// If the directory is moved away and replaced during a Save, the lock file moves with it. A
// Save that succeeds must have written, and locked, the file that the path now leads to.
func TestFileStore_F15_DirectorySwappedDuringSave(t *testing.T) {
	for n := 1; n <= 4; n++ {
		dir := t.TempDir()
		path, next := filepath.Join(dir, "keys", "keys.pem"), filepath.Join(dir, "next", "keys.pem")
		s, v := stored(t, path, "the same in both")
		stored(t, next, "the same in both")
		swapped := false
		other := flock.New(next + ".lock") // held by another writer
		ctx := &hookContext{Context: t.Context(), n: n, hook: func() {
			swapped = true
			require.NoError(t, os.Rename(filepath.Dir(path), filepath.Join(dir, "old")))
			require.NoError(t, os.Rename(filepath.Dir(next), filepath.Dir(path)))
		}}
		if n > 2 { // Save already holds the lock in the old directory
			require.NoError(t, other.Lock())
		}
		_, err := s.Save(ctx, []byte("two"), v)
		require.NoError(t, other.Unlock())
		require.True(t, swapped)
		if n <= 2 && err == nil {
			requireContent(t, path, "two")
			continue
		}
		require.Error(t, err)
		requireContent(t, path, "the same in both")
	}
}

// A hookContext calls hook on the nth call of Err.
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
