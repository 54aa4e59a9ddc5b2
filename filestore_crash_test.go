//go:build linux

package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// Power cuts at every call (row F2): a real process is recorded, and every
// state that its disk may be left in (filestore_disk_test.go) is opened again.
// Until a Save has returned, that shows the bundle before or the new one; from
// then on the new one. It never is an error, and the next Save works.

const crashPath = "lib/keys/keys.pem" // two directories to make

// A crashScenario is an operation of the child on what a store holds before.
type crashScenario struct {
	name, op string
	before   func(t *testing.T, path string) // nil: there are no directories either
	signer   bool                            // it saves real keys
}

var crashScenarios = []crashScenario{
	{name: "first create", op: "first"},
	{name: "save", op: "save", before: func(t *testing.T, path string) { stored(t, path, "the bundle before\n") }},
	{name: "first start", op: "signer", signer: true},
	{name: "rotation", op: "rotate", before: signerStored, signer: true},
	{name: "first start and rotation", op: "rotate", signer: true},
}

func signerStored(t *testing.T, path string) {
	t.Helper()
	start(t, fleetkey.NewFileStore(path), config())
}

// newRecord begins the record of a fresh disk.
func (s crashScenario) newRecord(t *testing.T) *diskRecord {
	t.Helper()
	root := memoryDir(t)
	if s.before != nil {
		s.before(t, filepath.Join(root, crashPath))
	}
	return newDiskRecord(t, root, filepath.Base(crashPath))
}

// run runs the operation and adds it to the record.
func (s crashScenario) run(t *testing.T, b straceBench, r *diskRecord, inject ...string) (calls []sysCall, ok bool) {
	t.Helper()
	path := filepath.Join(r.root, crashPath)
	_, prev, err := fleetkey.NewFileStore(path).Load(t.Context())
	if !errors.Is(err, fleetkey.ErrNotExist) {
		require.NoError(t, err)
	}
	b.shown = fleetkey.MaxBundleSize
	calls, result, ok := b.run(t, inject, s.op, path, string(prev))
	if ok {
		require.Empty(t, result.Err)
	}
	r.add(t, calls)
	return calls, ok
}

// A crashCheck opens the states of a disk.
type crashCheck struct {
	*diskRecord
	signer bool
	// At the moment of the cut: what the store must hold, what else it may, and
	// what it ever did; "" is nothing.
	promised        string
	allowed, before []string

	seen  map[string]bool
	kids  map[string][]string // of a bundle
	found []string
}

// check cuts the power at each point of the record from the first on. What it
// finds wrong begins with "torn", "lost", "new key" or "stuck".
func (s crashScenario) check(t *testing.T, r *diskRecord, first int) *crashCheck {
	t.Helper()
	c := &crashCheck{diskRecord: r, signer: s.signer, seen: map[string]bool{}, kids: map[string][]string{}}
	after, now := "the start", r.before
	for n := range len(r.ops) + 1 {
		if n > 0 {
			after, now = r.ops[n-1].call, r.ops[n-1].apply(now)
		}
		live := r.tree(now)[crashPath]
		c.before, c.allowed = append(c.before, live), slices.Compact(append(c.allowed, live))
		if n == 0 || r.ops[n-1].unlocks {
			c.promised, c.allowed = live, []string{live}
		}
		if n < first {
			continue
		}
		for _, d := range r.afterPowerCut(n) {
			tree := withoutTemps(r.tree(d))
			key := fmt.Sprint(tree, c.allowed)
			if c.seen[key] {
				continue
			}
			c.seen[key] = true
			if problem := c.open(t, tree); problem != "" {
				c.found = append(c.found, fmt.Sprintf("%s, if the power fails after %s", problem, after))
			}
		}
	}
	return c
}

