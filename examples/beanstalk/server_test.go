package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// read returns the environment of some properties, besides those that are required.
func read(properties ...string) (environment, error) {
	set := map[string]string{"ISSUER": issuer, "CLIENT_SECRET_SHA256": hash("s")}
	for i := 0; i < len(properties); i += 2 {
		set[properties[i]] = properties[i+1]
	}
	return readEnvironment(func(name string) string { return set[name] })
}

func TestReadEnvironment(t *testing.T) {
	env, err := read()
	require.NoError(t, err)
	assert.Equal(t, []any{"5000", "demo", time.Duration(0), nil}, []any{env.port, env.clientID, env.config.Rotation.Every, env.config.Adopt})
	env, err = read("PORT", "8000", "CLIENT_ID", "web", "ROTATE_EVERY", "2160h", "ADOPT_FILE", "/keys.pem")
	require.NoError(t, err)
	assert.Equal(t, []any{"8000", "web", 90 * 24 * time.Hour}, []any{env.port, env.clientID, env.config.Rotation.Every})
	assert.NotNil(t, env.config.Adopt)
	for _, wrong := range [][]string{
		{"CLIENT_SECRET_SHA256", ""}, {"CLIENT_SECRET_SHA256", "secret"}, {"CLIENT_SECRET_SHA256", hash("s") + "00"},
		{"CLIENT_SECRET_SHA256", hash("s")[2:]}, {"ROTATE_EVERY", "90d"},
	} {
		_, err := read(wrong...)
		assert.ErrorContains(t, err, "property "+wrong[0], wrong)
	}
}

func TestTokenEndpoint(t *testing.T) {
	env, err := read()
	require.NoError(t, err)
	h := newHandler(fleetkeytest.NewSigner(t, env.config), env)
	const grant = "client_credentials"
	for _, c := range []struct {
		id, secret, grant, scope string
		code                     int
		says                     string
	}{
		{"demo", "s", grant, "", 200, `"access_token":"ey`},
		{"demo", "s", grant, scope, 200, `"scope":"api.read"`},
		{"demo", "x", grant, scope, 401, "invalid_client"},
		{"demo", "", grant, scope, 401, "invalid_client"},
		{"other", "s", grant, scope, 401, "invalid_client"},
		{"demo", "s", "password", scope, 400, "unsupported_grant_type"},
		{"demo", "s", grant, "api.write", 400, "invalid_scope"},
	} {
		form := url.Values{"grant_type": {c.grant}, "scope": {c.scope}}
		r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(c.id, c.secret)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, c.code, w.Code, c)
		assert.Contains(t, w.Body.String(), c.says)
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	}
}
