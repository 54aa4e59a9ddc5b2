package fleetkey_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// Real processes that meet at one file (rows F9 and F10). Threads would not do:
// the lock, the rename and the death of a process are the kernel's affair.
// FLEETKEY_LONG=1 runs the hundred rounds of the fault matrix.

const fleetSize = 64

// publicDir is a t.TempDir that other users can enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "filestore-test-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// childResult is what internal/filestorechild prints.
type childResult struct {
	Version  fleetkey.Version
	Saved    bool
	Err      string
	ErrTypes []string
	GoesOn   bool
}

func (r childResult) is(target error) bool { return slices.Contains(r.ErrTypes, target.Error()) }

func runChild(t *testing.T, cmd *exec.Cmd) (r childResult) {
	t.Helper()
	out, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &r), "%s", out)
	return r
}

// A fleet is many children that begin their work at the same moment.
type fleet struct {
	t       *testing.T
	cmds    []*exec.Cmd
	outs    []bytes.Buffer
	release io.Closer
}

func startFleet(t *testing.T, binary string, args ...string) *fleet {
	t.Helper()
	gate, release, err := os.Pipe()
	require.NoError(t, err)
	defer gate.Close()
	f := &fleet{t: t, outs: make([]bytes.Buffer, fleetSize), release: release}
	for i := range fleetSize {
		cmd := exec.Command(binary, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = gate, &f.outs[i], os.Stderr
		require.NoError(t, cmd.Start())
		f.cmds = append(f.cmds, cmd)
	}
	return f
}

// wait returns what the children printed; one that was killed printed nothing.
func (f *fleet) wait() (results []childResult) {
	f.t.Helper()
	for i, cmd := range f.cmds {
		if cmd.Wait() != nil {
			continue
		}
		var r childResult
		require.NoError(f.t, json.Unmarshal(f.outs[i].Bytes(), &r), "%s", &f.outs[i])
		results = append(results, r)
	}
	return results
}

func rounds(few int) int { return long(few, 100) }

// requireOneKey: all use the version that is in the file, which is whole.
func requireOneKey(t *testing.T, path string, results []childResult) (saved int) {
	t.Helper()
	version := requireWhole(t, path)
	for _, r := range results {
		require.Empty(t, r.Err)
		require.Equal(t, version, r.Version)
		if r.Saved {
			saved++
		}
	}
	return saved
}

// requireWhole: the file holds a bundle as the child writes it, 64 equal lines.
func requireWhole(t *testing.T, path string) fleetkey.Version {
	t.Helper()
	bundle, version, err := fleetkey.NewFileStore(path).Load(t.Context())
	require.NoError(t, err)
	line, _, _ := strings.Cut(string(bundle), "\n")
	require.Len(t, line, 26)
	require.Equal(t, strings.Repeat(line+"\n", 64), string(bundle), "torn or mixed")
	return version
}

func TestFileStore_F9_FirstStart(t *testing.T) {
	testFirstStart(t, childBinary(t), rounds(6))
}

func TestFileStore_F9_FirstStartOfRaceBuild(t *testing.T) {
	if !long(false, true) {
		t.Skip("set FLEETKEY_LONG=1")
	}
	child, err := raceChild()
	require.NoError(t, err)
	testFirstStart(t, child, 20) // each start of a race build is slow
}

func testFirstStart(t *testing.T, child string, rounds int) {
	t.Helper()
	for round := range rounds {
		path := filepath.Join(t.TempDir(), "new", "keys.pem")
		f := startFleet(t, child, "first", path)
		require.NoError(t, f.release.Close())
		results := f.wait()
		require.Len(t, results, fleetSize)
		require.Equal(t, 1, requireOneKey(t, path, results), "creations in round %d", round)
		require.Empty(t, temps(t, path))
	}
}

// killHalf kills half of the fleet at random moments of its first milliseconds,
// and returns what the others printed.
func (f *fleet) killHalf() (results []childResult) {
	f.t.Helper()
	for _, i := range rand.Perm(fleetSize)[:fleetSize/2] {
		time.Sleep(rand.N(time.Millisecond)) // spreads the kills; nothing waits for it
		_ = f.cmds[i].Process.Kill()         // it may have ended already
	}
	results = f.wait()
	require.GreaterOrEqual(f.t, len(results), fleetSize/2)
	return results
}

// Half of the fleet is killed while it starts, whoever holds the lock included.
func TestFileStore_F9_FirstStartWithKills(t *testing.T) {
	child := childBinary(t)
	killed := 0
	for range rounds(4) {
		path := filepath.Join(t.TempDir(), "new", "keys.pem")
		f := startFleet(t, child, "first", path)
		require.NoError(t, f.release.Close())
		results := f.killHalf()
		killed += fleetSize - len(results)
		require.LessOrEqual(t, requireOneKey(t, path, results), 1, "creations")
	}
	require.Positive(t, killed, "no kill came in time: this run tested nothing")
}

// Half of a fleet of signers is killed while all rotate at once: there is one
// new key, and it is everyone's.
func TestFileStore_F10_RotationWithKills(t *testing.T) {
	testRotationWithKills(t, childBinary(t), rounds(2))
}

func TestFileStore_F10_RotationWithKillsOfRaceBuild(t *testing.T) {
	if !long(false, true) {
		t.Skip("set FLEETKEY_LONG=1")
	}
	child, err := raceChild()
	require.NoError(t, err)
	testRotationWithKills(t, child, 20)
}

func testRotationWithKills(t *testing.T, child string, rounds int) {
	t.Helper()
	killed := 0
	for range rounds {
		path := newPath(t)
		old := start(t, fleetkey.NewFileStore(path), config()).SigningKey().KeyID
		f := startFleet(t, child, "rotate", path)
		require.NoError(t, f.release.Close())
		results := f.killHalf()
		killed += fleetSize - len(results)
		now := start(t, fleetkey.NewFileStore(path), config())
		require.Equal(t, old, now.SigningKey().KeyID)
		require.Len(t, now.PublicKeys(), 2, "one rotation")
		for _, r := range results {
			require.Empty(t, r.Err)
			require.Equal(t, now.Status().Keys[0].KeyID, string(r.Version))
		}
	}
	require.Positive(t, killed, "no kill came in time: this run tested nothing")
}

func TestFileStore_F10_OneSaveWins(t *testing.T) {
	child := childBinary(t)
	path := newPath(t)
	_, prev := stored(t, path, "the bundle before")
	for round := range rounds(4) {
		f := startFleet(t, child, "save", path, string(prev))
		require.NoError(t, f.release.Close())
		var winners []fleetkey.Version
		for _, r := range f.wait() {
			if r.Saved {
				winners = append(winners, r.Version)
			} else {
				assert.True(t, r.is(fleetkey.ErrConflict), "%s", r.Err)
			}
		}
		require.Len(t, winners, 1, "round %d", round)
		require.Equal(t, winners[0], requireWhole(t, path))
		require.Empty(t, temps(t, path))
		prev = winners[0]
	}
}

// Readers that run while others save see one whole bundle after the other,
// and never an absent one.
func TestFileStore_ReadersDuringSaves(t *testing.T) {
	path := newPath(t)
	bundle := func(i int) string { return strings.Repeat(fmt.Sprintf("%025d\n", i), 2000) }
	s, v := stored(t, path, bundle(0))
	done, reads := make(chan struct{}), make(chan int)
	for range 4 {
		go func() {
			n := 0
			defer func() { reads <- n }()
			for {
				got, _, err := s.Load(t.Context())
				if !assert.NoError(t, err) || !assert.Equal(t, strings.Repeat(string(got[:26]), 2000), string(got)) {
					return
				}
				n++
				select {
				case <-done:
					return
				default:
				}
			}
		}()
	}
	for i := range 20 {
		var err error
		v, err = s.Save(t.Context(), []byte(bundle(i+1)), v)
		require.NoError(t, err)
	}
	close(done)
	for range 4 {
		require.Positive(t, <-reads)
	}
}
