package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/fleetkey/fleetkey"
)

// This file examines a file store: the file, the directory whose permissions protect it,
// the lock, and the clock of the file system, which may be another machine's.

func (x *examination) file(ctx context.Context, store *fleetkey.FileStore) {
	path := strings.TrimPrefix(store.String(), "file ")
	if x.readOnly {
		store = fleetkey.NewFileStore(path, func(o *fleetkey.FileOptions) { o.ReadOnly = true })
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	readable, exists := true, false
	if info, err := os.Lstat(path); err == nil {
		exists = true
		if info.Mode().IsRegular() { // Load reports anything else, which no mode would fix
			readable = x.access(path, info)
		}
		x.alone(path)
	}
	if !x.readOnly {
		x.places(ctx, path, exists)
	}
	bundle, version, err := store.Load(ctx)
	switch {
	case errors.Is(err, fleetkey.ErrNotExist) && x.readOnly:
		x.found(wrong, "file", "there are no keys yet, and these servers only read: provide a bundle, made by fleetkey init elsewhere", "")
	case errors.Is(err, fleetkey.ErrNotExist):
		x.absent("file")
	case err != nil && !readable:
		x.found(skipped, "keys", "not readable for servers while the mode is wrong", "")
	case err != nil:
		x.found(wrong, "file", trimPrefix(err), "")
	default:
		x.keys(store, bundle, version)
	}
}

// alone reports a file that is itself a mount point, which rename(2) cannot replace.
func (x *examination) alone(path string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo") // Linux only; the fifth field is the mount point
	escaped := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(path)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) < 5 || fields[4] != escaped {
			continue
		}
		if x.readOnly {
			x.found(minor, "file", path+" is itself a mount point, so it never changes while the container runs: mount its directory", "")
		} else {
			x.found(wrong, "file", path+" is itself a mount point, so no server can replace it: mount its directory", "")
		}
		return
	}
}

// places examines what is next to the file and needed to write it.
func (x *examination) places(ctx context.Context, path string, exists bool) {
	dir := filepath.Dir(path)
	fix := mine(dir)
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		x.found(wrong, "directory", dir+" is not a directory: choose another path", "")
		return
	case err == nil:
		x.owner("directory", dir, info)
		x.mode("directory", dir, info, 0o022, 0o700)
	default:
		x.found(minor, "directory", "does not exist yet: "+err.Error(), "")
		fix = newDir(dir)
		for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			_, err = os.Stat(dir)
		}
	}
	if x.directory(ctx, dir, fix, exists) {
		x.lock(ctx, path+".lock")
	}
}

// directory saves a bundle of maximum size next to the file, as a server would, and removes
// it. Saving requires permissions on the directory, not on the file. directory reports
// whether a lock can be used.
func (x *examination) directory(ctx context.Context, dir, fix string, exists bool) bool {
	path := filepath.Join(dir, ".fleetkey-doctor-"+rand.Text())
	store, noise, begin := fleetkey.NewFileStore(path), make([]byte, fleetkey.MaxBundleSize), time.Now()
	_, _ = rand.Read(noise) // the file system cannot compress it
	_, err := store.Save(ctx, noise, "")
	saved, absent := os.Stat(path)
	for _, name := range []string{path, path + ".lock"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EROFS) {
			x.found(wrong, "directory", err.Error(), "")
		}
	}
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EPERM) { // the error says what to do
		fix = ""
	}
	switch {
	case errors.Is(err, syscall.EROFS):
		x.found(wrong, "directory", "no server can "+err.Error(), "")
		return false
	case err != nil && !exists:
		x.found(wrong, "directory", "no server can create the first key: "+err.Error(), fix)
	case err != nil:
		x.cannotWrite("directory", err.Error(), fix)
	default:
		x.found(fine, "directory", "is writable", "")
	}
	if absent == nil {
		x.clock("the file system of "+dir, begin.Sub(saved.ModTime()))
	}
	return true
}

// lock checks whether writers can get the lock, and releases it at once.
func (x *examination) lock(ctx context.Context, path string) {
	info, err := os.Lstat(path)
	if err != nil {
		x.found(fine, "lock", "never used yet", "")
		return
	}
	if info.Mode()&(fs.ModeDir|fs.ModeSymlink) != 0 {
		x.cannotWrite("lock", fmt.Sprintf("%s is not a regular file (mode %s): remove it", path, info.Mode()), "")
		return
	}
	x.owner("lock", path, info)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	l := flock.New(path, flock.SetFlag(os.O_RDWR))
	_, err = l.TryLockContext(ctx, 50*time.Millisecond)
	defer func() { _ = l.Close() }()
	switch {
	case err == nil:
		x.found(fine, "lock", "free", "")
	case errors.Is(err, context.DeadlineExceeded):
		x.found(wrong, "lock", path+" is held by another process", "fuser -v "+quote(path))
	case errors.Is(err, fs.ErrPermission):
		x.cannotWrite("lock", err.Error(), mine(path))
	default:
		x.cannotWrite("lock", err.Error(), "")
	}
}
