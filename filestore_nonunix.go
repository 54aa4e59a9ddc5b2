//go:build !unix

package fleetkey

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
)

const noWait = 0

// openNoWait uses os.Root because on Windows only that opens a file so that a writer can
// rename another one over it.
func openNoWait(path string) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(filepath.Base(path))
}

// rename uses os.Root because on Windows only that replaces a file that a reader has open
// (FILE_RENAME_POSIX_SEMANTICS).
func rename(from, to string) error {
	root, err := os.OpenRoot(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Rename(filepath.Base(from), filepath.Base(to))
}

// refusedForNow reports whether another program may have the file open. Windows returns the
// same error for a missing permission; retrying then costs two seconds.
func refusedForNow(err error) bool {
	const accessDenied, sharingViolation, lockViolation, deletePending = 5, 32, 33, 303 // winerror.h
	errno, ok := errors.AsType[syscall.Errno](err)
	return ok && runtime.GOOS == "windows" && slices.Contains([]syscall.Errno{accessDenied, sharingViolation, lockViolation, deletePending}, errno)
}

// Inherited access control lists take the place of modes.
func checkFile(string, fs.FileInfo, bool) error { return nil }
func setOwner(*os.File, string) error           { return nil }
func syncDir(string) error                      { return nil }