// withoutTemps leaves at most one temporary file, an empty one: the store looks
// at nothing but its name.
func withoutTemps(tree map[string]string) map[string]string {
	prefix := filepath.Dir(crashPath) + "/.keys.pem.tmp-"
	for path := range tree {
		if strings.HasPrefix(path, prefix) {
			delete(tree, path)
			tree[prefix+"1"] = ""
		}
	}
	return tree
}

// open says what is wrong with a state.
func (c *crashCheck) open(t *testing.T, tree map[string]string) (problem string) {
	t.Helper()
	root, err := os.MkdirTemp(c.root, "after-")
	require.NoError(t, err)
	defer os.RemoveAll(root)
	makeTree(t, root, tree)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	store := fleetkey.NewFileStore(filepath.Join(root, crashPath))
	got, _, err := store.Load(ctx)
	switch {
	case err != nil && !errors.Is(err, fleetkey.ErrNotExist):
		return "torn: " + err.Error()
	case slices.Contains(c.allowed, string(got)):
	case slices.Contains(c.before, string(got)):
		return fmt.Sprintf("lost: there are %d bytes instead of the %d that were saved", len(got), len(c.promised))
	default:
		return fmt.Sprintf("torn: %d bytes that nobody saved", len(got))
	}
	if c.signer {
		if problem := c.openSigner(t, store, string(got)); problem != "" {
			return problem
		}
	}
	_, prev, err := store.Load(ctx)
	if err == nil || errors.Is(err, fleetkey.ErrNotExist) {
		_, err = store.Save(ctx, []byte("the next bundle"), prev)
	}
	if err == nil {
		got, _, err = store.Load(ctx)
	}
	if err != nil || string(got) != "the next bundle" {
		return fmt.Sprintf("stuck: the next Save does not work: %v", err)
	}
	return ""
}

// openSigner starts a signer on the store, which holds bundle, and rotates.
func (c *crashCheck) openSigner(t *testing.T, store fleetkey.KeyStore, bundle string) (problem string) {
	t.Helper()
	s, err := fleetkey.NewSigner(t.Context(), store, config())
	if err != nil {
		return "torn: " + err.Error()
	}
	defer s.Close()
	kids := kidsIn(s)
	for _, kid := range c.kidsOf(t, c.promised) {
		if !slices.Contains(kids, kid) {
			return "lost: a key that was published"
		}
	}
	if bundle != "" && !slices.Equal(kids, c.kidsOf(t, bundle)) {
		return "new key: the store had one"
	}
	if err := s.Rotate(t.Context()); err != nil {
		return "stuck: " + err.Error()
	}
	if len(kidsIn(s)) != 2 {
		return "stuck: it does not rotate"
	}
	return ""
}

func kidsIn(s *fleetkey.Signer) (kids []string) {
	for _, k := range s.PublicKeys() {
		kids = append(kids, k.KeyID)
	}
	return kids
}

func (c *crashCheck) kidsOf(t *testing.T, bundle string) []string {
	t.Helper()
	if _, known := c.kids[bundle]; !known && bundle != "" {
		store := fleetkeytest.NewStore()
		_, err := store.Save(t.Context(), []byte(bundle), "")
		require.NoError(t, err)
		c.kids[bundle] = kidsIn(start(t, store, config()))
	}
	return c.kids[bundle]
}

func TestFileStore_F2_PowerCut(t *testing.T) {
	bench := newStraceBench(t)
	for _, s := range crashScenarios {
		t.Run(s.name, func(t *testing.T) {
			r := s.newRecord(t)
			_, ok := s.run(t, bench, r)
			require.True(t, ok)
			c := s.check(t, r, 0)
			require.Empty(t, c.found)
			require.GreaterOrEqual(t, len(c.seen), 6, "states")
		})
	}
}

