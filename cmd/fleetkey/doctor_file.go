package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/fleetkey/fleetkey"
)

// This file examines a file store: the file, the directory whose rights decide
// over it, the lock, and the clock of the disk, which may be another machine's.

func (x *examination) file(ctx context.Context, store *fleetkey.FileStore) {
	path := strings.TrimPrefix(store.String(), "file ")
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	readable := true
	if info, err := os.Lstat(path); err == nil {
		x.owner("file", path, info)
		readable = x.mode("file", path, info, 0o077, 0o600)
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err == nil {
		x.owner("directory", dir, info)
		x.mode("directory", dir, info, 0o022, 0o700)
		x.directory(dir)
	} else {
		x.found(minor, "directory", "not there yet: "+err.Error(), "")
	}
	x.lock(ctx, path+".lock")
	bundle, version, err := store.Load(ctx)
	switch {
	case errors.Is(err, fleetkey.ErrNotExist):
		x.absent("file")
	case err != nil && !readable:
		x.found(skipped, "keys", "no server reads them while the mode is wrong", "")
	case err != nil:
		x.found(wrong, "file", trimPrefix(err), "")
	default:
		x.keys(ctx, store, bundle, version)
	}
}

// directory writes and removes a file: to save keys takes rights to the
// directory, not to the file in it.
func (x *examination) directory(dir string) {
	f, err := os.CreateTemp(dir, ".fleetkey-doctor-*")
	if err != nil {
		x.cannotWrite("directory", err.Error(), mine(dir))
		return
	}
	now := time.Now()
	info, err := f.Stat()
	_ = f.Close()
	if removeErr := os.Remove(f.Name()); removeErr != nil {
		x.found(wrong, "directory", removeErr.Error(), "")
	}
	x.found(fine, "directory", "can be written", "")
	if err == nil {
		x.clock("the file system of "+dir, now.Sub(info.ModTime()))
	}
}

// lock sees whether writers can get at the lock, and lets go of it at once.
func (x *examination) lock(ctx context.Context, path string) {
	info, err := os.Lstat(path)
	if err != nil {
		x.found(fine, "lock", "never taken yet", "")
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
	default:
		x.cannotWrite("lock", err.Error(), mine(path))
	}
}
