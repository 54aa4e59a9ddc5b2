//go:build linux

package crash

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A model of a disk that forgets, when the power fails, what no sync has made
// durable. It replays the system calls that a real process made and lists the states
// that a power cut may leave, as ALICE does (Pillai et al., All File Systems Are Not
// Created Equal, OSDI 2014). It is as weak as POSIX allows, and weaker than any one
// file system:
//
//   - Calls reach the disk in any order, except those that a sync has made durable.
//     A rename is there as a whole or not at all.
//   - A sync of a file makes its content durable, but not its name. A sync of a
//     directory makes the names in it durable, but not its own.
//   - A write may be lost, cut off, or there in length but not in content, as with
//     delayed allocation (ext4, XFS).
//
// Owners and modes are left out.

// directory is what a name stands for that is no file.
const directory = "/"

// A diskState is what a disk holds at one moment.
type diskState struct {
	names map[string]string // by path below the root: a file, or directory
	data  map[string]string // of files that are not empty
}

// A diskOp is a call that changes a disk or makes a change durable. A file is known by
// the path at which it was made.
type diskOp struct {
	call    string            // its name, for messages
	names   map[string]string // what it enters, all at once; "" removes
	file    string            // what it writes to, all of it at once
	data    string
	syncs   string // the file or the path of the directory that is durable then
	unlocks bool   // a writer gives the lock back: its Save is done
}

// outcomes returns what may become of the state if op was not synced.
func (op diskOp) outcomes(d diskState) []diskState {
	states := []diskState{d, op.apply(d)}
	if n := len(op.data); n > 0 {
		for _, broken := range []string{op.data[:n/2], strings.Repeat("\x00", n), op.data[:n/2] + strings.Repeat("?", n-n/2)} {
			op.data = broken
			states = append(states, op.apply(d))
		}
	}
	return states
}

// apply returns the state after op. What d holds stays as it is.
func (op diskOp) apply(d diskState) diskState {
	next := diskState{maps.Clone(d.names), maps.Clone(d.data)}
	for path, file := range op.names {
		if next.names[path] = file; file == "" {
			delete(next.names, path)
		}
	}
	if op.data != "" {
		next.data[op.file] = op.data
	}
	return next
}

// A diskRecord is what happened to the directory root.
type diskRecord struct {
	root   string
	before diskState
	ops    []diskOp
	now    diskState // after all ops, if the power does not fail
}

var (
	quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	fdPath = regexp.MustCompile(`^\w+\(\d+<([^>]*)>`)
	// A call that was killed has no result.
	succeeded = regexp.MustCompile(`\) += \d+[^=]*$`)
)

// add appends the calls of a process.
func (r *diskRecord) add(t *testing.T, calls []sysCall) {
	t.Helper()
	for _, c := range calls {
		if !c.changes() || !succeeded.MatchString(c.Line) {
			continue
		}
		op := r.parse(t, c)
		op.call = c.String()
		r.ops = append(r.ops, op)
		r.now = op.apply(r.now)
	}
}

// parse fails the test for a call that the model does not know.
func (r *diskRecord) parse(t *testing.T, c sysCall) diskOp {
	t.Helper()
	var args, paths []string
	for _, q := range quoted.FindAllString(c.Line, -1) {
		arg, err := strconv.Unquote(q)
		require.NoError(t, err, "an argument of %s", c)
		args, paths = append(args, arg), append(paths, r.below(arg))
	}
	var open, file string // behind a descriptor
	if m := fdPath.FindStringSubmatch(c.Line); m != nil {
		open = r.below(m[1])
		file = r.now.names[open]
	}
	switch strings.TrimSuffix(c.Name, "at") {
	case "mkdir":
		return diskOp{names: map[string]string{paths[0]: directory}}
	case "open":
		require.Regexp(t, `O_CREAT\|O_EXCL`, c.Line, "the model does not know whether this makes a file")
		return diskOp{names: map[string]string{paths[0]: paths[0]}}
	case "link":
		return diskOp{names: map[string]string{paths[1]: r.now.names[paths[0]]}}
	case "rename":
		return diskOp{names: map[string]string{paths[0]: "", paths[1]: r.now.names[paths[0]]}}
	case "unlink":
		return diskOp{names: map[string]string{paths[0]: ""}}
	case "write":
		require.NotEmpty(t, file, "the model knows no file of %s", c)
		require.Empty(t, r.now.data[file], "the model knows one write for each file")
		return diskOp{file: file, data: args[0]}
	case "fsync":
		if file == directory {
			file = open
		}
		return diskOp{syncs: file}
	case "flock":
		return diskOp{unlocks: true}
	}
	require.Fail(t, "the model does not know this call", "%s", c)
	return diskOp{}
}

// below returns a path below the root. Of what lies outside the model knows nothing.
func (r *diskRecord) below(path string) string {
	below, err := filepath.Rel(r.root, path)
	if err != nil {
		return ""
	}
	return below
}

// afterPowerCut returns every state that the disk may be found in if the power
// fails after the first n calls.
func (r *diskRecord) afterPowerCut(n int) []diskState {
	states := []diskState{r.before}
	for i, op := range r.ops[:n] {
		if op.syncs != "" || op.unlocks {
			continue
		}
		durable, next := r.durable(i, n), map[string]diskState{}
		for _, d := range states {
			outcomes := []diskState{op.apply(d)}
			if !durable {
				outcomes = op.outcomes(d)
			}
			for _, o := range outcomes {
				next[fmt.Sprint(o)] = o
			}
		}
		states = slices.Collect(maps.Values(next))
	}
	return states
}

// durable reports whether the first n calls have synced all that call i changed,
// or nobody will look at it.
func (r *diskRecord) durable(i, n int) bool {
	op := r.ops[i]
	synced := func(what string) bool {
		return slices.ContainsFunc(r.ops[i+1:n], func(later diskOp) bool { return later.syncs == what })
	}
	for path := range op.names {
		if !synced(filepath.Dir(path)) {
			return false
		}
	}
	return op.data == "" || synced(op.file) ||
		!slices.ContainsFunc(r.ops[:n], func(other diskOp) bool { return other.names[keysPath] == op.file })
}

// tree returns the files of a state by their paths below root, and the directories, whose
// paths end in a slash. What a lost directory held is lost.
func (d diskState) tree() map[string]string {
	tree := map[string]string{}
	for path, file := range d.names {
		reachable := true
		for dir := path; dir != "."; {
			dir = filepath.Dir(dir)
			reachable = reachable && d.names[dir] == directory
		}
		switch {
		case !reachable:
		case file == directory:
			tree[path+"/"] = ""
		default:
			tree[path] = d.data[file]
		}
	}
	return tree
}
