// Package crash proves that no death of a process, no failing disk and no power cut
// costs a fleet its keys when they are in a FileStore (rows F1 to F15 of
// docs/faults.md). Real processes run package crash/child. Under strace(1), each of
// their system calls is failed, or kills them, in turn. A model of a disk replays
// what they did and forgets whatever was not synced. After each crash the next
// signer must start with the keys that were there, and must be able to rotate.
//
// The short form takes a few rounds of each race, and kills at the calls that change
// something. FLEETKEY_LONG=1 runs a hundred rounds, also with a race build of the
// child, and kills at every call.
package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// childDir is where every user may run the children.
var childDir string

func TestMain(m *testing.M) {
	var err error
	if childDir, err = os.MkdirTemp("", "crash-child-"); err == nil {
		err = os.Chmod(childDir, 0o755)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(childDir)
	os.Exit(code)
}

// plainChild and raceChild build the child. Without cgo its system calls always come
// in the same order.
var (
	plainChild = sync.OnceValues(func() (string, error) { return buildChild("plain.exe", "CGO_ENABLED=0") })
	raceChild  = sync.OnceValues(func() (string, error) { return buildChild("race.exe", "CGO_ENABLED=1", "-race") })
)

func buildChild(name, env string, flags ...string) (binary string, err error) {
	binary = filepath.Join(childDir, name)
	build := exec.Command("go", append(append([]string{"build"}, flags...), "-o", binary, "./child")...)
	build.Env = append(os.Environ(), env)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
}

func childBinary(t *testing.T) string {
	t.Helper()
	binary, err := plainChild()
	require.NoError(t, err)
	return binary
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

// publicDir is a t.TempDir that other users can enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	return dir
}

// oneKey is a set of one key, the same in all runs, so that reading it takes the
// same calls.
func oneKey() string {
	bundle, err := os.ReadFile("../../fleetkeytest/testdata/ES256.pem")
	if err != nil {
		panic(err)
	}
	return string(bundle)
}

// writeKeys puts a bundle where an operator would.
func writeKeys(t *testing.T, path, bundle string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(bundle), 0o600))
}

// readKeys returns what is at path, or "" if nothing is.
func readKeys(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	return string(content)
}

// temps lists the temporary files beside path.
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

func kidsIn(s *fleetkey.Signer) (kids []string) {
	for _, k := range s.PublicKeys() {
		kids = append(kids, k.KeyID)
	}
	return kids
}

func kidsOf(t *testing.T, bundle string) []string {
	t.Helper()
	if bundle == "" {
		return nil
	}
	store := fleetkeytest.NewStore()
	store.Set([]byte(bundle))
	s, err := fleetkey.NewSigner(t.Context(), store, testkit.Config())
	require.NoError(t, err)
	defer s.Close()
	return kidsIn(s)
}

// examine starts a signer on what a crash left at path, and saves with it. It
// returns what is wrong, which begins with "torn", "lost", "new key" or "stuck". The
// keys of the bundle that was promised must still be there.
func examine(t *testing.T, path, promised string) (problem string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // for a lock that nobody frees
	defer cancel()
	content := readKeys(t, path)
	s, err := fleetkey.NewSigner(ctx, fleetkey.NewFileStore(path), testkit.Config())
	if err != nil {
		return "torn: " + err.Error()
	}
	defer s.Close()
	for _, kid := range kidsOf(t, promised) {
		if !slices.Contains(kidsIn(s), kid) {
			return "lost: a key that was published"
		}
	}
	if content != "" && content != readKeys(t, path) {
		return "new key: the next start has changed the keys"
	}
	makeOld(t, temps(t, path))
	if err := s.Rotate(ctx); err != nil {
		return "stuck: " + err.Error()
	}
	if n := len(s.PublicKeys()); n != 2 {
		return fmt.Sprintf("stuck: %d keys after a rotation", n)
	}
	// Rotate saves nothing if the next key is there already. Revoke always saves.
	if err := s.Revoke(ctx, s.Status().Keys[0].KeyID); err != nil {
		return "stuck: " + err.Error()
	}
	if left := temps(t, path); len(left) > 0 {
		return fmt.Sprintf("stuck: %q is never removed", left)
	}
	return ""
}
