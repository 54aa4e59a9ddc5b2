//go:build linux

package crash

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// killAtEach runs a scenario once for each call that at selects, on a fresh path, and kills
// it at that call. check gets the calls until then, and the path.
func (b bench) killAtEach(t *testing.T, s scenario, prepare func() string, at func(sysCall) bool, check func(c sysCall, did []sysCall, path string)) {
	t.Helper()
	calls, _, ok := b.run(t, s.op, prepare())
	require.True(t, ok)
	for _, c := range calls {
		if at(c) {
			path := prepare()
			did, _, ok := b.run(t, s.op, path, c.killed())
			require.False(t, ok, "%s: was not killed", c)
			check(c, did, path)
		}
	}
}

// Kill -9 at each call leaves the old bundle or the new one, at most one temporary file, and
// no lock. A call that only reads changes nothing, so the short form skips it.
func TestFileStore_F1_KilledAtEveryCall(t *testing.T) {
	b := newBench(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			sawOld, sawNew, sawTemp := false, false, false
			at := func(c sysCall) bool { return testkit.Long(c.changes(), true) }
			b.killAtEach(t, s, func() string { return s.prepare(t) }, at, func(c sysCall, _ []sysCall, path string) {
				left := len(temps(t, path))
				require.LessOrEqual(t, left, 1, "%s", c)
				isNew := readKeys(t, path) != s.before
				sawOld, sawNew, sawTemp = sawOld || !isNew, sawNew || isNew, sawTemp || left == 1
				examine(t, path, s.before, c)
			})
			require.True(t, sawOld && sawNew && sawTemp, "the kills did not fall on both sides of the commit")
		})
	}
}

var (
	// vital matches the calls that write the new bundle to disk. Failures of others, such as
	// the removal of old files, are harmless.
	vital      = regexp.MustCompile(`^(mkdir|write|fsync|rename|fchmod|close.*\.tmp-|openat.*keys\.pem)`)
	takesSpace = regexp.MustCompile(`^(write|fsync|rename|mkdir|openat.*O_EXCL)`)
	syncsDir   = regexp.MustCompile(`^fsync\(\d+<[^>]*/\w+>`) // the names of directories have no dot
	tempName   = regexp.MustCompile(`\.tmp-\d+`)
)

// Each call fails in turn, and the error is reported unless it is harmless. What was written
// is discarded: after a failed fsync, the kernel may have dropped the pages and report
// success the next time. A signer whose rotation fails continues to use its keys, and rotates
// when it can. A file system that cannot sync directories (F17) is not an error.
func TestFileStore_F3_F4_F5_FailureAtEveryCall(t *testing.T) {
	b := newBench(t)
	for _, tc := range []struct {
		errno, text string // no text: it is harmless
		at          *regexp.Regexp
	}{
		{"EIO", "input/output error", regexp.MustCompile("")},
		{"ENOSPC", "no space left on device: free disk space", takesSpace},
		{"EDQUOT", "disk quota exceeded: free disk space and inodes there, or raise the quota", takesSpace},
		{"EROFS", "read-only file system: mount a writable volume there, ", regexp.MustCompile(`^(mkdir|rename|openat.*O_EXCL)`)},
		{"EPERM", "immutable (lsattr -d)", regexp.MustCompile(`^(mkdir|rename|openat.*O_EXCL)`)},
		{"EINVAL", "", syncsDir}, {"EOPNOTSUPP", "", syncsDir}, {"ENOSYS", "", syncsDir},
	} {
		for _, s := range scenarios {
			t.Run(s.op+" "+tc.errno, func(t *testing.T) {
				calls, _, _ := b.run(t, s.op, s.prepare(t))
				rotations := 0
				for _, c := range calls {
					if !tc.at.MatchString(c.Line) {
						continue
					}
					r := b.failAt(t, s, c, tc.errno)
					if tc.text == "" {
						assert.Empty(t, r.Err, "at %s", c.Line)
					} else if vital.MatchString(c.Line) {
						assert.Contains(t, r.Err, tc.text, "at %s", c.Line)
					}
					if strings.Contains(r.Err, "rotate: ") {
						rotations++
						require.True(t, r.GoesOn, "%s", c)
					}
				}
				require.Equal(t, s == rotation && tc.text != "", rotations > 1, "%d rotations failed", rotations)
			})
		}
	}
}

// failAt runs s with an error injected at call c and checks what must hold after any
// failure.
func (b bench) failAt(t *testing.T, s scenario, c sysCall, errno string) result {
	t.Helper()
	path := s.prepare(t)
	calls, r, ok := b.run(t, s.op, path, c.fails(errno))
	require.True(t, ok)
	injected, failed := 0, ""
	for _, c := range calls {
		if failed != "" && strings.Contains(c.Line, failed) {
			require.NotRegexp(t, `^(f(data)?sync|rename)`, c.Line, "a temporary file is used after a failure")
		}
		if strings.Contains(c.Line, "(INJECTED)") {
			if injected++; vital.MatchString(c.Line) {
				failed = tempName.FindString(c.Line)
			}
		}
	}
	require.Equal(t, 1, injected, "%s was not reached", c)
	if c.Name != "unlinkat" {
		require.Empty(t, temps(t, path), "%s: %s", c, r.Err)
	}
	if r.Err == "" {
		require.NotEqual(t, s.before, readKeys(t, path), "%s: lost", c)
	} else {
		require.Contains(t, r.Err, path)
		require.False(t, r.is(fleetkey.ErrConflict) || r.is(fleetkey.ErrNotExist) || r.is(fleetkey.ErrAccessDenied), "%s: %s", c, r.Err)
	}
	examine(t, path, s.before, c)
	return r
}

