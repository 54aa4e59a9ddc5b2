// Package crash proves that killed processes, failing disks and power cuts do not cost a
// fleet its keys when they are in a FileStore (rows F1 to F15 of docs/faults.md). Real
// processes run package crash/child. strace(1) makes each of their system calls, in turn,
// fail or kill the process. After each crash, the next signer must start with the existing
// keys, and must be able to rotate. A replay of the calls finds everything that a power cut
// could tear or lose because it was not synced.
//
// The short form runs a few rounds of each race, and kills at the calls that change
// something. FLEETKEY_LONG=1 runs a hundred rounds, and kills at every call.
package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// childBinary is the path of the child, which every user can run.
var childBinary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "crash-child-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		panic(err)
	}
	childBinary = filepath.Join(dir, "child.exe")
	build := exec.Command("go", "build", "-o", childBinary, "./child")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // so that its system calls always come in the same order
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// A result is what the child prints.
type result struct {
	Newest  string
	Err     string
	Matches []string
	GoesOn  bool
}

func (r result) is(target error) bool { return slices.Contains(r.Matches, target.Error()) }

func runChild(t *testing.T, cmd *exec.Cmd) (r result) {
	t.Helper()
	out, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &r), "%s", out)
	return r
}

// publicDir returns a fresh directory that every user can enter, in memory if possible. Calls
// are the same there, and hundreds of runs do not wait for a disk.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "crash-")
	if err != nil {
		dir, err = os.MkdirTemp("", "crash-")
	}
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// oneKey returns a bundle with one key, the same in all runs, so that reading it always makes
// the same calls.
func oneKey() string {
	bundle, err := os.ReadFile("../../fleetkeytest/testdata/ES256.pem")
	if err != nil {
		panic(err)
	}
	return string(bundle)
}

// writeKeys writes a bundle as an operator would.
func writeKeys(t *testing.T, path, bundle string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(bundle), 0o600))
}

// readKeys returns the content of path, or "" if it does not exist.
func readKeys(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	return string(content)
}

// temps lists the temporary files next to path.
func temps(t *testing.T, path string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*"))
	require.NoError(t, err)
	return names
}

// makeOld gives temporary files the age at which they are removed.
func makeOld(t *testing.T, names []string) {
	t.Helper()
	old := time.Now().Add(-61 * time.Minute)
	for _, name := range names {
		require.NoError(t, os.Chtimes(name, old, old))
	}
}

// examine starts a signer on what a crash left at path, and saves with it. The keys of the
// promised bundle must still be there.
func examine(t *testing.T, path, promised string, at fmt.Stringer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // in case nobody releases the lock
	defer cancel()
	content := readKeys(t, path)
	s, err := fleetkey.NewSigner(ctx, fleetkey.NewFileStore(path), testkit.Config())
	require.NoError(t, err, "%s: torn", at)
	defer s.Close()
	for _, kid := range testkit.Read([]byte(promised)).Kids() {
		require.Contains(t, testkit.PublishedKeyIDs(t, s), kid, "%s: lost a key that was published", at)
	}
	if content != "" {
		require.Equal(t, content, readKeys(t, path), "%s: the next start has changed the keys", at)
	}
	makeOld(t, temps(t, path))
	require.NoError(t, s.Rotate(ctx), "%s: stuck", at)
	require.Len(t, s.PublicKeys(), 2, "%s: after a rotation", at)
	// Rotate saves nothing if the next key is there already. Revoke always saves.
	require.NoError(t, s.Revoke(ctx, s.Status().Keys[0].KeyID), "%s: stuck", at)
	require.Empty(t, temps(t, path), "%s: never removed", at)
}

// Real processes that use the same file (rows F9 and F10). Threads are not enough, because
// the kernel implements the lock, the rename and the death of a process.

const fleetSize = 64

// runFleet starts many children that begin their work at the same moment, and returns what
// they print. If kill is set, it kills half of them while they work, including any that hold
// the lock.
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

// requireOneKey requires that all processes use the newest key in the file.
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

// All processes start at once without a key, and then rotate at once. Each time they must end
// up with one key.
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
