package fleetkey

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/fleetkey/fleetkey/internal/refresh"
)

// A FileStore is a [KeyStore] in a file, on a local disk or in a folder that the fleet
// shares (NFS, EFS). Create one with [NewFileStore]. Its methods are safe for concurrent
// use by goroutines and by processes.
//
// # Files
//
// The file has mode 0600. A missing directory is created with mode 0700. An existing one is
// used as it is; anyone who can write to it can replace the keys. Next to the file are:
//
//   - NAME.lock, which Save locks. It is empty and must stay: if a process removed it, two
//     writers could hold the lock. Readers never wait for it.
//   - .NAME.tmp-NUMBER, a bundle or a lock being written. A writer that is killed leaves it
//     behind; a Save at least an hour later removes it.
//
// Save writes the temporary file, syncs it, renames it over the old one and syncs the
// directory. A crash or power failure at any point leaves either the old or the new bundle.
// The file keeps its owner, so the service can still read it after root has saved. A file
// that root creates belongs to the owner of the directory.
//
// # Symbolic links
//
// FileStore resolves symbolic links in the path before doing anything else, so a link stays
// a link and two paths to the same file share one lock. A dangling link is an error rather
// than an absent file, because its target may be on a volume that is not mounted yet.
//
// # Windows
//
// On Windows, file modes have no meaning and directories cannot be synced. The file is
// protected by the access control list that it inherits from its directory, so let only the
// service and administrators access the directory. If another program, such as a virus
// scanner, has the file open, a call retries for two seconds.
//
// # Other file systems
//
// Save writes no key to a file system that does not keep file modes, such as SMB or FAT,
// unless it is mounted so that files have mode 0600. It cannot replace a file that is
// itself a mount point (docker run -v HOST-FILE:FILE); mount its directory instead.
//
// # Network folders
//
// The lock is flock(2), or LockFileEx on Windows. On a file system without locks, Save
// fails; it never writes unlocked. Do not share an NFS folder that is mounted with nolock
// or local_lock, where machines do not see each other's locks. A context cannot interrupt a call
// that hangs in the kernel, as on a hard NFS mount whose server is down.
type FileStore struct {
	path string // absolute, links not yet followed
	opts FileOptions
}

// FileOptions configures a [FileStore].
type FileOptions struct {
	// ReadOnly is for a file that is provided from outside: a Secret mounted by Kubernetes,
	// a systemd credential, a Docker secret. The store writes nothing, not even a lock, and
	// Save returns [ErrReadOnly]. Any file mode is accepted, since whoever provides the
	// file decides who can read it. Default: false.
	ReadOnly bool
}

// NewFileStore returns a store in the file at path. It does not access the disk. A relative
// path is resolved against the current working directory.
func NewFileStore(path string, opts ...func(*FileOptions)) *FileStore {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs // a later Chdir must not make the keys seem absent
	}
	s := &FileStore{path: path}
	for _, opt := range opts {
		opt(&s.opts)
	}
	return s
}

// ReadOnly reports whether [FileOptions].ReadOnly is set.
func (s *FileStore) ReadOnly() bool { return s.opts.ReadOnly }

// String returns the name of the store for errors and logs: "file /var/lib/app/keys.pem".
func (s *FileStore) String() string { return "file " + s.path }

// Load implements [KeyStore]. The [Version] is the SHA-256 hash of the content.
//
// The error matches [ErrNotExist] only if nothing exists at the path, including when the
// directory is missing. Load rejects a file that is empty, longer than [MaxBundleSize] or
// not a regular file. It also rejects a file that group or others can access, but not on
// Windows or with [FileOptions].ReadOnly.
//
// In a container, a bind mount whose source was replaced still shows the deleted file or
// directory, which never changes again. Load rejects such a file. If the file is missing in
// such a directory, the error does not match [ErrNotExist].
func (s *FileStore) Load(ctx context.Context) ([]byte, Version, error) {
	_, bundle, err := s.load(ctx)
	if err != nil {
		return nil, "", s.explain("load keys from", err)
	}
	return bundle, versionOf(bundle), nil
}

// Save implements [KeyStore]. It waits for other writers until ctx ends; the error then
// names the lock file.
func (s *FileStore) Save(ctx context.Context, bundle []byte, prev Version) (Version, error) {
	if err := s.save(ctx, bundle, prev); err != nil {
		return "", s.explain("save keys to", err)
	}
	return versionOf(bundle), nil
}

// explain adds what to do if the text of the error does not say it. A failed chmod or chown
// is explained already.
func (s *FileStore) explain(op string, err error) error {
	hint, uid := "", os.Geteuid()
	call, _ := errors.AsType[*fs.PathError](err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = ": free disk space and inodes there, or raise the quota"
	case errors.Is(err, syscall.EROFS):
		hint = ": mount a writable volume there, or open a mounted secret with FileOptions.ReadOnly"
	case errors.Is(err, syscall.EPERM) && (call == nil || !strings.HasPrefix(call.Op, "ch")):
		hint = fmt.Sprintf(" (running as uid %d): is the file or its directory immutable (lsattr -d), or does the file system deny this?", uid)
	case errors.Is(err, fs.ErrPermission) && uid >= 0:
		hint = fmt.Sprintf(" (running as uid %d)", uid)
	}
	return fmt.Errorf("%s %s: %w%s", op, s, err, hint)
}

