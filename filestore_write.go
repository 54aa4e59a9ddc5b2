package fleetkey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// This file contains the steps of FileStore.Save.

// makeDir is os.MkdirAll, but makes the directory survive a power failure, even if another
// process created it and was killed before syncing it. Its parents were synced when
// directories were created in them.
func makeDir(dir string) error {
	parent := filepath.Dir(dir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && dir != parent {
		if err := makeDir(parent); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := syncDir(parent); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil // the parent is writable but not readable, so it cannot be synced
}

// lock excludes other writers of path until it is closed or the process ends for any
// reason.
func lock(ctx context.Context, path string) (*flock.Flock, error) {
	name := path + ".lock"
	if err := makeLock(name, path); err != nil {
		return nil, err
	}
	l := flock.New(name, flock.SetFlag(os.O_RDWR|noWait))
	switch _, err := l.TryLockContext(ctx, 10*time.Millisecond); {
	case err == nil:
		return l, nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, fmt.Errorf("wait for other writers to release the lock %s: %w", name, err)
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.ENOLCK):
		return nil, fmt.Errorf("the file system of %s does not support locks (move the file, or mount it with locks): %w", path, err)
	default:
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
}

// isHeld reports whether l is still the lock file that other writers open.
func isHeld(l *flock.Flock) (bool, error) {
	held, err := l.Stat()
	if err != nil {
		return false, err
	}
	found, err := os.Lstat(l.Path())
	return err == nil && os.SameFile(held, found), err
}

// makeLock creates the lock file of path if it does not exist. It sets the owner before the
// name: if root were killed in between, only root could open the lock, and the service
// could never save again.
func makeLock(name, path string) error {
	if _, err := os.Lstat(name); err == nil {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path)+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := cmp.Or(setOwner(f, path), f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		// The file system has no hard links, even if the error says something else. Few of those have
		// owners.
		f, err = os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			if err = cmp.Or(setOwner(f, path), f.Close()); err != nil {
				os.Remove(name)
			}
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // another writer was first
	}
	return err
}

// replace replaces the file at path with bundle, durably and atomically.
func replace(ctx context.Context, path string, bundle []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path)+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name()) // no effect after the rename
		}
	}()
	if err := setOwner(f, path); err != nil {
		return err
	}
	if _, err := f.Write(bundle); err != nil {
		return err
	}
	if err := cmp.Or(f.Sync(), f.Close(), ctx.Err()); err != nil {
		return err
	}
	err = insist(ctx, refusedForNow, func() error { return rename(f.Name(), path) })
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%s cannot be replaced: it is probably a mount point itself (a bind mount); mount its directory instead: %w", path, err)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func tempPrefix(path string) string { return "." + filepath.Base(path) + ".tmp-" }

// removeStale removes the temporary files of dead writers. The lock must be held; the hour
// protects writers that lost theirs (when the server of a network folder restarted). Best
// effort; errors are ignored.
func removeStale(path string) {
	dir := filepath.Dir(path)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		number, ours := strings.CutPrefix(e.Name(), tempPrefix(path))
		if !ours || number == "" || strings.Trim(number, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > time.Hour {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
