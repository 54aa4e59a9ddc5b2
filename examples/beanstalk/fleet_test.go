package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const issuer = "https://id.example.com"

// TestBundle deploys the source bundle as far as one machine can: three processes
// whose region and credentials come from an instance metadata service. They move from
// local keys to a shared one, as in docs/migrating.md. Then a token has to
// work at every instance behind a real HAProxy while one of them dies and comes back.
func TestBundle(t *testing.T) {
	dir, command := unpackBundle(t)
	options := readOptions(t, dir)
	secret := rand.Text()
	fleet, own := startWithOwnKeys(t, dir, command, secret)

	aws := startAWS(t)
	const name = "OpenIDServerSigningSettings__AwsSecretManager__SecretName"
	for _, i := range fleet {
		i.dir, i.env = dir, append(i.env, name+"="+options[name], "ADOPT_FILE="+i.keys,
			"AWS_EC2_METADATA_SERVICE_ENDPOINT="+aws, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+aws)
		i.start(t)
	}
	kid := fleet[0].awaitKey(t)
	var tokens []string
	for n, i := range fleet {
		assert.Equal(t, kid, i.awaitKey(t), "%s has another key", i.name)
		client{i.url(), secret}.use(t, 1, own[n]) // sticky sessions bring it back
		tokens = append(tokens, client{i.url(), secret}.token(t))
	}

	c := client{startHAProxy(t, options["HealthCheckPath"], fleet), secret}
	require.Len(t, c.use(t, 10, tokens...), len(fleet), "not all instances answer")
	for path, status := range map[string]int{
		fleetkey.DiscoveryPath:     http.StatusOK,
		fleetkey.JWKSPath:          http.StatusOK,
		options["HealthCheckPath"]: http.StatusNotFound, // for the load balancer alone
	} {
		c.call(t, http.MethodGet, path, "", status, func(*http.Request) {})
	}

	lost := fleet[1]
	require.NoError(t, lost.cmd.Process.Kill()) // as a crash would
	_ = lost.cmd.Wait()
	eventually(t, func() bool { return !c.use(t, 3, tokens...)[lost.name] }, "HAProxy still asks the lost instance")
	tokens = append(tokens, c.token(t))
	lost.start(t)
	assert.Equal(t, kid, lost.awaitKey(t), "the restarted instance has another key")
	eventually(t, func() bool { return c.use(t, 3, tokens...)[lost.name] }, "HAProxy does not ask the restarted instance")
	for _, i := range fleet {
		i.terminate(t)
		log, err := os.ReadFile(i.log)
		require.NoError(t, err)
		assert.NotContains(t, string(log), "PRIVATE KEY")
	}
}

// startWithOwnKeys runs three instances of a version that has its keys in files, and
// returns them with a token of each.
func startWithOwnKeys(t *testing.T, dir string, command []string, secret string) (fleet []*instance, tokens []string) {
	before := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(dir, "bin"), filepath.Join(before, "bin")))
	for _, name := range []string{"i1", "i2", "i3"} {
		i := &instance{name: name, dir: before, command: command, port: freePort(t)}
		i.log, i.keys = filepath.Join(t.TempDir(), "web.stdout.log"), filepath.Join(t.TempDir(), "keys.pem")
		i.env = []string{"PORT=" + i.port, "ISSUER=" + issuer, "CLIENT_SECRET_SHA256=" + hash(secret), "HOME=" + t.TempDir()}
		settings := fmt.Sprintf(`{"OpenIDServerSigningSettings": {"File": {"Path": %q}}}`, i.keys)
		require.NoError(t, os.WriteFile(filepath.Join(before, "appsettings.json"), []byte(settings), 0o600))
		i.start(t)
		i.awaitKey(t)
		tokens = append(tokens, client{i.url(), secret}.token(t))
		i.terminate(t)
		fleet = append(fleet, i)
	}
	return fleet, tokens
}

func hash(secret string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(secret))) }

// A client gets tokens and uses them, at an instance or through the balancer.
type client struct{ base, secret string }

// served is the header in which HAProxy says which instance has answered.
const served = "X-Served-By"

var httpClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 15 * time.Second}

func (c client) token(t *testing.T) string {
	t.Helper()
	_, body := c.call(t, http.MethodPost, tokenPath, "grant_type=client_credentials", http.StatusOK, func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("demo", c.secret)
	})
	var answer struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.Unmarshal(body, &answer))
	return answer.Token
}

// use calls the API n times with each token, and returns which instances have
// answered. Every call has to succeed.
func (c client) use(t *testing.T, n int, tokens ...string) map[string]bool {
	t.Helper()
	by := map[string]bool{}
	for range n {
		for _, token := range tokens {
			resp, _ := c.call(t, http.MethodGet, helloPath, "", http.StatusOK, func(r *http.Request) {
				r.Header.Set("Authorization", "Bearer "+token)
			})
			by[resp.Header.Get(served)] = true
		}
	}
	return by
}

// call requires a status and returns the answer and its body.
func (c client) call(t *testing.T, method, path, body string, status int, change func(*http.Request)) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest(method, c.base+path, strings.NewReader(body))
	require.NoError(t, err)
	change(r)
	resp, err := httpClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, status, resp.StatusCode, "%s: %s %v", path, answer, resp.Header)
	return resp, answer
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
  bind fd@3
  http-request set-header X-Forwarded-Proto http
  http-response set-header ` + served + ` %%s
  default_backend fleet

backend fleet
  balance roundrobin
  option httpchk GET %s
  http-check expect status 200
  default-server check inter 200ms fall 2 rise 2
`

// startHAProxy starts HAProxy in front of the fleet and returns its URL. The listener
// is made here and handed over, so that no other process can be on its port.
func startHAProxy(t *testing.T, healthPath string, fleet []*instance) (base string) {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/haproxy") // where only root looks
	}
	if err != nil {
		testkit.Missing(t, "HAProxy", "apt-get install haproxy")
	}
	config := fmt.Sprintf(haproxyConfig, healthPath)
	for _, i := range fleet {
		config += fmt.Sprintf("  server %s 127.0.0.1:%s\n", i.name, i.port)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer socket.Close()
	cmd := exec.Command(program, "-db", "-f", file)
	cmd.ExtraFiles = []*os.File{socket}
	startProcess(t, cmd, file+".log")
	return "http://" + l.Addr().String()
}
