//go:build unix

package fleetkey

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// noWait keeps open from blocking on a FIFO, and from following a link that was created
// after the path was resolved.
const noWait = syscall.O_NONBLOCK | syscall.O_NOFOLLOW

func openNoWait(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|noWait, 0)
}

func rename(from, to string) error { return os.Rename(from, to) }

// errNoLinks means a bind mount. It also occurs briefly while a file is replaced.
var errNoLinks = errors.New("has no links left: the source of its bind mount was removed or replaced, so it will never change again; restart, and if a file is mounted, mount its directory instead")

func refusedForNow(err error) bool { return errors.Is(err, errNoLinks) }

// checkFile rejects a file that will never change again or, unless anyMode is set, that
// others can access. A file that was just replaced at path is still valid.
func checkFile(path string, fi fs.FileInfo, anyMode bool) error {
	st := fi.Sys().(*syscall.Stat_t)
	if st.Nlink == 0 {
		if now, err := os.Lstat(path); err == nil && os.SameFile(fi, now) {
			return fmt.Errorf("%s %w", path, errNoLinks)
		}
	}
	mode, uid := fi.Mode().Perm(), os.Geteuid()
	if mode&0o077 == 0 || anyMode {
		return nil
	}
	problem := fmt.Sprintf("%s has mode %04o, so group or others can access private keys", path, mode)
	if uid != 0 && uid != int(st.Uid) || errors.Is(syscall.Access(path, 2), syscall.EROFS) {
		return fmt.Errorf("%s, and this process cannot change it: open a mounted secret with FileOptions.ReadOnly, or give the file to uid %d with mode 0600", problem, uid)
	}
	quoted := "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	return fmt.Errorf("%s; if its file system does not keep modes, mount it so that files have mode 0600; otherwise run: chmod 600 %s", problem, quoted)
}

// setOwner gives f mode 0600 regardless of the umask, and the owner of the file at path,
// which f will replace or lie beside. It fails if the file system does not keep modes.
func setOwner(f *os.File, path string) error {
	refused := f.Chmod(0o600)
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	switch mode := mine.Mode().Perm(); {
	case refused == nil && mode&0o677 == 0o600:
	case refused == nil, errors.Is(refused, errors.ErrUnsupported), errors.Is(refused, fs.ErrPermission):
		return fmt.Errorf("the file system of %s does not keep file modes (%04o after chmod 600), so others could read the keys; choose another path, or mount it so that chmod 600 succeeds and files have that mode: %w",
			path, mode, cmp.Or(refused, errors.ErrUnsupported))
	default:
		return refused
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
	want, have := like.Sys().(*syscall.Stat_t), mine.Sys().(*syscall.Stat_t)
	if want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	err = f.Chown(int(want.Uid), int(want.Gid))
	if err != nil && !first && want.Uid != have.Uid {
		return fmt.Errorf("%s belongs to uid %d, which could not read the new file; run as that user: %w", path, want.Uid, err)
	}
	return nil // the group does not matter: mode 0600 grants it nothing
}

// syncDir makes changed names in a directory survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil // a file system that cannot sync directories (some FUSE, SMB, 9p)
}
