//go:build unix

package fleetkey_test

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// Modes, owners, special files and stopped processes: rows F5 to F7 and F14.

// asNobody makes a child obey file modes, which root does not.
func asNobody(cmd *exec.Cmd) (uid int) {
	if uid = os.Getuid(); uid == 0 {
		uid = 65534
		id := uint32(uid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id, NoSetGroups: true}}
		cmd.Dir = "/"
	}
	return uid
}

func giveToNobody(t *testing.T, paths ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	for _, p := range paths {
		require.NoError(t, os.Chown(p, 65534, 65534))
	}
}

func TestFileStore_F5_UnwritableDirectory(t *testing.T) {
	child := childBinary(t)
	type outcome struct{ load, save childResult }
	try := func(t *testing.T, path string, prev fleetkey.Version) (o outcome, uid string) {
		load, save := exec.Command(child, "load", path), exec.Command(child, "save", path, string(prev))
		uid = strconv.Itoa(asNobody(load))
		asNobody(save)
		return outcome{runChild(t, load), runChild(t, save)}, uid
	}
	requireDenied := func(t *testing.T, r childResult, dir, uid string) {
		assert.True(t, r.is(fs.ErrPermission), "%v", r)
		assert.False(t, r.is(fleetkey.ErrAccessDenied), "%v", r)
		assert.False(t, r.is(fleetkey.ErrConflict), "%v", r)
		assert.Contains(t, r.Err, dir)
		assert.Contains(t, r.Err, "uid "+uid)
	}
	t.Run("with keys", func(t *testing.T) {
		path := filepath.Join(publicDir(t), "keys", "keys.pem")
		_, v := stored(t, path, "one")
		giveToNobody(t, path, filepath.Dir(path))
		require.NoError(t, os.Chmod(filepath.Dir(path), 0o500))
		o, uid := try(t, path, v)
		assert.Equal(t, v, o.load.Version)
		assert.Empty(t, o.load.Err)
		requireDenied(t, o.save, filepath.Dir(path), uid)
		requireContent(t, path, "one")
	})
	t.Run("without keys", func(t *testing.T) {
		path := filepath.Join(publicDir(t), "keys", "keys.pem")
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o500))
		giveToNobody(t, filepath.Dir(path))
		o, uid := try(t, path, "")
		assert.True(t, o.load.is(fleetkey.ErrNotExist))
		requireDenied(t, o.save, filepath.Dir(path), uid)
		require.NoFileExists(t, path)
	})
	t.Run("missing and not ours to make", func(t *testing.T) {
		parent := publicDir(t)
		require.NoError(t, os.Chmod(parent, 0o555))
		path := filepath.Join(parent, "keys", "keys.pem")
		o, uid := try(t, path, "")
		assert.True(t, o.load.is(fleetkey.ErrNotExist))
		requireDenied(t, o.save, filepath.Dir(path), uid)
	})
	t.Run("not ours to search", func(t *testing.T) {
		dir := filepath.Join(publicDir(t), "keys")
		require.NoError(t, os.Mkdir(dir, 0o700))
		giveToNobody(t, dir)
		require.NoError(t, os.Chmod(dir, 0o600))
		o, uid := try(t, filepath.Join(dir, "keys.pem"), "")
		for _, r := range []childResult{o.load, o.save} {
			requireDenied(t, r, dir, uid)
			assert.False(t, r.is(fs.ErrNotExist), "hidden is not absent")
		}
	})
}

// A directory above that may be entered but not read cannot be synced, which is
// no reason to fail.
func TestFileStore_F5_ParentCannotBeRead(t *testing.T) {
	child := childBinary(t)
	for name, exists := range map[string]bool{"the directory is made": false, "the directory exists": true} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(publicDir(t), "parent")
			path := filepath.Join(parent, "keys", "keys.pem")
			require.NoError(t, os.Mkdir(parent, 0o700))
			if exists {
				require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
				giveToNobody(t, filepath.Dir(path))
			}
			giveToNobody(t, parent)
			require.NoError(t, os.Chmod(parent, 0o300))
			t.Cleanup(func() { os.Chmod(parent, 0o700) }) // so that it can be removed
			cmd := exec.Command(child, "first", path)
			asNobody(cmd)
			r := runChild(t, cmd)
			require.Empty(t, r.Err)
			require.True(t, r.Saved)
		})
	}
}

func TestFileStore_F6_Unreadable(t *testing.T) {
	child := childBinary(t)
	path := filepath.Join(publicDir(t), "keys", "keys.pem")
	stored(t, path, "one")
	require.NoError(t, os.Chmod(path, 0))
	giveToNobody(t, path, path+".lock", filepath.Dir(path))
	for _, op := range []string{"load", "save", "first"} {
		cmd := exec.Command(child, op, path)
		uid := asNobody(cmd)
		r := runChild(t, cmd)
		assert.True(t, r.is(fs.ErrPermission), "%v", r)
		assert.False(t, r.is(fs.ErrNotExist), "%v", r)
		assert.False(t, r.is(fleetkey.ErrAccessDenied), "%v", r)
		assert.Contains(t, r.Err, path)
		assert.Contains(t, r.Err, fmt.Sprintf("uid %d", uid))
	}
	require.NoError(t, os.Chmod(path, 0o600))
	requireContent(t, path, "one")
}

