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

// An inode is a file or a directory. rootInode is the directory that holds all.
type inode int

const rootInode inode = 1

// A place is a name in a directory.
type place struct {
	dir  inode
	name string
}

// A diskState is what a disk holds at one moment.
type diskState struct {
	entries map[place]inode
	data    map[inode]string // of files that are not empty
}

// A diskOp is a call that changes a disk or makes a change durable.
type diskOp struct {
	call    string          // its name, for messages
	entries map[place]inode // what it enters, all at once; 0 removes
	file    inode           // what it writes to, all of it at once
	data    string
	syncs   inode // the file or directory that is durable then
	unlocks bool  // a writer gives the lock back: its Save is done
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
	next := diskState{maps.Clone(d.entries), maps.Clone(d.data)}
	for p, i := range op.entries {
		if next.entries[p] = i; i == 0 {
			delete(next.entries, p)
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
	dirs   map[inode]bool
	now    diskState // after all ops, if the power does not fail
	inodes inode     // the last number given
}

// newDiskRecord begins with a disk that holds nothing, or a bundle that is durable.
func newDiskRecord(root, bundle string) *diskRecord {
	r := &diskRecord{root: root, dirs: map[inode]bool{rootInode: true}, inodes: rootInode}
	r.now = diskState{map[place]inode{}, map[inode]string{}}
	if bundle != "" {
		for _, dir := range []string{"lib", filepath.Dir(keysPath)} {
			r.now.entries[r.place(filepath.Join(root, dir))] = r.newInode(true)
		}
		i := r.newInode(false)
		r.now.entries[r.place(filepath.Join(root, keysPath))], r.now.data[i] = i, bundle
	}
	r.before = r.now
	return r
}

func (r *diskRecord) newInode(dir bool) inode {
	r.inodes++
	r.dirs[r.inodes] = dir
	return r.inodes
}

// find returns what lies at a path now; 0 is nothing, or a path outside root.
func (r *diskRecord) find(path string) inode {
	below, inside := strings.CutPrefix(path, r.root)
	if !inside {
		return 0
	}
	i := rootInode
	for name := range strings.FieldsFuncSeq(below, func(c rune) bool { return c == '/' }) {
		i = r.now.entries[place{i, name}]
	}
	return i
}

func (r *diskRecord) place(path string) place {
	return place{r.find(filepath.Dir(path)), filepath.Base(path)}
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
	var args []string
	for _, q := range quoted.FindAllString(c.Line, -1) {
		arg, err := strconv.Unquote(q)
		require.NoError(t, err, "an argument of %s", c)
		args = append(args, arg)
	}
	var fd inode
	if m := fdPath.FindStringSubmatch(c.Line); m != nil {
		fd = r.find(m[1])
	}
	switch strings.TrimSuffix(c.Name, "at") {
	case "mkdir":
		return diskOp{entries: map[place]inode{r.place(args[0]): r.newInode(true)}}
	case "open":
		require.Regexp(t, `O_CREAT\|O_EXCL`, c.Line, "the model does not know whether this makes a file")
		return diskOp{entries: map[place]inode{r.place(args[0]): r.newInode(false)}}
	case "link":
		return diskOp{entries: map[place]inode{r.place(args[1]): r.find(args[0])}}
	case "rename":
		return diskOp{entries: map[place]inode{r.place(args[0]): 0, r.place(args[1]): r.find(args[0])}}
	case "unlink":
		return diskOp{entries: map[place]inode{r.place(args[0]): 0}}
	case "write":
		require.NotZero(t, fd, "the model knows no file of %s", c)
		require.Empty(t, r.now.data[fd], "the model knows one write for each file")
		return diskOp{file: fd, data: args[0]}
	case "fsync":
		return diskOp{syncs: fd}
	case "flock":
		return diskOp{unlocks: true}
	}
	require.Fail(t, "the model does not know this call", "%s", c)
	return diskOp{}
}

// afterPowerCut returns every state that the disk may be found in if the power
// fails after the first n calls.
func (r *diskRecord) afterPowerCut(n int) []diskState {
	states := []diskState{r.before}
	for i, op := range r.ops[:n] {
		if op.syncs != 0 || op.unlocks {
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
	synced := func(i inode, after []diskOp) bool {
		return slices.ContainsFunc(after, func(later diskOp) bool { return later.syncs == i })
	}
	for p := range op.entries {
		if !synced(p.dir, r.ops[i+1:n]) {
			return false
		}
	}
	return op.data == "" || synced(op.file, r.ops[i+1:n]) || !slices.ContainsFunc(r.ops[:n], func(other diskOp) bool {
		for p, i := range other.entries {
			if p.name == filepath.Base(keysPath) && i == op.file {
				return true
			}
		}
		return false
	})
}

// tree returns the files of a state by their paths below root, and the
// directories, whose paths end in a slash.
func (r *diskRecord) tree(d diskState) map[string]string {
	tree := map[string]string{}
	var walk func(dir inode, prefix string)
	walk = func(dir inode, prefix string) {
		for p, i := range d.entries {
			switch path := prefix + p.name; {
			case p.dir != dir:
			case r.dirs[i]:
				tree[path+"/"] = ""
				walk(i, path+"/")
			default:
				tree[path] = d.data[i]
			}
		}
	}
	walk(rootInode, "")
	return tree
}
