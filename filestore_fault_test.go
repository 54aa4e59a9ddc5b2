//go:build linux

package fleetkey_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// Death, power cut and failure at every system call: rows F1 to F5, F12, F13.

func makeOld(t *testing.T, name string) {
	t.Helper()
	old := time.Now().Add(-61 * time.Minute)
	require.NoError(t, os.Chtimes(name, old, old))
}

// kill -9 at each call in turn leaves the old bundle or the new one, at most
// one temporary file, and no lock.
func TestFileStore_F1_KilledAtEveryCall(t *testing.T) {
	bench := newStraceBench(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			_, args := s.prepare(t)
			calls, _, ok := bench.run(t, nil, args...)
			require.True(t, ok)
			require.Greater(t, len(calls), 20)
			sawOld, sawNew, sawTemp := false, false, false
			for _, c := range calls {
				path, args := s.prepare(t)
				_, _, ok := bench.run(t, []string{fmt.Sprintf("%s:signal=KILL:when=%d", c.Name, c.N)}, args...)
				require.False(t, ok, "%s: was not killed", c)
				require.LessOrEqual(t, len(temps(t, path)), 1, "%s", c)
				now, isNew := s.requireOldOrNew(t, path)
				sawOld, sawNew, sawTemp = sawOld || !isNew, sawNew || isNew, sawTemp || len(temps(t, path)) == 1
				s.requireNextSaveWorks(t, path, now)
			}
			require.True(t, sawOld && sawNew && sawTemp, "the kills did not fall on both sides of the commit")
		})
	}
}

// What is written is on the disk before its name is, and both are before Save
// returns; so are the directories that it makes.
func TestFileStore_F2_OrderOfSync(t *testing.T) {
	bench := newStraceBench(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			path, args := s.prepare(t)
			calls, _, ok := bench.run(t, nil, args...)
			require.True(t, ok)
			dir := regexp.QuoteMeta(filepath.Dir(path))
			temp := dir + `/\.keys\.pem\.tmp-\d+`
			order := []string{
				`^write\(\d+<` + temp + `>`,
				`^fsync\(\d+<` + temp + `>`,
				`^rename.*"` + temp + `".*"` + dir + `/keys\.pem"`,
				`^fsync\(\d+<` + dir + `>`,
			}
			if s.before == "" {
				parent := filepath.Dir(dir)
				order = append([]string{`^fsync\(\d+<` + filepath.Dir(parent) + `>`, `^mkdir.*"` + dir + `"`, `^fsync\(\d+<` + parent + `>`}, order...)
			}
			// Every write, sync, rename and mkdir that took effect, in this order.
			var got []string
			for _, c := range calls {
				if regexp.MustCompile(`^(p?write|f(data)?sync|rename|mkdir|f?truncate)`).MatchString(c.Line) && !strings.Contains(c.Line, "= -1 ") {
					got = append(got, c.Line)
				}
			}
			require.Len(t, got, len(order), "%s", strings.Join(got, "\n"))
			for i, want := range order {
				require.Regexp(t, want, got[i])
			}
		})
	}
}

// failAt runs s with an error injected at call c and checks what must hold
// after any failure.
func (b straceBench) failAt(t *testing.T, s scenario, c sysCall, errno string) (r childResult, path string, isNew bool) {
	t.Helper()
	path, args := s.prepare(t)
	calls, r, ok := b.run(t, []string{fmt.Sprintf("%s:error=%s:when=%d", c.Name, errno, c.N)}, args...)
	require.True(t, ok)
	hit := false
	for _, c := range calls {
		hit = hit || strings.Contains(c.Line, "(INJECTED)")
	}
	require.True(t, hit, "%s was not reached", c)
	if c.Name != "unlinkat" {
		require.Empty(t, temps(t, path), "%s: %s", c, r.Err)
	}
	now, isNew := s.requireOldOrNew(t, path)
	if r.Err == "" {
		require.True(t, isNew, "%s: lost", c)
	} else {
		require.Contains(t, r.Err, path)
		require.Contains(t, r.Err, " keys ")
		require.False(t, r.is(fleetkey.ErrConflict) || r.is(fleetkey.ErrNotExist) || r.is(fleetkey.ErrAccessDenied), "%s: %s", c, r.Err)
	}
	s.requireNextSaveWorks(t, path, now)
	return r, path, isNew
}

// The calls that bring the new bundle to the disk. Of the others some may fail
// at no cost, such as the tidying of old files.
var vital = regexp.MustCompile(`^(mkdir|write|fsync|rename|fchmod|close.*\.tmp-|openat.*keys\.pem)`)

