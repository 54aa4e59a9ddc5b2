package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestTwoApps gives two apps one key file: each takes the other's tokens, and
// neither takes those of an app with another file.
func TestTwoApps(t *testing.T) {
	dir := t.TempDir()
	open := func(file string) *fleetkey.Signer {
		return testkit.Start(t, fleetkey.NewFileStore(filepath.Join(dir, file)), testkit.Config())
	}
	a, b, other := open("keys.pem"), open("keys.pem"), open("other.pem")
	for _, c := range []struct {
		name   string
		issuer *fleetkey.Signer
		scope  string
		code   int
		body   string
	}{
		{"its own token", b, "greet", http.StatusOK, "hello, alice\n"},
		{"the other app's", a, "greet", http.StatusOK, "hello, alice\n"},
		{"one without the scope", a, "", http.StatusForbidden, "Forbidden\n"},
		{"one by another key", other, "greet", http.StatusUnauthorized, "Unauthorized\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			token, err := c.issuer.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: c.scope})
			require.NoError(t, err)
			r := httptest.NewRequest(http.MethodGet, "/hello", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			routes(b).ServeHTTP(w, r)
			assert.Equal(t, c.code, w.Code)
			assert.Equal(t, c.body, w.Body.String())
		})
	}
}
