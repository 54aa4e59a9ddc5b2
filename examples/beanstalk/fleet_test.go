package main

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestBundle deploys the source bundle as far as one machine can: three processes, whose
// region and credentials come from an instance metadata service, start at once without a
// secret. Then a token has to work at every instance behind a real HAProxy while one of
// them dies and comes back.
func TestBundle(t *testing.T) {
	dir, command := unpackBundle(t)
	options := readOptions(t, dir)
	aws := startAWS(t)
	const name = "OpenIDServerSigningSettings__AwsSecretManager__SecretName"
	fleet := map[string]*instance{}
	for _, i := range []string{"i1", "i2", "i3"} {
		address := freeAddress(t)
		fleet[i] = &instance{address: address, log: filepath.Join(t.TempDir(), "web.stdout.log"), dir: dir, command: command, env: []string{
			"PORT=" + address[len("127.0.0.1:"):], "ISSUER=" + issuer, "CLIENT_SECRET_SHA256=" + hash("s"), name + "=" + options[name],
			"HOME=" + t.TempDir(), "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + aws, "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + aws}}
		fleet[i].start(t)
	}
	kid := fleet["i1"].awaitKey(t)
	assert.Equal(t, kid, fleet["i2"].awaitKey(t))
	assert.Equal(t, kid, fleet["i3"].awaitKey(t))

	balancer := startHAProxy(t, options["HealthCheckPath"], fleet)
	resp, err := httpClient.Get(balancer + options["HealthCheckPath"])
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, resp.StatusCode, "it is for the load balancer alone")

	token := getToken(t, balancer)
	names := slices.Sorted(maps.Keys(fleet))
	asked := func(want ...string) func() bool {
		return func() bool { return slices.Equal(want, use(t, balancer, token)) }
	}
	eventually(t, asked(names...), "HAProxy does not ask all instances")
	lost := fleet["i2"]
	require.NoError(t, lost.cmd.Process.Kill()) // as a crash would
	_ = lost.cmd.Wait()
	eventually(t, asked("i1", "i3"), "HAProxy still asks the lost instance")
	lost.start(t)
	assert.Equal(t, kid, lost.awaitKey(t), "the restarted instance has another key")
	eventually(t, asked(names...), "HAProxy does not ask the restarted instance")
	for name, i := range fleet {
		require.NoError(t, i.cmd.Process.Signal(syscall.SIGTERM)) // as before a new version
		assert.NoError(t, i.cmd.Wait(), name)
	}
}

var httpClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 15 * time.Second}

func getToken(t *testing.T, balancer string) string {
	address := strings.Replace(balancer, "//", "//demo:s@", 1) + tokenPath
	resp, err := httpClient.PostForm(address, url.Values{"grant_type": {"client_credentials"}})
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return answer.Token
}

// use calls the API with a token a few times, and returns which instances have answered. Every
// call has to succeed.
func use(t *testing.T, balancer, token string) []string {
	t.Helper()
	by := map[string]bool{}
	for range 10 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, balancer+helloPath, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := httpClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode, resp.Header)
		by[resp.Header.Get("X-Served-By")] = true
	}
	return slices.Sorted(maps.Keys(by))
}

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
	address, log, dir string
	command, env      []string
	cmd               *exec.Cmd
}

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
		resp, err := httpClient.Get("http://" + i.address + healthPath)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(&health) == nil
	}, "it does not serve")
	require.NotEmpty(t, health.KID)
	return health.KID
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

// HAProxy does what Elastic Beanstalk's load balancer does: it asks each instance for
// its health, sends requests to the healthy ones in turn, and puts X-Forwarded-Proto
// on them.
const haproxyConfig = `
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
  timeout check 3s
  retries 3
  option redispatch 1
  option http-server-close
  http-reuse never

frontend clients
  bind %s
  http-request set-header X-Forwarded-Proto http
  http-response set-header X-Served-By %%s
  default_backend fleet

backend fleet
  balance roundrobin
  option httpchk GET %s
  http-check expect status 200
  default-server check inter 200ms fall 2 rise 2
`

// startHAProxy starts HAProxy in front of the fleet and returns its URL.
func startHAProxy(t *testing.T, healthPath string, fleet map[string]*instance) string {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/haproxy") // where only root looks
	}
	if err != nil {
		testkit.Missing(t, "HAProxy", "apt-get install haproxy")
	}
	address := freeAddress(t)
	config := fmt.Sprintf(haproxyConfig, address, healthPath)
	for name, i := range fleet {
		config += fmt.Sprintf("  server %s %s\n", name, i.address)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	startProcess(t, exec.Command(program, "-db", "-f", file), file+".log")
	eventually(t, func() bool {
		resp, err := httpClient.Get("http://" + address)
		return err == nil && resp.Body.Close() == nil
	}, "HAProxy does not listen")
	return "http://" + address
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

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
