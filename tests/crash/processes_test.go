package crash

import (
	"bytes"
	"encoding/json"
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
func runFleet(t *testing.T, op, path string, kill bool) (results []result) {
	t.Helper()
	gate, release, err := os.Pipe()
	require.NoError(t, err)
	defer gate.Close()
	cmds, outs := make([]*exec.Cmd, fleetSize), make([]bytes.Buffer, fleetSize)
	for i := range cmds {
		cmds[i] = exec.Command(childBinary, op, path)
		cmds[i].Stdin, cmds[i].Stdout, cmds[i].Stderr = gate, &outs[i], os.Stderr
		require.NoError(t, cmds[i].Start())
	}
	require.NoError(t, release.Close())
	mayDie := map[bool]int{true: fleetSize / 2}[kill]
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
	for name, kill := range map[string]bool{"all live": false, "half are killed": true} {
		t.Run(name, func(t *testing.T) {
			killed := 0
			for range testkit.Long(1, 100) {
				path := filepath.Join(t.TempDir(), "new", "keys.pem")
				results := runFleet(t, "start", path, kill)
				killed += fleetSize - len(results)
				first := requireOneKey(t, path, results, 1)
				results = runFleet(t, "rotate", path, kill)
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
