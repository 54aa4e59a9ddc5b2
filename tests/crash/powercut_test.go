//go:build linux

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Power cuts at every call (row F2). A real process is recorded, and every state
// that its disk may be left in (disk_test.go) is opened again. Until a Save has
// returned, the store holds the bundle before or the new one; after that, the new one.
// Opening it is never an error, and the next Save works.

// record begins with a disk that holds nothing, or a bundle that is durable.
func (s scenario) record(t *testing.T) *diskRecord {
	t.Helper()
	d := diskState{map[string]string{".": directory}, map[string]string{}}
	if s.before != "" {
		d.names[keysPath], d.data[keysPath] = keysPath, s.before
		for dir := filepath.Dir(keysPath); dir != "."; dir = filepath.Dir(dir) {
			d.names[dir] = directory
		}
	}
	return &diskRecord{root: strings.TrimSuffix(s.prepare(t), "/"+keysPath), before: d, now: d}
}

// runOn runs the operation on a recorded disk and adds it to the record.
func (s scenario) runOn(t *testing.T, b bench, r *diskRecord, inject ...string) (calls []sysCall, ok bool) {
	t.Helper()
	calls, result, ok := b.run(t, s.op, filepath.Join(r.root, keysPath), inject...)
	require.Empty(t, result.Err)
	r.add(t, calls)
	return calls, ok
}

// check cuts the power at each point of the record from the first on, and opens each
// state of the disk once. It returns what it finds wrong.
func (r *diskRecord) check(t *testing.T, first int) (found []string, states int) {
	t.Helper()
	seen := map[string]bool{}
	// What the store must hold at the moment of the cut, what else it may hold, and
	// what it ever held; "" is nothing.
	var promised string
	var allowed, ever []string
	after, now := "the start", r.before
	for n := range len(r.ops) + 1 {
		if n > 0 {
			after, now = r.ops[n-1].call, r.ops[n-1].apply(now)
		}
		live := now.tree()[keysPath]
		ever, allowed = append(ever, live), slices.Compact(append(allowed, live))
		if n == 0 || r.ops[n-1].unlocks {
			promised, allowed = live, []string{live}
		}
		if n < first {
			continue
		}
		for _, d := range r.afterPowerCut(n) {
			tree := withoutTemps(d.tree())
			key := fmt.Sprint(tree, allowed)
			if seen[key] {
				continue
			}
			seen[key] = true
			problem := ""
			switch got := tree[keysPath]; {
			case slices.Contains(allowed, got):
				problem = r.open(t, tree, promised)
			case slices.Contains(ever, got):
				problem = fmt.Sprintf("lost: there are %d bytes instead of the %d that were saved", len(got), len(promised))
			default:
				problem = fmt.Sprintf("torn: %d bytes that nobody saved", len(got))
			}
			if problem != "" {
				found = append(found, fmt.Sprintf("%s, if the power fails after %s", problem, after))
			}
		}
	}
	return found, len(seen)
}

// withoutTemps leaves at most one temporary file, an empty one: the store looks at
// nothing but its name.
func withoutTemps(tree map[string]string) map[string]string {
	prefix := filepath.Dir(keysPath) + "/.keys.pem.tmp-"
	for path := range tree {
		if strings.HasPrefix(path, prefix) {
			delete(tree, path)
			tree[prefix+"1"] = ""
		}
	}
	return tree
}

// open examines a state.
func (r *diskRecord) open(t *testing.T, tree map[string]string, promised string) (problem string) {
	t.Helper()
	root, err := os.MkdirTemp(r.root, "after-")
	require.NoError(t, err)
	defer os.RemoveAll(root)
	for path, content := range tree {
		if name := filepath.Join(root, path); strings.HasSuffix(path, "/") {
			require.NoError(t, os.MkdirAll(name, 0o700))
		} else {
			writeKeys(t, name, content)
		}
	}
	return examine(t, filepath.Join(root, keysPath), promised)
}

// Each sync is needed: the check finds what a store that leaves it out would lose.
func TestFileStore_F2_PowerCut(t *testing.T) {
	b := newBench(t)
	for _, s := range append(scenarios, both) {
		t.Run(s.name, func(t *testing.T) {
			r, syncs := s.record(t), 0
			_, ok := s.runOn(t, b, r)
			require.True(t, ok)
			found, states := r.check(t, 0)
			require.Empty(t, found)
			require.Greater(t, states, 5)
			for i, op := range r.ops {
				if op.syncs == "" || s == both {
					continue // not a sync, or one of what lies above the disk
				}
				syncs++
				without := *r
				without.ops = slices.Delete(slices.Clone(r.ops), i, i+1)
				found, _ := without.check(t, 0)
				require.NotEmpty(t, found, "nothing is lost without %s", op.call)
			}
			require.True(t, s == both || syncs >= 2)
		})
	}
}

// The process is killed at each call that changes the disk, the next one does its
// work, and then the power fails. What the first left unsynced is no excuse for losing
// what the second has saved. (What it has only read may be lost.)
func TestFileStore_F2_PowerCutAfterAKill(t *testing.T) {
	b := newBench(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			calls, _ := s.runOn(t, b, s.record(t))
			kills := 0
			for _, c := range calls {
				if !c.changes() {
					continue
				}
				kills++
				r := s.record(t)
				_, ok := s.runOn(t, b, r, c.killed())
				require.False(t, ok, "%s: was not killed", c)
				killed := len(r.ops)
				_, ok = s.runOn(t, b, r)
				require.True(t, ok)
				found, _ := r.check(t, killed)
				require.Empty(t, found, "killed at %s", c)
			}
			require.Greater(t, kills, 5)
		})
	}
}
