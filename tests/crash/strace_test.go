//go:build linux

package crash

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
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A bench runs the child under strace(1), records its system calls, and can make any one of
// them fail or kill the child.
type bench string

func newBench(t *testing.T) bench {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err == nil {
		err = exec.Command(strace, "-o", "/dev/null", "true").Run()
	}
	if err != nil {
		testkit.Missing(t, "strace", "install it and, in a container, allow ptrace")
	}
	return bench(strace)
}

// fileCalls are the system calls that touch files. "?" marks those that some processors lack.
const fileCalls = "read,write,pwrite64,openat,?open,?openat2,?creat,newfstatat,fstat,?statx,?lstat,?stat,readlinkat,?readlink," +
	"fsync,fdatasync,close,fchmod,?chmod,fchmodat,fchown,?chown,fchownat,flock,fcntl,?rename,?renameat,?renameat2," +
	"?link,linkat,?unlink,unlinkat,?mkdir,mkdirat,getdents64,ftruncate,?truncate"

// A sysCall is one line of strace's record. N counts the calls of that name from the
// start of the process, as strace's injection does.
type sysCall struct {
	Name string
	N    int
	Line string
}

func (c sysCall) String() string { return fmt.Sprintf("%s %d", c.Name, c.N) }

func (c sysCall) killed() string { return fmt.Sprintf("%s:signal=KILL:when=%d", c.Name, c.N) }

func (c sysCall) fails(errno string) string {
	return fmt.Sprintf("%s:error=%s:when=%d", c.Name, errno, c.N)
}

// changes reports whether a call changes a disk, makes a change durable, or frees a
// lock. Modes and owners do not count.
func (c sysCall) changes() bool {
	switch c.Name {
	case "open", "openat":
		return strings.Contains(c.Line, "O_CREAT") || strings.Contains(c.Line, "O_TRUNC")
	case "flock":
		return strings.Contains(c.Line, "LOCK_UN")
	}
	return !readsOnly.MatchString(c.Name)
}

var (
	callLine  = regexp.MustCompile(`^(\w+)\(`)
	readsOnly = regexp.MustCompile(`^(read|close|fcntl|fstat|newfstatat|statx|l?stat|readlink(at)?|getdents64|f?ch(mod|own)(at)?)$`)
)

// run runs one operation of the child, with injections in strace's own syntax. It
// returns the calls of the store; ok is false if the child was killed.
func (b bench) run(t *testing.T, op, path string, inject ...string) (calls []sysCall, r result, ok bool) {
	t.Helper()
	log := filepath.Join(publicDir(t), "strace.log")
	argv := []string{"-o", log, "-y", "-s", strconv.Itoa(fleetkey.MaxBundleSize), "-e", "trace=" + fileCalls}
	for _, i := range inject {
		argv = append(argv, "-e", "inject="+i)
	}
	out, err := exec.Command(string(b), append(argv, childBinary, op, path)...).Output()
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
		case started && !strings.Contains(line, "<anon_inode:"): // not the runtime's own
			calls = append(calls, sysCall{m[1], counts[m[1]], strings.TrimSpace(line)})
		}
	}
	require.True(t, started, "%s", record)
	return calls, r, ok
}

// A scenario is an operation of the child on a fresh path.
type scenario struct {
	name, op string
	before   string // the existing bundle; if it is empty, there are no directories either
}

var (
	firstStart = scenario{"first start", "start", ""}
	rotation   = scenario{"rotation", "rotate", oneKey()}
	both       = scenario{"first start and rotation", "rotate", ""}
	scenarios  = []scenario{firstStart, rotation}
)

const keysPath = "lib/keys/keys.pem" // two directories to create

func (s scenario) prepare(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(publicDir(t), keysPath)
	if s.before != "" {
		writeKeys(t, path, s.before)
	}
	return path
}