func TestFileStore_F6_NotAFile(t *testing.T) {
	for name, create := range map[string]func(t *testing.T, path string){
		"directory": func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
		"FIFO":      func(t *testing.T, path string) { require.NoError(t, syscall.Mkfifo(path, 0o600)) },
		"device":    func(t *testing.T, path string) { require.NoError(t, os.Symlink("/dev/zero", path)) },
		"socket": func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			t.Cleanup(func() { l.Close() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := publicDir(t) // short: a socket's name has 104 bytes at most
			path := filepath.Join(dir, "keys.pem")
			create(t, path)
			before, err := os.Lstat(path)
			require.NoError(t, err)

			s := fleetkey.NewFileStore(path)
			errs := make(chan error)
			go func() {
				_, _, err := s.Load(t.Context())
				errs <- err
				_, err = s.Save(t.Context(), []byte("new"), "")
				errs <- err
			}()
			for range 2 {
				select {
				case err := <-errs:
					requireRefused(t, err, path)
					if name != "socket" { // open itself refuses that
						require.ErrorContains(t, err, "not a regular file")
					}
				case <-time.After(10 * time.Second):
					require.Fail(t, "blocked")
				}
			}
			after, err := os.Lstat(path)
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after))
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 1, "nothing may be put beside it")
		})
	}
	require.NoFileExists(t, "/dev/zero.lock")
}

func TestFileStore_F6_LockIsAFIFO(t *testing.T) {
	path := newPath(t)
	s, v := stored(t, path, "one")
	require.NoError(t, os.Remove(path+".lock"))
	require.NoError(t, syscall.Mkfifo(path+".lock", 0o600))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.Save(t.Context(), []byte("two"), v) // flock on a FIFO works as well as on a file
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		require.Fail(t, "blocked")
	}
}

func TestFileStore_F7_ModeOfOthers(t *testing.T) {
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o620, 0o602, 0o611} {
		t.Run(fmt.Sprintf("%04o", mode), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "the server's keys.pem")
			s, v := stored(t, path, "one")
			require.NoError(t, os.Chmod(path, mode))
			_, _, err := s.Load(t.Context())
			requireRefused(t, err, path)
			require.ErrorContains(t, err, fmt.Sprintf("mode %04o", mode))
			_, err = s.Save(t.Context(), []byte("two"), v)
			requireRefused(t, err, path)
			requireContent(t, path, "one")

			// The error ends with the command that helps.
			_, command, ok := cutLast(err.Error(), "run: ")
			require.True(t, ok)
			require.NoError(t, exec.Command("sh", "-c", command).Run(), command)
			_, err = s.Save(t.Context(), []byte("two"), v)
			require.NoError(t, err)
		})
	}
}

func TestFileStore_F7_Umask(t *testing.T) {
	child := childBinary(t)
	for _, umask := range []string{"000", "022", "077", "777"} {
		t.Run(umask, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			if umask == "777" { // nobody could enter a directory made under that one
				require.NoError(t, os.Mkdir(dir, 0o700))
			}
			path := filepath.Join(dir, "keys.pem")
			r := runChild(t, exec.Command("sh", "-c", "umask "+umask+`; exec "$0" first "$1"`, child, path))
			require.Empty(t, r.Err)
			for p, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, path: 0o600, path + ".lock": 0o600} {
				fi, err := os.Stat(p)
				require.NoError(t, err)
				require.Equal(t, want, fi.Mode(), p)
			}
		})
	}
}

// When root saves, the service can go on reading and saving.
func TestFileStore_F7_OwnerIsKept(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away: NOT TESTED")
	}
	requireNobodys := func(t *testing.T, paths ...string) {
		for _, p := range paths {
			fi, err := os.Stat(p)
			require.NoError(t, err)
			st := fi.Sys().(*syscall.Stat_t)
			require.Equal(t, []uint32{65534, 65534}, []uint32{st.Uid, st.Gid}, p)
		}
	}
	t.Run("replaced", func(t *testing.T) {
		path := newPath(t)
		s, v := stored(t, path, "one")
		require.NoError(t, os.Remove(path+".lock"))
		giveToNobody(t, path)
		_, err := s.Save(t.Context(), []byte("two"), v)
		require.NoError(t, err)
		requireNobodys(t, path, path+".lock")
	})
	t.Run("created in the service's directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.pem")
		giveToNobody(t, filepath.Dir(path))
		stored(t, path, "one")
		requireNobodys(t, path, path+".lock")
	})
}

func TestFileStore_F14_StoppedLockHolder(t *testing.T) {
	child := childBinary(t)
	path := newPath(t)
	s, v := stored(t, path, "one")
	holder := exec.Command(child, "-timeout", "1m", "hold", path)
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	_, err = out.Read(make([]byte, 16)) // "held"
	require.NoError(t, err)
	require.NoError(t, holder.Process.Signal(syscall.SIGSTOP))

	waiter := exec.Command(child, "-timeout", "200ms", "save", path, string(v))
	r := runChild(t, waiter)
	require.Contains(t, r.ErrTypes, "context deadline exceeded")
	require.Contains(t, r.Err, path+".lock")
	_, got, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, v, got)

	require.NoError(t, holder.Process.Kill())
	_, err = s.Save(t.Context(), []byte("two"), v)
	require.NoError(t, err, "the kernel frees the lock of a dead process")
}
