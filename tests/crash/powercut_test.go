//go:build linux

package crash

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Power cuts at every call (row F2). What was not synced can be lost, cut off, or written in
// any order, as POSIX allows and ALICE assumes (Pillai et al., All File Systems Are Not
// Created Equal, OSDI 2014). A rename is atomic. So a cut at any call leaves the old bundle
// or the new one if
//
//   - the bundle is never written in place, and a file gets its name only after its content
//     was synced,
//
// and a cut after Save has returned leaves the new one if
//
//   - the directory of each name in its path was synced after the name was created, even if
//     it was created by a process that was killed before it could sync.
//
// These tests record the system calls of a real process and check both.

// A disk holds what would not survive a power cut: names and contents, by path below the
// root.
type disk struct {
	root        string
	names, data map[string]bool
}

var (
	quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	fdPath = regexp.MustCompile(`^\w+\(\d+<([^>]*)>`)
	// A call that was killed has no result.
	succeeded = regexp.MustCompile(`\) += \d+[^=]*$`)
)

func newDisk(s scenario, t *testing.T) *disk {
	return &disk{root: strings.TrimSuffix(s.prepare(t), "/"+keysPath), names: map[string]bool{}, data: map[string]bool{}}
}

// below returns a path relative to the root.
func (d *disk) below(path string) string {
	below, _ := filepath.Rel(d.root, path)
	return below
}

// replay replays the calls of a process and returns what a power cut could lose. An unknown
// call fails the test.
func (d *disk) replay(t *testing.T, calls []sysCall) (problems []string) {
	t.Helper()
	for _, c := range calls {
		if !c.changes() || !succeeded.MatchString(c.Line) {
			continue
		}
		var paths []string
		for _, q := range quoted.FindAllString(c.Line, -1) {
			arg, err := strconv.Unquote(q)
			require.NoError(t, err, "an argument of %s", c)
			paths = append(paths, d.below(arg))
		}
		open := "" // the path of the descriptor
		if m := fdPath.FindStringSubmatch(c.Line); m != nil {
			open = d.below(m[1])
		}
		switch strings.TrimSuffix(c.Name, "at") {
		case "mkdir":
			d.names[paths[0]] = true
		case "open":
			require.Regexp(t, `O_CREAT\|O_EXCL`, c.Line, "it is unclear whether this creates a file")
			d.names[paths[0]] = true
		case "link":
			d.names[paths[1]] = true
		case "unlink":
			delete(d.names, paths[0])
		case "rename":
			if d.data[paths[0]] {
				problems = append(problems, "torn: "+paths[0]+" is renamed before it is synced")
			}
			delete(d.names, paths[0])
			d.names[paths[1]] = true
		case "write":
			if d.data[open] = true; open == keysPath {
				problems = append(problems, "torn: the bundle is written in place")
			}
		case "fsync":
			delete(d.data, open)
			for name := range d.names {
				if filepath.Dir(name) == open {
					delete(d.names, name)
				}
			}
		case "flock": // a writer releases the lock: its Save is done
			for path := keysPath; path != "."; path = filepath.Dir(path) {
				if d.names[path] {
					problems = append(problems, "lost: no sync after "+path+" was made")
				}
			}
		default:
			require.Fail(t, "unknown call", "%s", c)
		}
	}
	return problems
}

// Each sync is necessary: without it, the check finds what could be lost.
func TestFileStore_F2_PowerCut(t *testing.T) {
	b := newBench(t)
	for _, s := range append(scenarios, both) {
		d, syncs := newDisk(s, t), 0
		calls, _, ok := b.run(t, s.op, filepath.Join(d.root, keysPath))
		require.True(t, ok)
		require.Empty(t, d.replay(t, calls), s.name)
		for i, c := range calls {
			if c.Name == "fsync" && !strings.HasPrefix(d.below(fdPath.FindStringSubmatch(c.Line)[1]), "..") && s != both {
				syncs++
				without := disk{root: d.root, names: map[string]bool{}, data: map[string]bool{}}
				require.NotEmpty(t, without.replay(t, slices.Delete(slices.Clone(calls), i, i+1)), "nothing is lost without %s", c.Line)
			}
		}
		require.True(t, s == both || syncs >= 2, s.name)
	}
}

// A process is killed at each call that changes the disk, the next process does its work, and
// then the power fails. What the second one saved must survive, even if the first one left
// something unsynced. (What the second one only read may be lost.)
func TestFileStore_F2_PowerCutAfterAKill(t *testing.T) {
	b := newBench(t)
	for _, s := range scenarios {
		kills, d := 0, (*disk)(nil)
		prepare := func() string {
			d = newDisk(s, t)
			return filepath.Join(d.root, keysPath)
		}
		b.killAtEach(t, s, prepare, sysCall.changes, func(c sysCall, first []sysCall, path string) {
			kills++
			next, _, ok := b.run(t, s.op, path)
			require.True(t, ok)
			require.Empty(t, d.replay(t, append(first, next...)), "killed at %s", c)
		})
		require.Greater(t, kills, 5, s.name)
	}
}