// The process is killed at each call that changes the disk, the next one does
// its work, and then the power fails: what the first left unsynced is no excuse for
// losing what the second has saved. (What it has only read may be lost.)
func TestFileStore_F2_PowerCutAfterAKill(t *testing.T) {
	bench := newStraceBench(t)
	for _, s := range crashScenarios[:4] {
		t.Run(s.name, func(t *testing.T) {
			first := s.newRecord(t)
			calls, _ := s.run(t, bench, first)
			kills := 0
			for _, c := range calls {
				if unseen(c) {
					continue
				}
				kills++
				r := s.newRecord(t)
				_, ok := s.run(t, bench, r, fmt.Sprintf("%s:signal=KILL:when=%d", c.Name, c.N))
				require.False(t, ok, "%s: was not killed", c)
				killed := len(r.ops)
				_, ok = s.run(t, bench, r)
				require.True(t, ok)
				require.Empty(t, s.check(t, r, killed).found, "killed at %s", c)
			}
			require.Greater(t, kills, 5)
		})
	}
}

// The check finds what a store that syncs too little would lose.
func TestFileStore_F2_PowerCutCheck(t *testing.T) {
	bench := newStraceBench(t)
	create, save, firstStart, rotation := crashScenarios[0], crashScenarios[1], crashScenarios[2], crashScenarios[3]
	for _, tc := range []struct {
		name  string
		s     crashScenario
		edit  func(r *diskRecord)
		finds string
	}{
		{"the file is not synced", create, func(r *diskRecord) { r.drop(r.syncOf(crashPath)) }, "torn"},
		{"the file is not synced", rotation, func(r *diskRecord) { r.drop(r.syncOf(crashPath)) }, "torn"},
		{"the file is synced after its rename", save, func(r *diskRecord) { r.move(r.syncOf(crashPath), r.rename()) }, "torn"},
		{"the file is written after its sync", save, func(r *diskRecord) { r.move(r.syncOf(crashPath), r.syncOf(crashPath)-1) }, "torn"},
		{"the directory is not synced", save, func(r *diskRecord) { r.drop(r.syncOf(filepath.Dir(crashPath))) }, "lost"},
		{"the directory is not synced", rotation, func(r *diskRecord) { r.drop(r.syncOf(filepath.Dir(crashPath))) }, "lost"},
		{"the directory is synced before the rename", save, func(r *diskRecord) { r.move(r.rename(), r.syncOf(filepath.Dir(crashPath))) }, "lost"},
		{"the parent of a new directory is not synced", create, func(r *diskRecord) { r.drop(r.syncOf("lib")) }, "lost"},
		{"the parent of a new directory is not synced", firstStart, func(r *diskRecord) { r.drop(r.syncOf(".")) }, "lost"},
	} {
		t.Run(tc.s.name+", "+tc.name, func(t *testing.T) {
			r := tc.s.newRecord(t)
			tc.s.run(t, bench, r)
			require.Empty(t, tc.s.check(t, r, 0).found, "the record itself")
			tc.edit(r)
			found := tc.s.check(t, r, 0).found
			require.NotEmpty(t, found)
			require.Contains(t, strings.Join(found, "\n"), tc.finds+": ")
		})
	}
}

// syncOf returns the index of the last sync of what lies at a path in the end.
func (r *diskRecord) syncOf(path string) int {
	i := r.find(filepath.Join(r.root, path))
	return r.last(func(op diskOp) bool { return op.syncs == i })
}

// rename returns the index of the last rename.
func (r *diskRecord) rename() int {
	return r.last(func(op diskOp) bool { return strings.HasPrefix(op.call, "rename") })
}

func (r *diskRecord) last(is func(op diskOp) bool) int {
	for i, op := range slices.Backward(r.ops) {
		if is(op) {
			return i
		}
	}
	panic("the record has no such call")
}

func (r *diskRecord) drop(i int) { r.ops = slices.Delete(r.ops, i, i+1) }

// move puts the call at from where the one at to is.
func (r *diskRecord) move(from, to int) {
	op := r.ops[from]
	r.drop(from)
	r.ops = slices.Insert(r.ops, to, op)
}
