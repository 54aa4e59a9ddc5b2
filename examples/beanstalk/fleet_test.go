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

// TestBundle deploys the source bundle as far as one machine allows. Three processes start at
// once without a secret, and get their region and credentials from an instance metadata
// service. As on Elastic Beanstalk, the Procfile's command runs in the directory of the
// unpacked bundle, and its environment has only the environment properties. A token must work
// at every instance behind a real HAProxy.
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
	await(t, balancer+options["HealthCheckPath"], http.StatusNotFound) // only the load balancer may see it
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
		require.NoError(t, i.Process.Signal(syscall.SIGTERM)) // as before a new version is deployed
		assert.NoError(t, i.Wait(), address)
	}
}

// unpackBundle builds the bundle like "make", except that it is for this machine, and unpacks
// it. It returns the directory and the Procfile's command.
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
	require.True(t, ok, "the Procfile's first process must be web")
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

// startAWS starts a fake Secrets Manager and an instance metadata service, version 2 (EC2
// User Guide, "Use IMDSv2"). It fails the test if metadata is requested without a session, or
// if a request is not signed with the credentials that only this service provides.
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

// haproxyConfig makes HAProxy act like Elastic Beanstalk's load balancer: it checks the
// health of each instance, sends requests to the healthy ones in turn, and adds
// X-Forwarded-Proto.
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
		program, err = exec.LookPath("/usr/sbin/haproxy") // in root's PATH only
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

// start starts a command and kills it when the test ends. A failed test shows its log.
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

// await polls a URL until it answers with the given status, and returns the body.
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
