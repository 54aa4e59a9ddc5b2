//go:build linux

package fleetkey_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// Whole signers whose first start or rotation is killed, or fails, at each file
// call in turn: rows F1, F3 and F4.

// A signerScenario is an operation of the child on a store that holds a bundle
// with a number of keys, or nothing.
type signerScenario struct {
	op     string
	before string
	kids   []string
}

// signerScenarios are a first start, and a rotation of a set of one key. It is
// one set for all runs, so that each takes the same calls to read it.
func signerScenarios(t *testing.T) []signerScenario {
	t.Helper()
	path := newPath(t)
	s := start(t, fleetkey.NewFileStore(path), config())
	bundle, err := os.ReadFile(path)
	require.NoError(t, err)
	return []signerScenario{{op: "signer"}, {op: "rotate", before: string(bundle), kids: kidsIn(s)}}
}

func (s signerScenario) prepare(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(memoryDir(t), "keys", "keys.pem")
	if s.before != "" {
		stored(t, path, s.before)
	}
	return path
}

// requireKeysKept: whatever has died or failed, the file holds the bundle before
// or a whole new one, the next start keeps its keys, and the next rotation works.
func (s signerScenario) requireKeysKept(t *testing.T, path, at string) (isNew bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for a lock that is held for ever
	defer cancel()
	content, err := os.ReadFile(path)
	require.True(t, err == nil || s.before == "" && os.IsNotExist(err), "%s: %v", at, err)
	isNew = string(content) != s.before

	next, err := fleetkey.NewSigner(ctx, fleetkey.NewFileStore(path), config())
	require.NoError(t, err, at)
	defer next.Close()
	keys := 1
	if isNew && s.op == "rotate" {
		keys = 2
	}
	require.Len(t, next.PublicKeys(), keys, at)
	require.Subset(t, kidsIn(next), s.kids, at)
	signing := next.SigningKey().KeyID
	if s.kids != nil {
		require.Equal(t, s.kids[0], signing, at)
	}
	if len(content) > 0 {
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, string(content) == string(after), "%s: the next start has changed the keys", at)
	}

	for _, name := range temps(t, path) {
		makeOld(t, name)
	}
	require.NoError(t, next.Rotate(ctx), at)
	require.Len(t, next.PublicKeys(), 2, at)
	require.NoError(t, next.Revoke(ctx, next.Status().Keys[0].KeyID), at) // it saves in any case
	require.Equal(t, signing, next.SigningKey().KeyID, at)
	require.Empty(t, temps(t, path), at)
	return isNew
}

// inTurn returns the calls to kill or fail: with FLEETKEY_LONG=1 every one. Else
// it leaves out most of those that only read, where the tests of the bare store
// kill and fail each.
func inTurn(calls []sysCall) []sysCall {
	if long(false, true) {
		return calls
	}
	reads := regexp.MustCompile(`^(fcntl|f?stat|newfstatat|read|getdents64|close\(\d+<[^>]*(keys|pem|lock)>)`)
	return slices.DeleteFunc(calls, func(c sysCall) bool { return reads.MatchString(c.Line) })
}

func TestFileStore_F1_SignerKilledAtEveryCall(t *testing.T) {
	bench := newStraceBench(t)
	for _, s := range signerScenarios(t) {
		t.Run(s.op, func(t *testing.T) {
			calls, _, ok := bench.run(t, nil, s.op, s.prepare(t))
			require.True(t, ok)
			require.Greater(t, len(calls), 20)
			sawOld, sawNew := false, false
			for _, c := range inTurn(calls) {
				path := s.prepare(t)
				_, _, ok := bench.run(t, []string{fmt.Sprintf("%s:signal=KILL:when=%d", c.Name, c.N)}, s.op, path)
				require.False(t, ok, "%s: was not killed", c)
				require.LessOrEqual(t, len(temps(t, path)), 1, "%s", c)
				isNew := s.requireKeysKept(t, path, c.String())
				sawOld, sawNew = sawOld || !isNew, sawNew || isNew
			}
			require.True(t, sawOld && sawNew, "the kills did not fall on both sides of the commit")
		})
	}
}

// A signer whose rotation fails goes on with the keys that it has, and rotates
// when it can.
func TestFileStore_F3_F4_SignerFailsAtEveryCall(t *testing.T) {
	bench := newStraceBench(t)
	takesSpace := regexp.MustCompile(`^(write|fsync|rename|mkdir|openat.*O_EXCL)`)
	for _, s := range signerScenarios(t) {
		for errno, at := range map[string]*regexp.Regexp{"EIO": regexp.MustCompile(""), "ENOSPC": takesSpace} {
			t.Run(s.op+" "+errno, func(t *testing.T) {
				calls, _, _ := bench.run(t, nil, s.op, s.prepare(t))
				rotations := 0
				for _, c := range inTurn(calls) {
					if !at.MatchString(c.Line) {
						continue
					}
					r, isNew := bench.failSignerAt(t, s, c, errno)
					if vital.MatchString(c.Line) {
						assert.NotEmpty(t, r.Err, "%s is not reported at %s", errno, c.Line)
					}
					if r.Err == "" {
						require.True(t, isNew, "%s: lost", c)
					}
					if strings.Contains(r.Err, "rotate: ") {
						rotations++
						require.True(t, r.GoesOn, "%s", c)
					}
				}
				require.Equal(t, s.op == "rotate", rotations >= 3)
			})
		}
	}
}

// failSignerAt runs s with an error injected at call c.
func (b straceBench) failSignerAt(t *testing.T, s signerScenario, c sysCall, errno string) (r childResult, isNew bool) {
	t.Helper()
	path := s.prepare(t)
	calls, r, ok := b.run(t, []string{fmt.Sprintf("%s:error=%s:when=%d", c.Name, errno, c.N)}, s.op, path)
	require.True(t, ok)
	hit := false
	for _, c := range calls {
		hit = hit || strings.Contains(c.Line, "(INJECTED)")
	}
	require.True(t, hit, "%s was not reached", c)
	if c.Name != "unlinkat" {
		require.Empty(t, temps(t, path), "%s: %s", c, r.Err)
	}
	if r.Err != "" {
		require.Contains(t, r.Err, path)
	}
	return r, s.requireKeysKept(t, path, c.String())
}

// strace without -f sees the first thread only. So all that a signer does to its
// store has to happen there, or the tests above would pass over it.
func TestFileStore_F1_AllCallsAreRecorded(t *testing.T) {
	bench := newStraceBench(t)
	for _, s := range signerScenarios(t) {
		path, log := s.prepare(t), filepath.Join(t.TempDir(), "strace.log")
		out, err := exec.Command(bench.strace, "-f", "-o", log, "-y", "-s", "0", "-e", "trace="+fileCalls, bench.child, s.op, path).Output()
		require.NoError(t, err, "%s", out)
		record, err := os.ReadFile(log)
		require.NoError(t, err)
		main, _, _ := strings.Cut(string(record), " ")
		calls := 0
		for line := range strings.Lines(string(record)) {
			if strings.Contains(line, filepath.Dir(path)) {
				require.True(t, strings.HasPrefix(line, main+" "), "another thread: %s", line)
				calls++
			}
		}
		require.Greater(t, calls, 20)
	}
}
