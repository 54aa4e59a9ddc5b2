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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

func newVerifier(t *testing.T, issuer string, client *http.Client) *fleetkey.Verifier {
	t.Helper()
	v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{
		Issuer: issuer, Audience: []string{issuer}, HTTPClient: client, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, v.Close()) })
	return v
}

// get asks the API with a token.
func get(v *fleetkey.Verifier, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	routes(v).ServeHTTP(w, r)
	return w
}

func TestWhoGetsIn(t *testing.T) {
	issuer := fleetkeytest.NewIssuer(t)
	v := newVerifier(t, issuer.URL, issuer.HTTPClient)
	for name, c := range map[string]struct {
		claims fleetkey.Claims
		code   int
	}{
		"a good token":        {fleetkey.Claims{ClientID: "demo", Scope: "api.read"}, http.StatusOK},
		"without the scope":   {fleetkey.Claims{ClientID: "demo"}, http.StatusForbidden},
		"for another service": {fleetkey.Claims{ClientID: "demo", Scope: "api.read", Audience: []string{"https://other.example"}}, http.StatusUnauthorized},
	} {
		assert.Equal(t, c.code, get(v, "/hello", issuer.Token(c.claims)).Code, name)
	}
}

// TestOutlivesTheIssuer starts examples/openid-server, gets a token there, and stops it.
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
		_ = openID.Wait() // with the error that it was killed
	}
	defer stop()
	var command []string
	for lines := bufio.NewScanner(printed); command == nil; {
		require.True(t, lines.Scan(), "it has not printed how to get a token")
		command = regexp.MustCompile(`-u (\w+:\w+) .* http://(\S+)/connect/token`).FindStringSubmatch(lines.Text())
	}
	issuer := "http://" + command[2]
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"api.read"}}
	answer, err := http.PostForm("http://"+command[1]+"@"+command[2]+"/connect/token", form)
	require.NoError(t, err)
	defer answer.Body.Close()
	var issued struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&issued))

	v := newVerifier(t, issuer, nil)
	stop()
	require.Error(t, v.Refresh(t.Context()), "it is gone")
	for range 2 {
		w := get(v, "/hello", issued.Token)
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, "hello, demo\n", w.Body.String())
	}
	require.Equal(t, http.StatusOK, get(v, "/healthz", "").Code)
	require.Equal(t, http.StatusUnauthorized, get(v, "/hello", issued.Token+"x").Code)

	// Nobody can say whether that is a new key of the issuer.
	other := testkit.Issue(t, fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: issuer}))
	w := get(v, "/hello", other)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
}