// EIO at each call in turn, until a run is clean.
func TestFileStore_F4_FailureAtEveryCall(t *testing.T) {
	bench := newStraceBench(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			_, args := s.prepare(t)
			calls, _, _ := bench.run(t, nil, args...)
			for _, c := range calls {
				r, _, isNew := bench.failAt(t, s, c, "EIO")
				if vital.MatchString(c.Line) && !strings.Contains(c.Line, "EEXIST") {
					assert.NotEmpty(t, r.Err, "EIO is not reported at %s", c.Line)
				}
				if r.Err != "" && strings.Contains(c.Line, ".tmp-") {
					assert.False(t, isNew, "a bundle that may not be on the disk was put in place: %s", c.Line)
				}
			}
		})
	}
}

// fsync is not tried again on the same file: after an error the kernel may
// have dropped the pages and say that all is well.
func TestFileStore_F4_SyncIsNotRetried(t *testing.T) {
	bench := newStraceBench(t)
	s := scenarios[1]
	path, args := s.prepare(t)
	calls, r, _ := bench.run(t, []string{"fsync:error=EIO:when=1"}, args...)
	require.Contains(t, r.Err, "input/output error")
	syncs := 0
	for _, c := range calls {
		if c.Name == "fsync" {
			syncs++
		}
		require.NotContains(t, c.Name, "rename")
	}
	require.Equal(t, 1, syncs)
	requireContent(t, path, s.before)
}

func TestFileStore_F3_DiskFull(t *testing.T) {
	t.Run("errors", func(t *testing.T) {
		bench := newStraceBench(t)
		for errno, text := range map[string]string{"ENOSPC": "no space left on device", "EDQUOT": "disk quota exceeded"} {
			for _, s := range scenarios {
				_, args := s.prepare(t)
				calls, _, _ := bench.run(t, nil, args...)
				tried := 0
				for _, c := range calls {
					if !regexp.MustCompile(`^(write|fsync|rename|mkdir|openat.*O_EXCL)`).MatchString(c.Line) {
						continue
					}
					tried++
					r, path, _ := bench.failAt(t, s, c, errno)
					require.Contains(t, r.Err, "save keys to file "+path+": ")
					require.Contains(t, r.Err, text)
				}
				require.GreaterOrEqual(t, tried, 5)
			}
		}
	})
	t.Run("tmpfs", func(t *testing.T) {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("a small disk cannot be mounted here, so that a really full one is NOT TESTED: %v", err)
		}
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
		path, big := filepath.Join(dir, "keys.pem"), strings.Repeat("k", fleetkey.MaxBundleSize)
		s, v := stored(t, path, "one")
		ballast := filepath.Join(dir, "ballast")
		require.NoError(t, os.WriteFile(ballast, make([]byte, 32<<10), 0o600))

		_, err := s.Save(t.Context(), []byte(big), v)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, "save keys to file "+path)
		requireContent(t, path, "one")
		require.Empty(t, temps(t, path))

		require.NoError(t, os.Remove(ballast))
		_, err = s.Save(t.Context(), []byte(big[:32<<10]), v)
		require.NoError(t, err)
	})
}

func TestFileStore_F5_ReadOnlyFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("nothing can be mounted here: NOT TESTED: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	path := filepath.Join(dir, "keys.pem")
	s, v := stored(t, path, "one")
	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	_, got, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, v, got)
	_, err = s.Save(t.Context(), []byte("two"), v)
	require.ErrorIs(t, err, syscall.EROFS)
	requireRefused(t, err, path)

	empty := fleetkey.NewFileStore(filepath.Join(dir, "new", "keys.pem"))
	_, _, err = empty.Load(t.Context())
	require.ErrorIs(t, err, fleetkey.ErrNotExist)
	_, err = empty.Save(t.Context(), []byte("one"), "")
	require.ErrorIs(t, err, syscall.EROFS)
	requireRefused(t, err, filepath.Join(dir, "new"))
}

// The file's owner cannot be kept (root without CAP_CHOWN): the service would
// be locked out of its keys, so nothing is saved.
func TestFileStore_F7_OwnerCannotBeKept(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can read another's keys: NOT TESTED")
	}
	bench := newStraceBench(t)
	s := scenarios[1]
	path, args := s.prepare(t)
	require.NoError(t, os.Remove(path+".lock"))
	giveToNobody(t, path)
	_, r, _ := bench.run(t, []string{"fchown:error=EPERM"}, args...)
	require.Contains(t, r.Err, path)
	require.Contains(t, r.Err, "belongs to uid 65534")
	require.True(t, r.is(fs.ErrPermission))
	requireContent(t, path, s.before)
	require.Empty(t, temps(t, path))
	require.NoFileExists(t, path+".lock", "root's lock would lock the service out")
}

