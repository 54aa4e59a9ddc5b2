package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const anyPort = "127.0.0.1:0"

// story matches the output of a successful demonstration.
var story = regexp.MustCompile(`^3 OpenID servers share one signing key, in (.*)\.
  proxy       http://127\.0\.0\.1:\d+
  instance 1  http://127\.0\.0\.1:\d+  key (.{43})
  instance 2  http://127\.0\.0\.1:\d+  key (.{43})
  instance 3  http://127\.0\.0\.1:\d+  key (.{43})

Instance 1 issues a token, signed with key (.{43})\.
  instance 2 accepts it: 200 OK, hello, demo
  instance 3 accepts it: 200 OK, hello, demo
  through the proxy, instance 1 accepts it: 200 OK, hello, demo
  through the proxy, instance 2 accepts it: 200 OK, hello, demo
  through the proxy, instance 3 accepts it: 200 OK, hello, demo

A server with another key issues a token, signed with key (.{43})\.
  instance 1 refuses it: 401 Unauthorized, Bearer error="invalid_token", error_description="[a-z ]+"
  instance 2 refuses it: 401 Unauthorized, Bearer error="invalid_token", error_description="[a-z ]+"
  instance 3 refuses it: 401 Unauthorized, Bearer error="invalid_token", error_description="[a-z ]+"
$`)

func TestDemonstration(t *testing.T) {
	aws := awsfake.Start(t)
	aws.Setenv(t)
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("TMP", os.Getenv("TMPDIR")) // on Windows
	for _, c := range []struct{ settings, store string }{
		{"", `^file .*openid-server-\d+.keys\.pem$`},
		{"appsettings.json", `^AWS secret fleetkey/demo-keys in eu-west-1$`},
	} {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), anyPort, c.settings, true, &out))
		m := story.FindStringSubmatch(out.String())
		require.NotNil(t, m, out.String())
		assert.Regexp(t, c.store, m[1])
		assert.Equal(t, []string{m[2], m[2], m[2]}, m[3:6], "the fleet has more than one key")
		assert.NotEqual(t, m[2], m[6], "the stranger has the fleet's key")
	}
	assert.Equal(t, 1, aws.Versions("fleetkey/demo-keys"))
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	assert.Empty(t, left, "keys are left behind")
}

// TestDemonstrationFails checks that the demonstration notices instances without a shared key.
func TestDemonstrationFails(t *testing.T) {
	apart := func() (fleetkey.KeyStore, error) { return fleetkeytest.NewStore(), nil }
	f, err := startFleet(t.Context(), testkit.Issuer, apart, client{"demo", sha256.Sum256([]byte("s"))})
	require.NoError(t, err)
	defer f.close()
	require.ErrorContains(t, demo{io.Discard, "demo", "s"}.run(t.Context(), f, fleetkeytest.NewStore()), "refused the token: Bearer")
}

// TestServes runs the printed commands as a user would, and then interrupts.
func TestServes(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		testkit.Missing(t, "curl", "apt-get install curl")
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, anyPort, "", false, w) }()
	script := "set -e\n"
	for lines := bufio.NewScanner(r); !strings.Contains(script, healthPath); {
		require.True(t, lines.Scan())
		command, is := strings.CutPrefix(lines.Text(), "  ")
		if is && (strings.HasPrefix(command, "TOKEN=") || strings.HasPrefix(command, "curl ")) {
			script += strings.Replace(command, "curl ", "curl --fail --silent --show-error ", 1) + "\n"
		}
	}
	out, err := exec.CommandContext(ctx, "sh", "-c", script).CombinedOutput()
	require.NoError(t, err, "%s\n%s", script, out)
	for _, part := range []string{`"message":"hello, demo"`, `"token_endpoint":`, `"x5c":`, `{"status":"ok",`} {
		assert.Contains(t, string(out), part)
	}
	issuer := regexp.MustCompile(`http://[\d.:]+`).FindString(script)
	hidden, err := http.Get(issuer + healthPath)
	require.NoError(t, err)
	hidden.Body.Close()
	assert.Equal(t, http.StatusNotFound, hidden.StatusCode, "the proxy shows health")
	interrupt()
	require.NoError(t, <-ended)
}

func TestTokenEndpoint(t *testing.T) {
	signer := fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: testkit.Issuer, TokenTTL: tokenTTL})
	s := &server{issuer: testkit.Issuer, signer: signer, client: client{"app", sha256.Sum256([]byte("s"))}}
	for _, c := range []struct {
		id, secret, grant, scope string
		code                     int
		says                     string
	}{
		{"app", "s", clientCredentials, scope, 200, `"expires_in":60,"scope":"api.read"`},
		{"app", "s", clientCredentials, "", 200, `"scope":"api.read"`},
		{"app", "x", clientCredentials, scope, 401, "invalid_client"},
		{"app", "", clientCredentials, scope, 401, "invalid_client"},
		{"other", "s", clientCredentials, scope, 401, "invalid_client"},
		{"app", "s", "password", scope, 400, "unsupported_grant_type"},
		{"app", "s", clientCredentials, "api.write", 400, "invalid_scope"},
		{"app", "s", clientCredentials + strings.Repeat("x", maxBody), "", 400, "unsupported_grant_type"},
	} {
		form := url.Values{"grant_type": {c.grant}, "scope": {c.scope}}
		r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(c.id, c.secret)
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, r)
		assert.Equal(t, c.code, w.Code, c)
		assert.Contains(t, w.Body.String(), c.says)
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	}
}
