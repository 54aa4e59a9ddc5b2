package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// accept is as of Prometheus 3, which would take names with dots, too.
const accept = `text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4`

// get sends the server a request with a token.
func get(t *testing.T, server http.Handler, path, token string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	return w
}

// scrape returns the server's series, as Prometheus would store them, with their
// values.
func scrape(t *testing.T, server http.Handler) map[string]string {
	t.Helper()
	w := get(t, server, "/metrics", "")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	series := map[string]string{}
	for line := range strings.Lines(w.Body.String()) {
		if m := sample.FindStringSubmatch(line); m != nil {
			series[m[1]+`{job="openid",instance="a:9464",`+m[2]+"}"] = m[3]
		}
	}
	return series
}

var (
	sample  = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)\n$`)
	ours    = regexp.MustCompile(`\bfleetkey_\w+`)
	outcome = regexp.MustCompile(`fleetkey_outcome(?:=~|!~|!=|=)\\?"([^"\\]*)`)
)

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

// TestNames looks for every metric, label and outcome of the dashboard and the rules
// in what the server really exports, and for every exported metric on the dashboard.
func TestNames(t *testing.T) {
	server, err := routes(fleetkeytest.NewSigner(t, fleetkey.Config{}))
	require.NoError(t, err)
	var exported string
	for id := range scrape(t, server) {
		exported += id + "\n"
	}
	dashboard := read(t, "dashboard.json")
	for _, text := range []string{dashboard, read(t, "alerts.yaml")} {
		for _, name := range ours.FindAllString(text, -1) {
			assert.Regexp(t, `\b`+name+`\b`, exported)
		}
		for _, m := range outcome.FindAllStringSubmatch(text, -1) {
			assert.Contains(t, exported, `fleetkey_outcome="`+m[1]+`"`)
		}
	}
	for _, name := range ours.FindAllString(exported, -1) {
		assert.Regexp(t, `\b`+name+`\b`, dashboard, "no panel shows it")
	}
}

// TestKeepsNothing checks that the key is gone when the server has ended.
func TestKeepsNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", w) }()
	lines := bufio.NewScanner(r)
	require.True(t, lines.Scan())
	assert.Regexp(t, `^curl -H 'Authorization: Bearer \S+' http://127\.0\.0\.1:\d+/hello$`, lines.Text())
	require.True(t, lines.Scan())
	keys, err := filepath.Glob(filepath.Join(temp, "*", "keys.pem"))
	require.NoError(t, err)
	assert.Len(t, keys, 1)
	cancel()
	require.NoError(t, <-ended)
	assert.NoFileExists(t, keys[0])
}
