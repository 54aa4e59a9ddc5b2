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

// A FileStore is a [KeyStore] in one file, on a disk of this machine or on a folder that
// the fleet shares (NFS, EFS). Make one with [NewFileStore]. Its methods may be called at
// the same time from many goroutines and processes.
//
// # Files
//
// The file has mode 0600. A missing directory is created with mode 0700; an existing one
// is used as it is, and whoever may write to it can replace the keys. Next to the file
// are:
//
//   - NAME.lock, which Save locks. It is empty and stays: a process that removed it would
//     let two writers in. Readers never wait for it.
//   - .NAME.tmp-NUMBER, a bundle or a lock being written. A writer that is killed leaves
//     one behind; a Save an hour later or more removes it.
//
// Save writes the temporary file, syncs it, renames it over the old one and syncs the
// directory. A crash or a power cut at any point leaves the old bundle or the new one. The
// file keeps its owner: if root saves, the service can still read. A file that root
// creates belongs to the directory's owner.
//
// # Symbolic links
//
// FileStore resolves symbolic links in the path before doing anything else, so a link
// stays a link and two paths to the same file share one lock. A dangling link is an error
// rather than an absent file, because its target may be on a volume that is not mounted
// yet.
//
// # Windows
//
// File modes mean nothing there and directories cannot be synced. The access control list
// that the file inherits from its directory protects it: let only the service and
// administrators access that. A call that is refused because another program, such as a
// virus scanner, holds the file is tried again for two seconds.
//
// # Other file systems
//
// Save writes no key to a file system that does not keep file modes, such as SMB or FAT,
// unless it is mounted so that files have mode 0600. It cannot replace a file that is
// mounted by itself (docker run -v HOST-FILE:FILE): mount its directory.
//
// # Network folders
//
// The lock is flock(2), or LockFileEx on Windows. On a file system without locks Save
// fails; it never writes unlocked. Do not share an NFS folder that is mounted with nolock
// or local_lock, which lock each machine separately. A context cannot interrupt a call
// that hangs in the kernel, as on a hard NFS mount whose server is away.
type FileStore struct {
	path string // absolute, links not yet followed
	opts FileOptions
}

// FileOptions change how a [FileStore] works.
type FileOptions struct {
	// ReadOnly is for a file that something else provides and replaces: a Secret mounted by
	// Kubernetes, a credential of systemd, a secret of Docker. The store never writes,
	// not even a lock, and Save returns [ErrReadOnly]. It accepts any file mode, since
	// whoever provides the file decides who else can read it. Default: false.
	ReadOnly bool
}

// NewFileStore returns the store in the file at path. It does not touch the
// disk. A relative path is taken from the present working directory.
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

// String names the store for errors and logs: "file /var/lib/app/keys.pem".
func (s *FileStore) String() string { return "file " + s.path }

// Load implements [KeyStore]. The [Version] is the SHA-256 of the content.
//
// The error matches [ErrNotExist] only if nothing exists at the path, including when the
// directory is missing. Load rejects a file that is empty, longer than [MaxBundleSize],
// not a regular file or, except on Windows and with [FileOptions].ReadOnly, accessible to
// group or others. It also rejects a file without links, and an absent file in a directory
// without links: that is a bind mount whose source was replaced, and would never change again.
func (s *FileStore) Load(ctx context.Context) ([]byte, Version, error) {
	_, bundle, err := s.load(ctx)
	if err != nil {
		return nil, "", s.explain("load keys from", err)
	}
	return bundle, versionOf(bundle), nil
}

// Save implements [KeyStore]. It waits for another writer until ctx ends; the
// error then names the lock file.
func (s *FileStore) Save(ctx context.Context, bundle []byte, prev Version) (Version, error) {
	if err := s.save(ctx, bundle, prev); err != nil {
		return "", s.explain("save keys to", err)
	}
	return versionOf(bundle), nil
}

// explain adds what to do where the text of the error does not say it. A chmod or chown that
// is refused is explained already.
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

// load also returns where the file is, or would be, with all links followed.
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
		// The file was replaced between two steps: ESTALE is how NFS says so; ENOENT, or
		// no target, is a link that now leads elsewhere. Look again.
		if !errors.Is(err, errDangling) && !errors.Is(err, syscall.ESTALE) && !errors.Is(err, fs.ErrNotExist) {
			return path, bundle, err
		}
	}
	if errors.Is(err, errDangling) {
		return "", nil, err
	}
	// %v, since this is not absence.
	return "", nil, fmt.Errorf("%w: the file changes faster than it can be read: %v", ErrUnavailable, err)
}

var errDangling = errors.New("leads nowhere: bring its target back (is a volume not mounted?) or remove the link")

// resolve follows every link in the path. If nothing is there it returns where
// the file would be.
func (s *FileStore) resolve() (path string, exists bool, err error) {
	path, err = filepath.EvalSymlinks(s.path)
	if !errors.Is(err, fs.ErrNotExist) {
		return path, err == nil, err
	}
	// Climb to the nearest name that exists. Only if that leads somewhere is
	// what lies below it absent.
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

// read reads the file at path, which holds no links.
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
		return nil, fmt.Errorf("%s is longer than %d bytes: it is not a key bundle", path, MaxBundleSize)
	case len(bundle) == 0:
		return nil, fmt.Errorf("%s is empty: restore it from a backup, or remove it to have a new key created", path)
	}
	return bundle, nil
}

func (s *FileStore) save(ctx context.Context, bundle []byte, prev Version) error {
	if s.opts.ReadOnly {
		return fmt.Errorf("%w (FileOptions.ReadOnly): write keys where the file comes from", ErrReadOnly)
	}
	if len(bundle) == 0 || len(bundle) > MaxBundleSize {
		return fmt.Errorf("a bundle of %d bytes: it must have 1 to %d", len(bundle), MaxBundleSize)
	}
	path, err := s.requireVersion(ctx, prev)
	if err != nil {
		return err // without having made a directory or a lock file
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
	// The bundle is saved by then, so an error is not worth a failed Save: the collector
	// closes the descriptor, and that frees the lock.
	defer func() { _ = l.Close() }()
	// Look again: whoever held the lock before us may have saved, or moved a link or the
	// directory, which left us with the lock of another file.
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

// insist calls f again while it is refused for now, for two seconds at most.
func insist(ctx context.Context, forNow func(error) bool, f func() error) error {
	for end := time.Now().Add(2 * time.Second); ; {
		err := f()
		if err == nil || !forNow(err) || time.Now().After(end) || !refresh.Sleep(ctx, 20*time.Millisecond) {
			return err
		}
	}
}

// requireVersion returns the path of the file, or an error unless the file may
// be replaced by one who has loaded prev.
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