func versionOf(bundle []byte) Version {
	sum := sha256.Sum256(bundle)
	return Version(hex.EncodeToString(sum[:]))
}

// load also returns the path of the file, existing or not, with all links resolved.
func (s *FileStore) load(ctx context.Context) (path string, bundle []byte, err error) {
	for range 5 {
		if err := ctx.Err(); err != nil {
			return "", nil, err
		}
		var exists bool
		err = insist(ctx, refusedForNow, func() (err error) { path, exists, err = s.resolve(); return err })
		if err == nil {
			if !exists {
				return path, nil, ErrNotExist
			}
			err = insist(ctx, refusedForNow, func() error { bundle, err = s.read(path); return err })
		}
		// The file was replaced between two steps. NFS reports ESTALE; ENOENT or a missing
		// target means that a link changed. Try again.
		if !errors.Is(err, errDangling) && !errors.Is(err, syscall.ESTALE) && !errors.Is(err, fs.ErrNotExist) {
			return path, bundle, err
		}
	}
	if errors.Is(err, errDangling) {
		return "", nil, err
	}
	// %v, so that ErrNotExist does not match.
	return "", nil, fmt.Errorf("%w: the file is replaced faster than it can be read: %v", ErrUnavailable, err)
}

var errDangling = errors.New("is dangling: restore its target (is a volume not mounted?) or remove the link")

// resolve resolves every link in the path. If no file exists there, it returns where the
// file would be.
func (s *FileStore) resolve() (path string, exists bool, err error) {
	path, err = filepath.EvalSymlinks(s.path)
	if !errors.Is(err, fs.ErrNotExist) {
		return path, err == nil, err
	}
	// Find the nearest parent that exists. The file is absent only if that parent resolves.
	rest := ""
	for p := s.path; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) && p != filepath.Dir(p) {
			rest = filepath.Join(filepath.Base(p), rest)
			continue
		}
		path, err = filepath.EvalSymlinks(p)
		if errors.Is(err, fs.ErrNotExist) {
			return "", false, fmt.Errorf("the symbolic link %s %w", p, errDangling)
		}
		if dir, statErr := os.Stat(path); statErr == nil && rest != "" {
			err = checkFile(path, dir, true)
		}
		return filepath.Join(path, rest), err == nil && rest == "", err
	}
}

// read reads the file at path, which contains no links.
func (s *FileStore) read(path string) ([]byte, error) {
	f, err := openNoWait(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (mode %s): choose another path", path, fi.Mode())
	}
	if err := checkFile(path, fi, s.opts.ReadOnly); err != nil {
		return nil, err
	}
	bundle, err := io.ReadAll(io.LimitReader(f, MaxBundleSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(bundle) > MaxBundleSize:
		return nil, fmt.Errorf("%s is longer than %d bytes, so it is not a key bundle", path, MaxBundleSize)
	case len(bundle) == 0:
		return nil, fmt.Errorf("%s is empty: restore it from a backup, or remove it so that a new key is created", path)
	}
	return bundle, nil
}

func (s *FileStore) save(ctx context.Context, bundle []byte, prev Version) error {
	if s.opts.ReadOnly {
		return fmt.Errorf("%w (FileOptions.ReadOnly): make the change where the file comes from", ErrReadOnly)
	}
	if len(bundle) == 0 || len(bundle) > MaxBundleSize {
		return fmt.Errorf("the bundle has %d bytes; it must have 1 to %d", len(bundle), MaxBundleSize)
	}
	path, err := s.requireVersion(ctx, prev)
	if err != nil {
		return err // before a directory or lock file is created
	}
	if prev == "" {
		if err := makeDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	var l *flock.Flock
	if err := insist(ctx, refusedForNow, func() (err error) { l, err = lock(ctx, path); return err }); err != nil {
		return err
	}
	// The bundle is already saved, so an error must not fail the Save. The garbage
	// collector closes the descriptor, which frees the lock.
	defer func() { _ = l.Close() }()
	// Check again: the previous lock holder may have saved, or moved a link or the
	// directory, in which case this is the lock of another file.
	again, err := s.requireVersion(ctx, prev)
	if err != nil {
		return err
	}
	if held, err := isHeld(l); err != nil || !held || again != path {
		return cmp.Or(err, ErrConflict)
	}
	removeStale(path)
	return replace(ctx, path, bundle)
}

// insist retries f for at most two seconds while it is refused temporarily.
func insist(ctx context.Context, forNow func(error) bool, f func() error) error {
	for end := time.Now().Add(2 * time.Second); ; {
		err := f()
		if err == nil || !forNow(err) || time.Now().After(end) || !refresh.Sleep(ctx, 20*time.Millisecond) {
			return err
		}
	}
}

// requireVersion returns the path of the file, or an error if its version is not prev.
func (s *FileStore) requireVersion(ctx context.Context, prev Version) (path string, err error) {
	var current Version
	path, bundle, err := s.load(ctx)
	if err == nil {
		current = versionOf(bundle)
	} else if !errors.Is(err, ErrNotExist) {
		return "", err
	}
	if current != prev {
		return "", ErrConflict
	}
	return path, nil
}
