//go:build windows

package fleetkey_test

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// hold opens a file like a program that allows others only the access in mode.
func hold(t *testing.T, path string, mode uint32) (release func()) {
	t.Helper()
	name, err := syscall.UTF16PtrFromString(path)
	require.NoError(t, err)
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ, mode, nil, syscall.OPEN_EXISTING, 0, 0)
	require.NoError(t, err)
	return sync.OnceFunc(func() { _ = syscall.CloseHandle(h) })
}

// A scanner has the file or the lock open when a call begins, and closes it while the call
// is being retried.
func TestFileStore_F20_HeldByAnother(t *testing.T) {
	for name, share := range map[string]uint32{
		"exclusively": 0, "for reading": syscall.FILE_SHARE_READ, "for all but deletion": syscall.FILE_SHARE_READ | syscall.FILE_SHARE_WRITE,
	} {
		for _, held := range []string{"", ".lock"} {
			t.Run(name+held, func(t *testing.T) {
				path := newPath(t)
				s, v := stored(t, path, "one")
				for _, call := range []func() error{
					func() error { _, _, err := s.Load(t.Context()); return err },
					func() (err error) { v, err = s.Save(t.Context(), []byte("two"), v); return err },
				} {
					release := hold(t, path+held, share)
					time.AfterFunc(200*time.Millisecond, release)
					require.NoError(t, call())
					release()
				}
				requireContent(t, path, "two")
			})
		}
	}
}

// Open readers do not keep a writer from replacing the file.
func TestFileStore_F20_OpenReaders(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	root, err := os.OpenRoot(filepath.Dir(path))
	require.NoError(t, err)
	defer root.Close()
	f, err := root.Open(filepath.Base(path))
	require.NoError(t, err)
	defer f.Close()
	_, err = s.Save(t.Context(), []byte("two"), v)
	require.NoError(t, err)
	requireContent(t, path, "two")
	_, _, err = fleetkey.NewFileStore(path).Load(t.Context())
	require.NoError(t, err)
}
