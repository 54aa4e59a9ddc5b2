//go:build linux

package fleetkey_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// A bench that runs internal/filestorechild under strace(1), which records its
// system calls, and kills it at, or fails, any one of them.

// A straceBench runs one operation of the child.
type straceBench struct {
	strace, child string
	shown         int // bytes of each argument that the record shows
}

func newStraceBench(t *testing.T) straceBench {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err == nil {
		err = exec.Command(strace, "-o", "/dev/null", "true").Run() // a container may forbid ptrace
	}
	if err != nil {
		const msg = "strace does not run here, so that death and failure at each system call are NOT TESTED: %v"
		if os.Getenv("FLEETKEY_REQUIRE") == "1" {
			t.Fatalf(msg, err)
		}
		t.Skipf(msg, err)
	}
	return straceBench{strace: strace, child: childBinary(t)}
}

// fileCalls are the system calls that touch files; "?" says that a processor
// may not have one. Reading the child's own standard input is the marker.
const fileCalls = "read,write,pwrite64,openat,?open,?openat2,?creat,newfstatat,fstat,?statx,?lstat,?stat,readlinkat,?readlink," +
	"fsync,fdatasync,close,fchmod,?chmod,fchmodat,fchown,?chown,fchownat,flock,fcntl,?rename,?renameat,?renameat2," +
	"?link,linkat,?unlink,unlinkat,?mkdir,mkdirat,getdents64,ftruncate,?truncate"

// A sysCall is one line of strace's record. N counts calls of that name from
// the start of the process, as strace's injection does.
type sysCall struct {
	Name string
	N    int
	Line string
}

func (c sysCall) String() string { return fmt.Sprintf("%s %d", c.Name, c.N) }

var callLine = regexp.MustCompile(`^(\w+)\(`)

// run runs "child args" under strace, with injections of strace's own syntax
// ("fsync:error=EIO:when=2"). It returns the file calls that the store made,
// and ok = false if the child was killed.
func (b straceBench) run(t *testing.T, inject []string, args ...string) (calls []sysCall, r childResult, ok bool) {
	t.Helper()
	log := filepath.Join(memoryDir(t), "strace.log")
	argv := []string{"-o", log, "-y", "-s", strconv.Itoa(b.shown), "-e", "trace=" + fileCalls}
	for _, i := range inject {
		argv = append(argv, "-e", "inject="+i)
	}
	cmd := exec.Command(b.strace, append(append(argv, b.child), args...)...)
	out, err := cmd.Output()
	if ok = err == nil; ok {
		require.NoError(t, json.Unmarshal(out, &r), "%s", out)
	}
	record, err := os.ReadFile(log)
	require.NoError(t, err)
	counts, started := map[string]int{}, false
	for line := range strings.Lines(string(record)) {
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		counts[m[1]]++
		switch {
		case strings.HasPrefix(line, "read(0<"):
			started = true
		case strings.HasPrefix(line, "write(1<"):
			return calls, r, ok
		case started:
			calls = append(calls, sysCall{m[1], counts[m[1]], strings.TrimSpace(line)})
		}
	}
	require.True(t, started, "%s", record)
	return calls, r, ok
}

// memoryDir is a fresh directory in memory where the machine has one: what a
// call does is the same there, and hundreds of runs need not wait for a disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "filestore-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// A scenario is an operation of the child on a fresh path, and what the file
// holds before: nothing, or a bundle of one line.
type scenario struct {
	name, before string
}

var scenarios = []scenario{{"first create", ""}, {"save", "the bundle before\n"}}

// prepare returns a fresh path and the child's arguments.
func (s scenario) prepare(t *testing.T) (path string, args []string) {
	t.Helper()
	path = filepath.Join(memoryDir(t), "keys", "keys.pem")
	if s.before == "" {
		return path, []string{"first", path}
	}
	_, v := stored(t, path, s.before)
	return path, []string{"save", path, string(v)}
}

// requireOldOrNew checks that the file is what it was or a whole new bundle.
func (s scenario) requireOldOrNew(t *testing.T, path string) (now fleetkey.Version, isNew bool) {
	t.Helper()
	content, err := os.ReadFile(path)
	if s.before == "" && os.IsNotExist(err) {
		return "", false
	}
	require.NoError(t, err)
	if string(content) == s.before {
		_, v, err := fleetkey.NewFileStore(path).Load(t.Context())
		require.NoError(t, err)
		return v, false
	}
	return requireWhole(t, path), true
}

// requireNextSaveWorks: nothing that a dead or failed writer left is in the
// way, and an hour later all of it is gone.
func (s scenario) requireNextSaveWorks(t *testing.T, path string, prev fleetkey.Version) {
	t.Helper()
	for _, name := range temps(t, path) {
		makeOld(t, name)
	}
	_, err := fleetkey.NewFileStore(path).Save(t.Context(), []byte("the next bundle"), prev)
	require.NoError(t, err)
	requireContent(t, path, "the next bundle")
	require.Empty(t, temps(t, path))
}
