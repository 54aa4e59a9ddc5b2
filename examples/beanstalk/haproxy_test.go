package main

import (
	"encoding/csv"
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

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A balancer is a real HAProxy in front of the instances. It does what Elastic
// Beanstalk's load balancer does: it asks each instance for its health, sends
// requests to the healthy ones in turn, and puts X-Forwarded-Proto on them.
type balancer struct {
	url   string // for clients
	stats string // HAProxy's own view, as CSV
}

// served is the header in which HAProxy says which instance has answered.
const served = "X-Served-By"

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
  http-response set-header ` + served + ` %s
  default_backend fleet

frontend operators
  bind fd@4
  stats enable
  stats uri /

backend fleet
  balance roundrobin
  option httpchk GET %[1]s
  http-check expect status 200
  default-server check inter 200ms fall 2 rise 2
`

// startHAProxy starts HAProxy, which ends with the test. The listeners are made
// here and handed over, so that no other process can be on their ports.
func startHAProxy(t *testing.T, checkPath string, instances []*instance) *balancer {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/haproxy") // where only root looks
	}
	if err != nil {
		testkit.Missing(t, "HAProxy", "apt-get install haproxy")
	}
	config := strings.Replace(haproxyConfig, "%[1]s", checkPath, 1)
	for _, i := range instances {
		config += fmt.Sprintf("  server %s %s\n", i.name, i.addr())
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(config), 0o600))

	cmd := exec.Command(program, "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
	var urls []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		file, err := l.(*net.TCPListener).File()
		require.NoError(t, err)
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		urls = append(urls, "http://"+l.Addr().String())
		l.Close()
		t.Cleanup(func() { file.Close() })
	}
	startProcess(t, cmd, filepath.Join(dir, "haproxy.log"))
	return &balancer{urls[0], urls[1] + "/;csv"}
}

// state returns what HAProxy thinks of an instance, such as UP or DOWN.
func (b *balancer) state(name string) (string, error) {
	resp, err := http.Get(b.stats)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(text), "# "))).ReadAll()
	if err != nil {
		return "", err
	}
	column := map[string]int{}
	for n, title := range rows[0] {
		column[title] = n
	}
	for _, row := range rows[1:] {
		if row[column["pxname"]] == "fleet" && row[column["svname"]] == name {
			return row[column["status"]], nil
		}
	}
	return "", fmt.Errorf("HAProxy does not know %s: %s", name, text)
}

// await polls until HAProxy's view of an instance is as wanted.
func (b *balancer) await(t *testing.T, i *instance, want string) {
	t.Helper()
	var state string
	var err error
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if state, err = b.state(i.name); err == nil && state == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("HAProxy takes %s for %q (%v), not %q; its log:\n%s", i.name, state, err, want, i.logged(t))
}
