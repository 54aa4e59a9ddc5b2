package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 15 * time.Second}

// TestBundle deploys the source bundle as far as one machine can: three processes, whose
// region and credentials come from an instance metadata service, start at once without a
// secret. Elastic Beanstalk starts the Procfile's command in the directory of the unpacked
// bundle, with the environment properties and nothing else in its environment. A token has
// to work at every instance behind a real HAProxy.
func TestBundle(t *testing.T) {
	dir, command := unpackBundle(t)
	options := readOptions(t, dir)
	aws := startAWS(t)
	const name = "OpenIDServerSigningSettings__AwsSecretManager__SecretName"
	fleet := map[string]*exec.Cmd{} // by address
	for range 3 {
		address := freeAddress(t)
		i := exec.Command(filepath.Join(dir, command[0]), command[1:]...)
		i.Dir, i.Env = dir, []string{"PORT=" + address[len("127.0.0.1:"):], "ISSUER=" + issuer, "CLIENT_SECRET_SHA256=" + hash("s"),
			name + "=" + options[name], "HOME=" + t.TempDir(), "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + aws, "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + aws}
		start(t, i)
		fleet[address] = i
	}
	keys := map[string]bool{}
	for address := range fleet {
		var health struct {
			KID string `json:"signing_kid"`
		}
		require.NoError(t, json.Unmarshal(await(t, "http://"+address+options["HealthCheckPath"], http.StatusOK), &health))
		keys[health.KID] = true
	}
	require.Len(t, keys, 1, "the instances have different keys")

	balancer := startHAProxy(t, options["HealthCheckPath"], slices.Collect(maps.Keys(fleet)))
	await(t, balancer+options["HealthCheckPath"], http.StatusNotFound) // it is for the load balancer alone
	form := url.Values{"grant_type": {"client_credentials"}}
	resp, err := client.PostForm(strings.Replace(balancer, "//", "//demo:s@", 1)+tokenPath, form)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	served := map[string]bool{}
	for range 9 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, balancer+helloPath, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+answer.Token)
		resp, err := client.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode, resp.Header)
		served[resp.Header.Get("X-Served-By")] = true
	}
	require.Len(t, served, 3, "not all instances answer")
	for address, i := range fleet {
		require.NoError(t, i.Process.Signal(syscall.SIGTERM)) // as before a new version
		assert.NoError(t, i.Wait(), address)
	}
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

frontend clients
  bind %s
  http-request set-header X-Forwarded-Proto http
  http-response set-header X-Served-By %%s
  default_backend fleet

backend fleet
  balance roundrobin
  option httpchk GET %s
  http-check expect status 200
  default-server check inter 200ms
`

// startHAProxy starts HAProxy in front of the fleet and returns its URL.
func startHAProxy(t *testing.T, healthPath string, fleet []string) string {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/haproxy") // where only root looks
	}
	if err != nil {
		testkit.Missing(t, "HAProxy", "apt-get install haproxy")
	}
	address := freeAddress(t)
	config := fmt.Sprintf(haproxyConfig, address, healthPath)
	for i, instance := range fleet {
		config += fmt.Sprintf("  server i%d %s\n", i, instance)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	start(t, exec.Command(program, "-db", "-f", file))
	return "http://" + address
}

// start starts a command that ends with the test, if not before. A test that fails shows its log.
func start(t *testing.T, cmd *exec.Cmd) {
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s:\n%s", cmd, &log)
		}
	})
}

// await polls an address until it answers with a status, and returns the answer.
func await(t *testing.T, url string, status int) []byte {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(url)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		if resp.StatusCode == status {
			return body
		}
	}
	t.Fatalf("%s does not answer with %d", url, status)
	return nil
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
