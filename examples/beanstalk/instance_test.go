package main

import (
	"archive/zip"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// unpackBundle makes the bundle as "make" does, though for this machine, unpacks
// it, and returns the directory and the command of the Procfile.
func unpackBundle(t *testing.T) (dir string, command []string) {
	if _, err := exec.LookPath("python3"); err != nil {
		testkit.Missing(t, "python3, which packs the bundle", "apt-get install python3")
	}
	built, dir := t.TempDir(), t.TempDir()
	bundle := filepath.Join(built, "bundle.zip")
	out, err := exec.Command("make", "bundle", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH,
		"BIN="+filepath.Join(built, "bin"), "BUNDLE="+bundle).CombinedOutput()
	require.NoError(t, err, string(out))
	archive, err := zip.OpenReader(bundle)
	require.NoError(t, err)
	defer archive.Close()
	require.NoError(t, os.CopyFS(dir, archive))
	procfile, err := os.ReadFile(filepath.Join(dir, "Procfile"))
	require.NoError(t, err)
	web, ok := strings.CutPrefix(string(procfile), "web: ")
	require.True(t, ok, "the Procfile's first process has to be web")
	return dir, strings.Fields(web)
}

// readOptions returns the options of .ebextensions/fleet.config, of all namespaces.
func readOptions(t *testing.T, dir string) map[string]string {
	text, err := os.ReadFile(filepath.Join(dir, ".ebextensions", "fleet.config"))
	require.NoError(t, err)
	options := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^    (\w+): "?([^"\n]+)`).FindAllStringSubmatch(string(text), -1) {
		options[m[1]] = m[2]
	}
	return options
}

// An instance is a process of the program in the source bundle, started as Elastic
// Beanstalk starts it: the Procfile's command, in the directory of the unpacked
// bundle, with the environment properties and nothing else in its environment.
type instance struct {
	name, port string
	dir        string
	command    []string
	env        []string
	log, keys  string // files
	cmd        *exec.Cmd
}

func (i *instance) url() string { return "http://127.0.0.1:" + i.port }

func (i *instance) start(t *testing.T) {
	i.cmd = exec.Command(filepath.Join(i.dir, i.command[0]), i.command[1:]...)
	i.cmd.Dir, i.cmd.Env = i.dir, i.env
	startProcess(t, i.cmd, i.log)
}

// awaitKey waits until the instance serves, and returns its signing key's ID. It asks
// for that as the load balancer does.
func (i *instance) awaitKey(t *testing.T) string {
	t.Helper()
	var health struct {
		KID string `json:"signing_kid"`
	}
	eventually(t, func() bool {
		resp, err := httpClient.Get(i.url() + healthPath)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(&health) == nil
	}, i.name+" does not serve")
	require.NotEmpty(t, health.KID)
	return health.KID
}

// terminate ends it as Elastic Beanstalk does before a new version.
func (i *instance) terminate(t *testing.T) {
	require.NoError(t, i.cmd.Process.Signal(syscall.SIGTERM))
	assert.NoError(t, i.cmd.Wait(), "%s, after SIGTERM", i.name)
}

// startProcess starts a command that ends with the test, if not before. A test that
// fails shows its log.
func startProcess(t *testing.T, cmd *exec.Cmd, log string) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if text, _ := os.ReadFile(log); t.Failed() {
			t.Logf("%s:\n%s", log, text)
		}
	})
}

// eventually polls for something that processes bring about.
func eventually(t *testing.T, done func() bool, otherwise string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// startAWS starts a Secrets Manager and the instance metadata service in version 2 (EC2
// User Guide, "Use IMDSv2"). It fails the test if the metadata is asked without a session,
// or if a request is not signed with the credentials that nothing else hands out.
func startAWS(t *testing.T) (url string) {
	fake := awsfake.New()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/latest/api/token":
			assert.Equal(t, http.MethodPut, r.Method)
		case strings.HasPrefix(r.URL.Path, "/latest/"):
			assert.Equal(t, "token", r.Header.Get("X-Aws-Ec2-Metadata-Token"))
		default:
			assert.Contains(t, r.Header.Get("Authorization"), "Credential=ASIAFAKE/")
			assert.Equal(t, "token", r.Header.Get("X-Amz-Security-Token"))
		}
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}