// Root is killed at each call that creates, renames or chowns a file. The service can
// still rotate, because no file of root's is in its way.
func TestFileStore_F7_RootIsKilled(t *testing.T) {
	needRoot(t)
	b := newBench(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			prepare := func() (path string) {
				path = s.prepare(t)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
				require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755))
				giveToNobody(t, filepath.Dir(path))
				if s.before != "" {
					giveToNobody(t, path)
				}
				return path
			}
			chowns := 0
			at := func(c sysCall) bool { return c.changes() || c.Name == "fchmod" || c.Name == "fchown" }
			b.killAtEach(t, s, prepare, at, func(c sysCall, _ []sysCall, path string) {
				if c.Name == "fchown" {
					chowns++
				}
				makeOld(t, temps(t, path))
				service := exec.Command(childBinary, "rotate", path)
				asNobody(service)
				require.Empty(t, runChild(t, service).Err, "%s", c)
				require.Empty(t, temps(t, path))
			})
			require.Equal(t, 2, chowns, "the lock and the bundle")
		})
	}
}

// FileStore never writes to a file system without locks. Some file systems without modes
// ignore a chmod, others refuse it: no key is written there. The same applies if root cannot
// keep the file's owner (F7), who would be locked out. On a file system without hard links,
// the lock is still created, with the right owner.
func TestFileStore_F7_F12_F17_NoLocksOrModes(t *testing.T) {
	b := newBench(t)
	const noLocks, noModes, noOwners, works = "does not support locks", "does not keep file modes", "belongs to uid 65534", ""
	for inject, want := range map[string]string{
		"flock:error=ENOLCK": noLocks, "flock:error=EOPNOTSUPP": noLocks, "flock:error=ENOSYS": noLocks,
		"fchmod:retval=0": noModes, "fchmod:error=EPERM": noModes, "fchmod:error=EOPNOTSUPP": noModes, "fchmod:error=ENOSYS": noModes,
		"fchown:error=EPERM": noOwners,
		"linkat:error=EPERM": works, "linkat:error=EOPNOTSUPP": works, "linkat:error=ENOSYS": works,
	} {
		for _, s := range scenarios {
			path, umask := s.prepare(t), 0o022
			if s.before != "" {
				giveToNobody(t, path)
			}
			if want == noOwners && (s.before == "" || os.Getuid() != 0) { // there is no other owner
				continue
			}
			if want == noModes {
				umask = 0o377 // so that the mode is wrong without the chmod
			}
			old := syscall.Umask(umask)
			calls, r, _ := b.run(t, s.op, path, inject)
			syscall.Umask(old)
			require.Empty(t, temps(t, path))
			if want == works {
				require.Empty(t, r.Err, inject)
				for _, name := range []string{path, path + ".lock"} {
					fi, err := os.Stat(name)
					require.NoError(t, err)
					require.Equal(t, fs.FileMode(0o600), fi.Mode(), inject)
					require.True(t, s.before == "" || os.Getuid() != 0 || fi.Sys().(*syscall.Stat_t).Uid == nobody, name)
				}
				continue
			}
			require.Contains(t, r.Err, want, "%s %s", s.op, inject)
			require.Contains(t, r.Err, path)
			require.Equal(t, s.before, readKeys(t, path))
			if want == noOwners {
				require.True(t, r.is(fs.ErrPermission))
				require.NoFileExists(t, path+".lock", "root's lock would lock the service out")
			}
			for _, c := range calls {
				require.NotRegexp(t, `^(write|rename)`, c.Line)
			}
		}
	}
}

// NFS returns ESTALE for a file that another machine has replaced, and an open can fail with
// ENOENT while a link is replaced. Load tries again. If that never succeeds, Load does not
// report an absent file.
func TestFileStore_F13_StaleHandle(t *testing.T) {
	b, path := newBench(t), rotation.prepare(t)
	calls, _, _ := b.run(t, "load", path)
	try := func(c sysCall, errno string) {
		_, r, _ := b.run(t, "load", path, c.fails(errno))
		assert.Empty(t, r.Err, c)

		after, r, _ := b.run(t, "load", path, c.fails(errno)+"+")
		assert.Contains(t, r.Err, path, c)
		assert.True(t, r.is(fleetkey.ErrUnavailable), c)
		assert.False(t, r.is(fleetkey.ErrNotExist) || r.is(fs.ErrNotExist), c)
		assert.Less(t, len(after), 10*len(calls), "the retries are not bounded")
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
