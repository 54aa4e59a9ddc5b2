//go:build unix

package crash

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// Processes of other users, or with an unusual umask. File modes do not apply to root, so if
// the tests run as root, their children run as nobody.

const nobody = 65534

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can change a file's owner (run as root)")
	}
}

func asNobody(cmd *exec.Cmd) (uid int) {
	if uid = os.Getuid(); uid == 0 {
		uid = nobody
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}}
		cmd.Dir = "/"
	}
	return uid
}

func giveToNobody(t *testing.T, path string) {
	t.Helper()
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(path, nobody, nobody))
	}
}

// try runs one operation as a user to whom file modes apply.
func try(t *testing.T, op, path string) (r result, uid string) {
	t.Helper()
	cmd := exec.Command(childBinary, op, path)
	id := asNobody(cmd)
	return runChild(t, cmd), fmt.Sprintf("uid %d", id)
}

// requireDenied requires fs.ErrPermission with the path and the user, and no sentinel of the store.
func requireDenied(t *testing.T, path, op string) {
	t.Helper()
	r, uid := try(t, op, path)
	assert.True(t, r.is(fs.ErrPermission), "%s: %v", op, r)
	for _, not := range []error{fs.ErrNotExist, fleetkey.ErrNotExist, fleetkey.ErrAccessDenied, fleetkey.ErrConflict} {
		assert.False(t, r.is(not), "%s: %v", op, r)
	}
	assert.Contains(t, r.Err, filepath.Dir(path))
	assert.Contains(t, r.Err, uid)
}

func TestFileStore_F5_F6_Permissions(t *testing.T) {
	for _, tc := range []struct {
		name              string
		parent, dir, keys fs.FileMode // zero: does not exist
		works, denied     []string
		notExist          bool
	}{
		{name: "with keys", parent: 0o755, dir: 0o500, keys: 0o600, works: []string{"load", "start"}, denied: []string{"rotate"}},
		{name: "without keys", parent: 0o755, dir: 0o500, notExist: true, denied: []string{"start"}},
		{name: "missing and not ours to make", parent: 0o500, notExist: true, denied: []string{"start"}},
		{name: "not ours to search", parent: 0o755, dir: 0o600, keys: 0o600, denied: []string{"load", "create", "start"}},
		{name: "keys not ours to read", parent: 0o755, dir: 0o700, keys: 0o200, denied: []string{"load", "create", "start"}},
		// A directory that can be entered but not read cannot be synced, which is not an
		// error.
		{name: "made in a parent that cannot be read", parent: 0o300, works: []string{"start", "rotate"}},
		{name: "in a parent that cannot be read", parent: 0o300, dir: 0o700, works: []string{"start", "rotate"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(publicDir(t), "lib", "keys", "keys.pem")
			dir := filepath.Dir(path)
			parent := filepath.Dir(dir)
			writeKeys(t, path, oneKey())
			modes := []fs.FileMode{tc.keys, tc.dir, tc.parent}
			for i, name := range []string{path, dir, parent} {
				if modes[i] == 0 {
					require.NoError(t, os.RemoveAll(name))
					continue
				}
				giveToNobody(t, name)
				require.NoError(t, os.Chmod(name, modes[i]))
			}
			open := func() { _, _ = os.Chmod(parent, 0o700), os.Chmod(dir, 0o700) }
			t.Cleanup(open)
			if tc.notExist {
				r, _ := try(t, "load", path)
				assert.True(t, r.is(fleetkey.ErrNotExist), "%v", r)
			}
			for _, op := range tc.works {
				r, _ := try(t, op, path)
				assert.Empty(t, r.Err, op)
			}
			for _, op := range tc.denied {
				requireDenied(t, path, op)
			}
			if open(); tc.keys != 0 {
				require.NoError(t, os.Chmod(path, 0o600))
				require.Equal(t, oneKey(), readKeys(t, path))
			} else if tc.denied != nil {
				require.NoFileExists(t, path)
			}
		})
	}
}

func TestFileStore_F7_Umask(t *testing.T) {
	for _, umask := range []string{"000", "022", "077", "777"} {
		t.Run(umask, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			if umask == "777" { // nobody could enter a directory created with that one
				require.NoError(t, os.Mkdir(dir, 0o700))
			}
			path := filepath.Join(dir, "keys.pem")
			r := runChild(t, exec.Command("sh", "-c", "umask "+umask+`; exec "$0" start "$1"`, childBinary, path))
			require.Empty(t, r.Err)
			for p, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, path: 0o600, path + ".lock": 0o600} {
				fi, err := os.Stat(p)
				require.NoError(t, err)
				require.Equal(t, want, fi.Mode(), p)
			}
		})
	}
}
