//go:build unix

package fleetkey

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// noWait keeps an open from waiting for the other end of a FIFO, and from
// following a link that was put there since the path was resolved.
const noWait = syscall.O_NONBLOCK | syscall.O_NOFOLLOW

func openNoWait(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|noWait, 0)
}

func rename(from, to string) error { return os.Rename(from, to) }

func checkMode(path string, fi fs.FileInfo) error {
	if mode := fi.Mode().Perm(); mode&0o077 != 0 {
		quoted := "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		return fmt.Errorf("%s has mode %04o, so that group or others can reach private keys; run: chmod 600 %s", path, mode, quoted)
	}
	return nil
}

// setOwner gives f, which is to lie at path or beside it, mode 0600 whatever
// the umask, and the owner of the file at path.
func setOwner(f *os.File, path string) error {
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	like, err := os.Lstat(path)
	first := errors.Is(err, fs.ErrNotExist)
	if first {
		if os.Geteuid() != 0 {
			return nil
		}
		like, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	want, have := like.Sys().(*syscall.Stat_t), mine.Sys().(*syscall.Stat_t)
	if want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	err = f.Chown(int(want.Uid), int(want.Gid))
	if err != nil && !first && want.Uid != have.Uid {
		return fmt.Errorf("%s belongs to uid %d, who could not read the new one; run as that user: %w", path, want.Uid, err)
	}
	return nil // without the group the file is as good: mode 0600 gives it nothing
}

// syncDir makes the names in a directory survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil // a file system that cannot sync directories (some FUSE, SMB)
}
