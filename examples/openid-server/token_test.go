package main

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// Tests of one server: the answers of its token endpoint, and what its API accepts.

const (
	testIssuer = "https://issuer.example"
	testSecret = "k:3y/%&+"
)

// newServer returns a server with one client, "app", that may only read.
func newServer(t *testing.T) *server {
	t.Helper()
	signer, err := fleetkey.NewSigner(t.Context(), fleetkeytest.NewStore(), fleetkey.Config{Issuer: testIssuer, TokenTTL: tokenTTL, Algorithm: "ES256"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, signer.Close()) })
	return &server{name: "1", issuer: testIssuer, signer: signer, clients: map[string]client{
		"app": {sha256.Sum256([]byte(testSecret)), []string{scopeRead, "api.list"}},
	}}
}

// A tokenRequest is a form, with or without a Basic header.
type tokenRequest struct {
	form     url.Values
	id, key  string // of the Authorization header, if not empty
	modified func(*http.Request)
}

func (c tokenRequest) send(h http.Handler) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(c.form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.id != "" {
		r.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.key))
	}
	if c.modified != nil {
		c.modified(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestTokenEndpointGrants(t *testing.T) {
	s := newServer(t)
	for _, c := range []struct {
		name  string
		req   tokenRequest
		scope string
	}{
		{"client_secret_basic", tokenRequest{form: url.Values{"grant_type": {clientCredentials}, "scope": {scopeRead}}, id: "app", key: testSecret}, scopeRead},
		{"client_secret_post", tokenRequest{form: url.Values{"grant_type": {clientCredentials}, "client_id": {"app"}, "client_secret": {testSecret}}}, scopeRead + " api.list"},
		{"client_id beside Basic", tokenRequest{form: url.Values{"grant_type": {clientCredentials}, "client_id": {"app"}, "scope": {"api.list"}}, id: "app", key: testSecret}, "api.list"},
		{"unknown parameters", tokenRequest{form: url.Values{"grant_type": {clientCredentials}, "x": {"1", "2"}}, id: "app", key: testSecret}, scopeRead + " api.list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.req.send(s.handler())
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
			var answer tokenResponse
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
			token, err := s.signer.Verify(t.Context(), answer.AccessToken)
			require.NoError(t, err)
			assert.Equal(t, tokenResponse{answer.AccessToken, "Bearer", 600, c.scope}, answer)
			assert.Equal(t, []string{"app", "app", c.scope}, []string{token.Subject(), token.ClientID(), token.Scope()})
			assert.Equal(t, tokenTTL, token.ExpiresAt().Sub(token.IssuedAt()))
		})
	}
}

func TestTokenEndpointRefuses(t *testing.T) {
	s := newServer(t)
	good := func(change ...string) url.Values {
		form := url.Values{"grant_type": {clientCredentials}, "client_id": {"app"}, "client_secret": {testSecret}}
		for i := 0; i < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		return form
	}
	twice := good()
	twice.Add("scope", scopeRead)
	twice.Add("scope", scopeRead)
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Add(name, value) }
	}
	const badRequest, unauthorized = http.StatusBadRequest, http.StatusUnauthorized
	for _, c := range []struct {
		name string
		req  tokenRequest
		code int
		err  string
	}{
		{"no client", tokenRequest{form: url.Values{"grant_type": {clientCredentials}}}, unauthorized, "invalid_client"},
		{"unknown client", tokenRequest{form: good("client_id", "other")}, unauthorized, "invalid_client"},
		{"unknown client without a secret", tokenRequest{form: good("client_id", "other", "client_secret", "")}, unauthorized, "invalid_client"},
		{"wrong secret", tokenRequest{form: good("client_secret", testSecret+"x")}, unauthorized, "invalid_client"},
		{"wrong secret by Basic", tokenRequest{form: url.Values{"grant_type": {clientCredentials}}, id: "app", key: "x"}, unauthorized, "invalid_client"},
		{"another scheme", tokenRequest{form: url.Values{"grant_type": {clientCredentials}}, modified: header("Authorization", "Bearer x")}, unauthorized, "invalid_client"},
		{"Basic that is not form-encoded", tokenRequest{form: url.Values{"grant_type": {clientCredentials}},
			modified: func(r *http.Request) { r.SetBasicAuth("app", testSecret) }}, unauthorized, "invalid_client"},
		{"secret in the URL", tokenRequest{form: url.Values{"grant_type": {clientCredentials}},
			modified: func(r *http.Request) { r.URL.RawQuery = good().Encode() }}, unauthorized, "invalid_client"},
		{"two ways of authentication", tokenRequest{form: good(), id: "app", key: testSecret}, badRequest, "invalid_request"},
		{"two Authorization headers", tokenRequest{form: url.Values{"grant_type": {clientCredentials}}, id: "app", key: testSecret,
			modified: header("Authorization", "Basic x")}, badRequest, "invalid_request"},
		{"two client ids", tokenRequest{form: url.Values{"grant_type": {clientCredentials}, "client_id": {"other"}}, id: "app", key: testSecret}, badRequest, "invalid_request"},
		{"no grant type", tokenRequest{form: good("grant_type", "")}, badRequest, "invalid_request"},
		{"another grant type", tokenRequest{form: good("grant_type", "password")}, badRequest, "unsupported_grant_type"},
		{"scope of another client", tokenRequest{form: good("scope", scopeRead+" "+scopeWrite)}, badRequest, "invalid_scope"},
		{"scope with two spaces", tokenRequest{form: good("scope", scopeRead+"  api.list")}, badRequest, "invalid_scope"},
		{"scope twice", tokenRequest{form: twice}, badRequest, "invalid_request"},
		{"not a form", tokenRequest{form: good(), modified: func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }}, unauthorized, "invalid_client"},
		{"broken form", tokenRequest{modified: func(r *http.Request) {
			*r = *httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader("a=%zz"))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}}, badRequest, "invalid_request"},
		{"too long", tokenRequest{form: good("x", strings.Repeat("x", maxBody))}, badRequest, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.req.send(s.handler())
			require.Equal(t, c.code, w.Code, w.Body)
			var answer map[string]string
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
			assert.Equal(t, c.err, answer["error"])
			assert.NotEmpty(t, answer["error_description"])
			assert.Len(t, answer, 2)
			assert.NotContains(t, w.Body.String(), testSecret)
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
			assert.Equal(t, c.code == unauthorized, strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic "))
		})
	}
}

// TestProtectedAPI looks at what only this server decides: which scope it takes.
func TestProtectedAPI(t *testing.T) {
	s := newServer(t)
	for scope, code := range map[string]int{scopeRead: 200, "api.list " + scopeRead: 200, "api.list": 403, "": 403} {
		token, err := s.signer.Issue(t.Context(), fleetkey.Claims{ClientID: "app", Scope: scope})
		require.NoError(t, err)
		r := httptest.NewRequest(http.MethodGet, helloPath, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, r)
		assert.Equal(t, code, w.Code, "scope %q", scope)
	}
}
