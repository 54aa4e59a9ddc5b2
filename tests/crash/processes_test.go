package crash

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// Real processes that meet at one file (rows F9 and F10). Threads would not do: the
// lock, the rename and the death of a process belong to the kernel.

const fleetSize = 64

// runFleet starts many children that begin their work at the same moment, and
// returns what they print. If kill is set, half of them are killed while they work,
// whoever holds the lock included.
func runFleet(t *testing.T, binary, op, path string, kill bool) (results []result) {
	t.Helper()
	gate, release, err := os.Pipe()
	require.NoError(t, err)
	defer gate.Close()
	cmds, outs := make([]*exec.Cmd, fleetSize), make([]bytes.Buffer, fleetSize)
	for i := range cmds {
		cmds[i] = exec.Command(binary, op, path)
		cmds[i].Stdin, cmds[i].Stdout, cmds[i].Stderr = gate, &outs[i], os.Stderr
		require.NoError(t, cmds[i].Start())
	}
	require.NoError(t, release.Close())
	mayDie := 0
	if kill {
		mayDie = fleetSize / 2
	}
	for _, i := range rand.Perm(fleetSize)[:mayDie] {
		time.Sleep(rand.N(time.Millisecond)) // spreads the kills; nothing waits for it
		_ = cmds[i].Process.Kill()           // it may have ended already
	}
	for i, cmd := range cmds {
		if cmd.Wait() != nil {
			continue // killed
		}
		var r result
		require.NoError(t, json.Unmarshal(outs[i].Bytes(), &r), "%s", &outs[i])
		results = append(results, r)
	}
	require.GreaterOrEqual(t, len(results), fleetSize-mayDie)
	return results
}

// requireOneKey: all processes work with the newest key in the file.
func requireOneKey(t *testing.T, path string, results []result, keys int) (kid string) {
	t.Helper()
	s := testkit.Start(t, fleetkey.NewFileStore(path), testkit.Config())
	require.Len(t, s.PublicKeys(), keys)
	kid = s.Status().Keys[0].KeyID
	for _, r := range results {
		require.Empty(t, r.Err)
		require.Equal(t, kid, r.Newest)
	}
	return kid
}

// A fleet starts at once without a key, and rotates at once. One key results each
// time, and all use it.
func TestFileStore_F9_F10_FleetOfProcesses(t *testing.T) {
	plain := childBinary(t)
	t.Run("plain build", func(t *testing.T) { testFleet(t, plain, testkit.Long(1, 100)) })
	if !testkit.Long(false, true) {
		return
	}
	t.Run("race build", func(t *testing.T) {
		child, err := raceChild()
		if err != nil { // the plain one was built
			testkit.Missing(t, "the race detector", "install a C compiler: "+err.Error())
		}
		testFleet(t, child, 10) // each start is slow
	})
}

func testFleet(t *testing.T, child string, rounds int) {
	t.Helper()
	for name, kill := range map[string]bool{"all live": false, "half are killed": true} {
		t.Run(name, func(t *testing.T) {
			killed := 0
			for range rounds {
				path := filepath.Join(t.TempDir(), "new", "keys.pem")
				results := runFleet(t, child, "start", path, kill)
				killed += fleetSize - len(results)
				first := requireOneKey(t, path, results, 1)
				results = runFleet(t, child, "rotate", path, kill)
				killed += fleetSize - len(results)
				require.NotEqual(t, first, requireOneKey(t, path, results, 2))
				if !kill {
					require.Empty(t, temps(t, path))
				}
			}
			require.Equal(t, kill, killed > 0, "no kill came in time: this run tested nothing")
		})
	}
}

// The file is gone, unreadable, damaged or open to others. A running signer keeps
// using the keys that it has, and a new one makes keys only where nothing is left.
func TestFileStore_RunningSignerKeepsItsKeys(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"F5 directory gone": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"F6 a directory":    func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"F7 open to others": func(path string) error { return os.Chmod(path, 0o644) },
		"F8 dangling link":  func(path string) error { return errors.Join(os.Remove(path), os.Symlink(path+"x", path)) },
		"F11 truncated":     func(path string) error { return os.Truncate(path, 700) },
		"F11 empty":         func(path string) error { return os.Truncate(path, 0) },
		"F15 deleted":       os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			if os.PathSeparator == '\\' && (name[:2] == "F7" || name[:2] == "F8") {
				t.Skip("skipped: Windows has no modes, and links need a privilege")
			}
			path := filepath.Join(t.TempDir(), "keys", "keys.pem")
			s := testkit.Start(t, fleetkey.NewFileStore(path), testkit.Config())
			token := testkit.Issue(t, s)
			require.NoError(t, harm(path))
			require.ErrorContains(t, s.Refresh(t.Context()), path)
			testkit.Accepts(t, token, s)
			testkit.Accepts(t, testkit.Issue(t, s), s)
			require.Error(t, s.Status().LoadErr)
			if name == "F15 deleted" || name == "F5 directory gone" {
				require.NoFileExists(t, path, "no fresh keys")
				return
			}
			_, err := fleetkey.NewSigner(t.Context(), fleetkey.NewFileStore(path), testkit.Config())
			require.Error(t, err, "a new signer does not take it for absent")
		})
	}
}
