//go:build !unix

package fleetkey

import (
	"io/fs"
	"os"
	"path/filepath"
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

// Access control lists, inherited from the directory, take the place of modes.
func checkMode(string, fs.FileInfo) error { return nil }
func setOwner(*os.File, string) error     { return nil }
func syncDir(string) error                { return nil }
