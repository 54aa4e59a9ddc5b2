//go:build linux

package crash

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// Files as containers see them. Each child has its own mount namespace, and is root in it.

// inContainer runs one operation of the child behind a bind mount.
func inContainer(t *testing.T, op, path, source, target, how string) result {
	t.Helper()
	cmd := exec.Command(childBinary, op, path)
	cmd.Env = append(os.Environ(), "BIND="+source+":"+target+":"+how)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: 1}}
	}
	return runChild(t, cmd)
}

func needMounts(t *testing.T) {
	t.Helper()
	source, target := t.TempDir(), t.TempDir()
	cmd := exec.Command("unshare", "--mount", "--map-root-user", "mount", "--bind", source, target)
	if os.Getuid() == 0 {
		cmd = exec.Command("unshare", "--mount", "mount", "--bind", source, target)
	}
	if cmd.Run() != nil {
		testkit.Missing(t, "permission to mount file systems", "install util-linux, and run as root or allow user namespaces")
	}
}

// container returns the path of the keys on the host and in the container.
func container(t *testing.T) (host, inside string) {
	t.Helper()
	dir := publicDir(t)
	host, inside = filepath.Join(dir, "host.pem"), filepath.Join(dir, "keys.pem")
	for _, path := range []string{host, host + ".new", inside} {
		writeKeys(t, path, oneKey())
	}
	return host, inside
}

// A bind-mounted file can be read but not replaced. After a rotation on the host, a container
// with the old file would never see a change again.
func TestFileStore_F18_BindMountOfAFile(t *testing.T) {
	needMounts(t)
	host, inside := container(t)
	for _, op := range []string{"load", "readonly-load", "start"} {
		require.Empty(t, inContainer(t, op, inside, host, inside, "rw").Err, op)
	}
	r := inContainer(t, "rotate", inside, host, inside, "rw")
	require.Contains(t, r.Err, inside+" cannot be replaced: it is probably a mount point itself")
	require.Contains(t, r.Err, "mount its directory")
	require.False(t, r.GoesOn || r.is(fleetkey.ErrConflict))
	require.Equal(t, oneKey(), readKeys(t, host))
	require.Empty(t, temps(t, inside))
	for _, op := range []string{"load", "readonly-load", "start", "create"} {
		host, inside := container(t)
		r := inContainer(t, op, inside, host, inside, "replaced")
		require.Contains(t, r.Err, inside+" has no links left", op)
		require.Contains(t, r.Err, "mount its directory instead", op)
		require.False(t, r.is(fs.ErrNotExist) || r.is(fleetkey.ErrUnavailable), op)
	}
}

// A mounted directory stays empty forever if its source was removed and recreated. This does
// not mean that the keys are absent, so no key is created.
func TestFileStore_F18_BindMountIsRemoved(t *testing.T) {
	needMounts(t)
	for _, below := range []string{"", "new/er"} {
		for _, op := range []string{"load", "readonly-load", "start", "readonly-start", "create"} {
			host, to := publicDir(t), t.TempDir()
			writeKeys(t, filepath.Join(host, "keys.pem"), oneKey())
			r := inContainer(t, op, filepath.Join(to, below, "keys.pem"), host, to, "removed")
			require.Contains(t, r.Err, to+" has no links left", op)
			require.False(t, r.is(fs.ErrNotExist) || r.is(fleetkey.ErrUnavailable), op)
		}
	}
}

// Not even root can change a mode on a read-only mount. A ReadOnly store accepts such a file,
// and a plain one does if only the owner can read it.
func TestFileStore_F19_ReadOnlyMount(t *testing.T) {
	needMounts(t)
	host, inside := container(t)
	from, to := filepath.Dir(host), t.TempDir()
	inside = filepath.Join(to, filepath.Base(inside))
	require.Empty(t, inContainer(t, "start", inside, from, to, "ro").Err)
	require.Contains(t, inContainer(t, "rotate", inside, from, to, "ro").Err, "read-only file system")
	require.NoError(t, os.Chmod(filepath.Join(from, filepath.Base(inside)), 0o440))
	r := inContainer(t, "start", inside, from, to, "ro")
	require.Contains(t, r.Err, "mode 0440")
	require.Contains(t, r.Err, "FileOptions.ReadOnly")
	require.NotContains(t, r.Err, "chmod", "chmod is impossible there")
	require.Empty(t, inContainer(t, "readonly-start", inside, from, to, "ro").Err)
	require.True(t, inContainer(t, "readonly-rotate", inside, from, to, "ro").is(fleetkey.ErrReadOnly))
	r = inContainer(t, "readonly-start", filepath.Join(to, "absent.pem"), from, to, "ro")
	require.True(t, r.is(fleetkey.ErrNotExist) && r.is(fleetkey.ErrReadOnly), "%v", r)
}

// The service cannot change the mode of somebody else's file either.
func TestFileStore_F19_OwnedByOthers(t *testing.T) {
	needRoot(t)
	path := filepath.Join(publicDir(t), "keys.pem")
	writeKeys(t, path, oneKey())
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o755))
	require.NoError(t, os.Chmod(path, 0o444))
	r, _ := try(t, "start", path)
	require.Contains(t, r.Err, "FileOptions.ReadOnly")
	require.NotContains(t, r.Err, "chmod")
	r, _ = try(t, "readonly-start", path)
	require.Empty(t, r.Err)
}
