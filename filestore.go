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
// administrators access that.
//
// # Network folders
//
// The lock is flock(2), or LockFileEx on Windows. On a file system without locks Save
// fails; it never writes unlocked. Do not share an NFS folder that is mounted with nolock
// or local_lock, which lock each machine separately. A context cannot interrupt a call
// that hangs in the kernel, as on a hard NFS mount whose server is away.
type FileStore struct {
	path string // absolute, links not yet followed
}

// NewFileStore returns the store in the file at path. It does not touch the
// disk. A relative path is taken from the present working directory.
func NewFileStore(path string) *FileStore {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs // a later Chdir must not make the keys seem absent
	}
	return &FileStore{path: path}
}

// String names the store for errors and logs: "file /var/lib/app/keys.pem".
func (s *FileStore) String() string { return "file " + s.path }

// Load implements [KeyStore]. The [Version] is the SHA-256 of the content.
//
// The error matches [ErrNotExist] only if nothing exists at the path, including when the
// directory is missing. Load rejects a file that is empty, longer than [MaxBundleSize],
// not a regular file or, except on Windows, accessible to group or others.
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

func (s *FileStore) explain(op string, err error) error {
	uid := ""
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() >= 0 {
		uid = fmt.Sprintf(" (running as uid %d)", os.Geteuid())
	}
	return fmt.Errorf("%s %s: %w%s", op, s, err, uid)
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
		if path, exists, err = s.resolve(); err == nil {
			if !exists {
				return path, nil, ErrNotExist
			}
			bundle, err = readBundle(path)
		}
		// The file was replaced between two steps: ESTALE is how NFS says
		// so; ENOENT is a link that now leads elsewhere. Look again.
		if !errors.Is(err, syscall.ESTALE) && !errors.Is(err, fs.ErrNotExist) {
			return path, bundle, err
		}
	}
	// %v, since this is not absence.
	return "", nil, fmt.Errorf("%w: the file changes faster than it can be read: %v", ErrUnavailable, err)
}

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
			return "", false, fmt.Errorf("the symbolic link %s leads nowhere: bring its target back (is a volume not mounted?) or remove the link", p)
		}
		return filepath.Join(path, rest), err == nil && rest == "", err
	}
}

// readBundle reads the file at path, which holds no links.
func readBundle(path string) ([]byte, error) {
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
	if err := checkMode(path, fi); err != nil {
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
	unlock, err := lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	// Look again: whoever held the lock before us may have saved, or moved a
	// link, which left us with the lock of another file.
	again, err := s.requireVersion(ctx, prev)
	if err != nil {
		return err
	}
	if again != path {
		return ErrConflict
	}
	removeStale(path)
	return replace(ctx, path, bundle)
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

// makeDir is os.MkdirAll, but makes the directory survive a power cut, also if it
// was made by another process, which may have been killed before it synced it.
// Those above were synced by whoever made a directory in them.
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
	return nil // the parent may be written but not read, so not synced either
}

// lock keeps other writers of path out until unlock is called or the process
// ends, however it ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	name := path + ".lock"
	if err := makeLock(name, path); err != nil {
		return nil, err
	}
	l := flock.New(name, flock.SetFlag(os.O_RDWR|noWait))
	switch _, err := l.TryLockContext(ctx, 10*time.Millisecond); {
	case err == nil:
		// The bundle is saved by then, so an error is not worth a failed Save:
		// the collector closes the descriptor, and that frees the lock.
		return func() { _ = l.Close() }, nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, fmt.Errorf("wait for other writers at the lock %s: %w", name, err)
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.ENOLCK):
		return nil, fmt.Errorf("locking is not supported on the file system at %s (move the file or mount it with locks): %w", path, err)
	default:
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
}

// makeLock makes the lock file of path unless it exists. The file gets its owner before
// its name: if root were killed in between, only root could open the lock, and the
// service could never save again.
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
		// No hard links here, regardless of what the error says. Few such file
		// systems have owners.
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

// replace puts bundle in the place of the file at path, durably and whole.
func replace(ctx context.Context, path string, bundle []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path)+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name()) // after the rename the name is gone: no harm
		}
	}()
	if err := setOwner(f, path); err != nil {
		return err
	}
	if _, err := f.Write(bundle); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func tempPrefix(path string) string { return "." + filepath.Base(path) + ".tmp-" }

// removeStale removes the temporary files of writers that died. The lock must be held;
// the hour is for writers that lost theirs (a network folder whose server was restarted).
// Best effort; errors are ignored.
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