// Root is killed at each call that makes, renames or gives away a file: the
// service can still save, since nothing of root's is in its way.
func TestFileStore_F7_RootIsKilled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away: NOT TESTED")
	}
	bench := newStraceBench(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			prepare := func() (path string, args []string) {
				path, args = s.prepare(t)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
				require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755))
				_ = os.Remove(path + ".lock") // so that root makes it
				_ = os.Chown(path, 65534, 65534)
				giveToNobody(t, filepath.Dir(path))
				return path, args
			}
			_, args := prepare()
			calls, _, ok := bench.run(t, nil, args...)
			require.True(t, ok)
			chowns := 0
			for _, c := range calls {
				if unseen(c) && !strings.HasPrefix(c.Name, "fch") {
					continue
				}
				if c.Name == "fchown" {
					chowns++
				}
				path, args := prepare()
				_, _, ok := bench.run(t, []string{fmt.Sprintf("%s:signal=KILL:when=%d", c.Name, c.N)}, args...)
				require.False(t, ok, "%s: was not killed", c)
				_, prev, err := fleetkey.NewFileStore(path).Load(t.Context())
				require.True(t, err == nil || s.before == "" && errors.Is(err, fleetkey.ErrNotExist), "%v", err)
				for _, name := range temps(t, path) {
					makeOld(t, name)
				}
				service := exec.Command(bench.child, "save", path, string(prev))
				asNobody(service)
				require.Empty(t, runChild(t, service).Err, "%s", c)
				require.Empty(t, temps(t, path))
			}
			require.Equal(t, 2, chowns, "the lock and the bundle")
		})
	}
}

// A file system without hard links gets its lock nonetheless.
func TestFileStore_F12_NoHardLinks(t *testing.T) {
	bench := newStraceBench(t)
	for _, errno := range []string{"EPERM", "EOPNOTSUPP", "ENOSYS"} {
		path, args := scenarios[0].prepare(t)
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
		giveToNobody(t, filepath.Dir(path))
		_, r, _ := bench.run(t, []string{"linkat:error=" + errno}, args...)
		require.Empty(t, r.Err, errno)
		requireWhole(t, path)
		require.Empty(t, temps(t, path))
		dir, err := os.Stat(filepath.Dir(path))
		require.NoError(t, err)
		lock, err := os.Stat(path + ".lock")
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), lock.Mode(), errno)
		require.Equal(t, dir.Sys().(*syscall.Stat_t).Uid, lock.Sys().(*syscall.Stat_t).Uid, errno)
	}
}

// A file system without locks is refused, never written unlocked.
func TestFileStore_F12_NoLocks(t *testing.T) {
	bench := newStraceBench(t)
	for _, errno := range []string{"ENOLCK", "ENOSYS", "EOPNOTSUPP"} {
		for _, s := range scenarios {
			t.Run(errno+" "+s.name, func(t *testing.T) {
				path, args := s.prepare(t)
				calls, r, _ := bench.run(t, []string{"flock:error=" + errno}, args...)
				require.Contains(t, r.Err, "locking is not supported on the file system at "+path)
				require.False(t, r.Saved)
				for _, c := range calls {
					require.NotRegexp(t, `^(write|rename)`, c.Line)
				}
				_, isNew := s.requireOldOrNew(t, path)
				require.False(t, isNew)
			})
		}
	}
}

// NFS answers ESTALE for a file that was replaced on another machine, and an
// open finds nothing if a link has just moved on. One look more finds the new
// file. If that never ends it is not absence.
func TestFileStore_F13_StaleHandle(t *testing.T) {
	bench := newStraceBench(t)
	path := newPath(t)
	_, v := stored(t, path, "one")
	calls, _, _ := bench.run(t, nil, "load", path)
	try := func(c sysCall, errno string) {
		_, r, _ := bench.run(t, []string{fmt.Sprintf("%s:error=%s:when=%d", c.Name, errno, c.N)}, "load", path)
		assert.Empty(t, r.Err, c)
		assert.Equal(t, v, r.Version, c)

		after, r, _ := bench.run(t, []string{fmt.Sprintf("%s:error=%s:when=%d+", c.Name, errno, c.N)}, "load", path)
		assert.Contains(t, r.Err, path, c)
		assert.True(t, r.is(fleetkey.ErrUnavailable), c)
		assert.False(t, r.is(fs.ErrNotExist), c)
		assert.Less(t, len(after), 10*len(calls), "bounded")
	}
	tried := 0
	for _, c := range calls {
		if !strings.Contains(c.Line, "keys.pem") || c.Name == "close" || c.Name == "fcntl" {
			continue
		}
		try(c, "ESTALE")
		if tried++; strings.HasPrefix(c.Name, "open") {
			try(c, "ENOENT")
		}
	}
	require.GreaterOrEqual(t, tried, 4, "lstat, open, fstat, read")
}
