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

// openNoWait goes through os.Root because, on Windows, that alone opens a file
// so that a writer may rename another one over it while it is read.
func openNoWait(path string) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(filepath.Base(path))
}

// rename goes through os.Root because, on Windows, that alone replaces a file
// that a reader has open (FILE_RENAME_POSIX_SEMANTICS).
func rename(from, to string) error {
	root, err := os.OpenRoot(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Rename(filepath.Base(from), filepath.Base(to))
}

// refusedForNow reports whether another program may hold the file just now. Windows also
// answers so where rights are missing; then it costs two seconds.
func refusedForNow(err error) bool {
	const accessDenied, sharingViolation, lockViolation, deletePending = 5, 32, 33, 303 // winerror.h
	errno, ok := errors.AsType[syscall.Errno](err)
	return ok && runtime.GOOS == "windows" && slices.Contains([]syscall.Errno{accessDenied, sharingViolation, lockViolation, deletePending}, errno)
}

// Access control lists, inherited from the directory, take the place of modes.
func checkFile(string, fs.FileInfo, bool) error { return nil }
func setOwner(*os.File, string) error           { return nil }
func syncDir(string) error                      { return nil }
