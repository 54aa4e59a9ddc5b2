package main

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestOutlivesTheIssuer starts examples/openid-server, gets a token from it, and stops it.
func TestOutlivesTheIssuer(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		testkit.Missing(t, "the go command", "it must be in PATH")
	}
	program := filepath.Join(t.TempDir(), "openid-server.exe")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../openid-server").CombinedOutput()
	require.NoError(t, err, "%s", out)
	openID := exec.CommandContext(t.Context(), program, "-addr", "127.0.0.1:0")
	dir := t.TempDir()
	openID.Env = append(openID.Environ(), "TMPDIR="+dir, "TMP="+dir)
	printed, err := openID.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, openID.Start())
	stop := func() {
		_ = openID.Process.Kill()
		_ = openID.Wait() // returns the error that it was killed
	}
	defer stop()
	var command []string
	for lines := bufio.NewScanner(printed); command == nil; {
		require.True(t, lines.Scan(), "it has not printed how to get a token")
		command = regexp.MustCompile(`-u (\w+:\w+) .* http://(\S+)/connect/token`).FindStringSubmatch(lines.Text())
	}
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"api.read"}}
	answer, err := http.PostForm("http://"+command[1]+"@"+command[2]+"/connect/token", form)
	require.NoError(t, err)
	defer answer.Body.Close()
	var issued struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&issued))

	issuer := "http://" + command[2]
	v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{
		Issuer: issuer, Audience: []string{issuer}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer v.Close()
	stop()
	require.Error(t, v.Refresh(t.Context()), "the issuer is stopped")
	for _, c := range []struct {
		path, token string
		code        int
	}{
		{"/hello", issued.Token, http.StatusOK},
		{"/healthz", "", http.StatusOK},
		{"/hello", issued.Token + "x", http.StatusUnauthorized},
		// This could be a new key of the issuer, which cannot be asked.
		{"/hello", testkit.Issue(t, fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: issuer})), http.StatusServiceUnavailable},
	} {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Header.Set("Authorization", "Bearer "+c.token)
		w := httptest.NewRecorder()
		routes(v).ServeHTTP(w, r)
		require.Equal(t, c.code, w.Code)
		if c.code == http.StatusOK && c.token != "" {
			require.Equal(t, "hello, demo\n", w.Body.String())
		}
	}
}
