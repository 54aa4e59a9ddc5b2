package fleetkey_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file tests the HTTP handlers from a client's point of view.

func ask(h http.Handler, method string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return text
}

func TestJWKSAnswers(t *testing.T) {
	p := newParty(t, "ES256", func(c *fleetkey.Config) { c.JWKSMaxAge = 90 * time.Second })
	h := p.JWKS()
	get := ask(h, "GET")
	text := body(t, get)
	assert.Equal(t, 200, get.StatusCode)
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "public, max-age=90",
		"Access-Control-Allow-Origin": "*", "X-Content-Type-Options": "nosniff", "Last-Modified": ""} {
		assert.Equal(t, want, get.Header.Get(name))
	}
	assert.NotContains(t, string(text), `"d"`, "must not contain a private key")
	etag := get.Header.Get("ETag")
	assert.Regexp(t, `^"[0-9a-f]{32}"$`, etag)

	head := ask(h, "HEAD")
	assert.Equal(t, 200, head.StatusCode)
	assert.Empty(t, body(t, head))
	assert.Equal(t, fmt.Sprint(len(text)), head.Header.Get("Content-Length"))
	assert.Equal(t, etag, head.Header.Get("ETag"))

	for ifNoneMatch, want := range map[string]int{etag: 304, `"x", ` + etag: 304, "W/" + etag: 304, "*": 304, `"x"`: 200, strings.Trim(etag, `"`): 200} {
		again := ask(h, "GET", "If-None-Match", ifNoneMatch)
		assert.Equal(t, want, again.StatusCode, ifNoneMatch)
		if want == 304 {
			assert.Empty(t, body(t, again))
			assert.Equal(t, "public, max-age=90", again.Header.Get("Cache-Control"), "a 304 for %v extends the lifetime", ifNoneMatch)
		}
	}
	twoLines := ask(h, "GET", "If-None-Match", `"x"`, "If-None-Match", etag)
	assert.Equal(t, 304, twoLines.StatusCode, "several lines of a field are one list (RFC 9110 section 5.3)")
	refused := ask(h, "POST")
	assert.Equal(t, 405, refused.StatusCode)
	assert.Equal(t, "GET, HEAD", refused.Header.Get("Allow"))

	// T1: a Range header could request a small document thousands of times.
	ranged := ask(h, "GET", "Range", "bytes=0-0"+strings.Repeat(",0-0", 1000))
	assert.Equal(t, 200, ranged.StatusCode)
	assert.Equal(t, text, body(t, ranged))
	assert.Empty(t, ranged.Header.Get("Accept-Ranges"))

	// The tag depends on the content only: instances with equal sets have equal tags, and
	// different sets have different tags.
	other := openParty(t, p.store, testConfig())
	assert.Equal(t, etag, ask(other.JWKS(), "GET").Header.Get("ETag"))
	assert.NotEqual(t, etag, ask(newParty(t, "ES256").JWKS(), "GET").Header.Get("ETag"))
	assert.Equal(t, "public, max-age=900", ask(other.JWKS(), "GET").Header.Get("Cache-Control"))
}

func TestJWKSIsNeverEmpty(t *testing.T) {
	store := fleetkeytest.NewStore()
	store.Set(testkit.Bundle(newParty(t, "ES256").Private, noon.Add(-2*time.Hour), noon.Add(-time.Hour)))
	p := openParty(t, store, testConfig())
	_, err := p.Sign(t.Context(), "JWT", map[string]any{})
	assert.ErrorIs(t, err, fleetkey.ErrKeyExpired)
	assert.Zero(t, p.SigningKey())
	answer := ask(p.JWKS(), "GET")
	assert.Equal(t, 503, answer.StatusCode)
	assert.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
	assert.NotContains(t, string(body(t, answer)), "keys")
}

func TestDiscovery(t *testing.T) {
	const issuer = testkit.Issuer + "/tenant/"
	p := newParty(t, "ES256", func(c *fleetkey.Config) { c.Issuer = issuer })
	subjects := []any{"public"}
	for name, tc := range map[string]struct {
		given, want map[string]any // want: without the members that every document has
	}{
		"nothing given: no endpoint that does not exist": {nil, map[string]any{"subject_types_supported": subjects}},
		"with an authorization endpoint": {
			map[string]any{"authorization_endpoint": issuer + "authorize"},
			map[string]any{"authorization_endpoint": issuer + "authorize", "subject_types_supported": subjects, "response_types_supported": []any{"code"}},
		},
		"what is given wins": {
			map[string]any{"subject_types_supported": []string{"pairwise"}, "issuer": issuer, "jwks_uri": "https://cdn.example/keys",
				"id_token_signing_alg_values_supported": []string{"ES256"}},
			map[string]any{"subject_types_supported": []any{"pairwise"}, "jwks_uri": "https://cdn.example/keys",
				"id_token_signing_alg_values_supported": []any{"ES256"}},
		},
		"nil and empty ones are left out": {
			map[string]any{"authorization_endpoint": issuer + "authorize", "response_types_supported": []string{}, "subject_types_supported": nil, "scopes_supported": []any{}, "claims_supported": [0]string{}, "acr_values_supported": []string(nil)},
			map[string]any{"authorization_endpoint": issuer + "authorize"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := p.Discovery(tc.given)
			if tc.given != nil {
				tc.given["token_endpoint"] = "changed afterwards"
			}
			answer := ask(h, "GET")
			assert.Equal(t, 200, answer.StatusCode)
			assert.Equal(t, "application/json", answer.Header.Get("Content-Type"))
			var document map[string]any
			require.NoError(t, json.Unmarshal(body(t, answer), &document))
			want := map[string]any{"issuer": issuer, "jwks_uri": issuer + ".well-known/jwks.json",
				"id_token_signing_alg_values_supported": []any{"ES256", "RS256"}}
			maps.Copy(want, tc.want)
			assert.Equal(t, want, document)
			assert.Equal(t, 405, ask(h, "POST").StatusCode)
			assert.Empty(t, body(t, ask(h, "HEAD")))
		})
	}

	for _, bad := range []map[string]any{
		{"issuer": testkit.Issuer}, {"issuer": nil}, {"issuer": []string{testkit.Issuer + "/tenant/"}}, {"x": make(chan int)}, {"x": func() {}}, {"x": map[string]any{"y": make(chan int)}},
	} {
		assert.Panics(t, func() { p.Discovery(bad) }, "%v", bad)
	}
}

// TestRequire: the response gives only the class of the error. The log gives the cause, but
// not the token.
func TestRequire(t *testing.T) { // T10
	var log testkit.LogBuffer
	p := newParty(t, "ES256", func(c *fleetkey.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	h := p.Require("read", "write")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token, ok := fleetkey.FromContext(r.Context()); assert.True(t, ok) {
			_, _ = fmt.Fprint(w, token.Subject())
		}
	}))
	scoped := func(scope string) string { return p.Forge(p.Header(), payload("scope", `"`+scope+`"`)) }
	good := scoped("write x read")
	invalid := func(reason string) string {
		return `Bearer error="invalid_token", error_description="` + reason + `"`
	}
	const missing, request = `Bearer`, `Bearer error="invalid_request"`
	const scopes = `Bearer error="insufficient_scope", scope="read write"`
	for name, tc := range map[string]struct {
		authorization []string
		status        int
		challenge     string
		reason        string // in the log
	}{
		"good":                      {[]string{"Bearer " + good}, 200, "", ``},
		"scheme in lower case":      {[]string{"bearer " + good}, 200, "", ``},
		"nothing":                   {nil, 401, missing, `no bearer token`},
		"basic":                     {[]string{"Basic dXNlcjpwYXNz"}, 401, missing, `no bearer token`},
		"the token alone":           {[]string{good}, 401, missing, `no bearer token`},
		"no token":                  {[]string{"Bearer"}, 400, request, `no token after Bearer`},
		"twice":                     {[]string{"Bearer " + good, "Bearer " + good}, 400, request, `more than one Authorization header`},
		"basic and bearer":          {[]string{"Basic dXNlcjpwYXNz", "Bearer " + good}, 400, request, `more than one Authorization header`},
		"two in one header":         {[]string{"Bearer " + good + ", Bearer " + good}, 401, invalid("the token is invalid"), `token is malformed`},
		"expired":                   {[]string{"Bearer " + p.Forge(p.Header(), payload("exp", "1"))}, 401, invalid("the token is expired"), `token is expired`},
		"an unknown key":            {[]string{"Bearer " + newParty(t, "ES256").good()}, 401, invalid("the token is invalid"), `unknown`},
		"a kid that breaks headers": {[]string{"Bearer " + p.Forge(p.Header("kid", `"\r\nSet-Cookie: x=\"y\""`), payload())}, 401, invalid("the token is invalid"), `unknown`},
		"an ID token":               {[]string{"Bearer " + p.Forge(p.Header("typ", `"JWT"`), payload())}, 401, invalid("the token is invalid"), `typ is not at+jwt`},
		"sender-constrained":        {[]string{"Bearer " + p.Forge(p.Header(), payload("cnf", `{"jkt":"x"}`))}, 401, invalid("the token is invalid"), `sender-constrained`},
		"no scope":                  {[]string{"Bearer " + p.good()}, 403, scopes, `lacks scope \"read\"`},
		"one scope of two":          {[]string{"Bearer " + scoped("read")}, 403, scopes, `lacks scope \"write\"`},
	} {
		t.Run(name, func(t *testing.T) {
			var header []string
			for _, value := range tc.authorization {
				header = append(header, "Authorization", value)
			}
			before := len(log.String())
			answer := ask(h, "GET", header...)
			logged := log.String()[before:]
			text := string(body(t, answer))
			assert.Equal(t, tc.status, answer.StatusCode)
			assert.Equal(t, tc.challenge, answer.Header.Get("WWW-Authenticate"))
			assert.Len(t, answer.Header.Values("WWW-Authenticate"), min(1, len(tc.challenge)))
			if tc.status == 200 {
				assert.Equal(t, "alice", text)
				return
			}
			assert.Contains(t, logged, `level=DEBUG msg="rejected a request"`)
			assert.Contains(t, logged, tc.reason)
			for _, value := range tc.authorization {
				if i := strings.LastIndex(value, "."); i > 0 {
					assert.NotContains(t, logged, value[i:], "the log must not contain the signature")
				}
			}
			assert.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
			assert.Equal(t, http.StatusText(tc.status)+"\n", text, "the response must give only the class of the error")
			assert.Empty(t, answer.Header.Get("Set-Cookie"))
		})
	}
	before := len(log.String())
	long := httptest.NewRequest("GET", "/"+strings.Repeat("x", 100_000), nil)
	h.ServeHTTP(httptest.NewRecorder(), long)
	require.Less(t, len(log.String())-before, 500, "the size of a log record must be limited (P8)")
}

// TestRequireTakesNoOtherPlace: a token in a form, a query (RFC 6750 sections 2.2 and 2.3) or
// a cookie is ignored, as RFC 9700 section 4.3.2 advises.
func TestRequireTakesNoOtherPlace(t *testing.T) {
	p := newParty(t, "ES256")
	r, w := httptest.NewRequest("POST", "/?access_token="+p.good(), strings.NewReader("access_token="+p.good())), httptest.NewRecorder()
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Cookie", "access_token="+p.good())
	p.Require()(http.NotFoundHandler()).ServeHTTP(w, r)
	assert.Equal(t, 401, w.Code)
	assert.Equal(t, "Bearer", w.Header().Get("WWW-Authenticate"), "without a token there is no error code")
}

// FuzzAuthorization: a request is admitted only with a single Authorization header of the
// scheme Bearer and a token that Verify accepts (RFC 6750 section 2.1). Otherwise, the
// response has a challenge that contains nothing from the request.
func FuzzAuthorization(f *testing.F) {
	p := fixedParty(f)
	token := p.Forge(p.Header(), payload("scope", `"read"`))
	for _, seed := range []string{"", "Bearer", "Bearer ", "Bearer " + token, "bearer  " + token + " ", "Basic " + token, "Bearer\t" + token, "Bearer " + token + "," + token, " Bearer " + token, "DPoP " + token, "Bearer \x00"} {
		f.Add(seed, "", false)
		f.Add(seed, "Bearer "+token, true)
	}
	door := p.Require("read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, ok := fleetkey.FromContext(r.Context())
		if !ok {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	f.Fuzz(func(t *testing.T, first, second string, both bool) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{first}
		if both {
			r.Header["Authorization"] = []string{first, second}
		}
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		scheme, raw, _ := strings.Cut(first, " ")
		_, err := p.Verify(t.Context(), strings.Trim(raw, " "))
		if w.Code == http.StatusOK {
			require.False(t, both)
			require.Equal(t, "bearer", strings.ToLower(scheme))
			require.NoError(t, err)
			return
		}
		require.True(t, both || err != nil || !strings.EqualFold(scheme, "bearer"), "a valid token was rejected: %q", first)
		require.Contains(t, []int{400, 401}, w.Code)
		require.Regexp(t, `^Bearer( error="[a-z_]+"(, error_description="the token is [a-z]+")?)?$`, w.Header().Get("WWW-Authenticate"))
		require.Equal(t, http.StatusText(w.Code)+"\n", w.Body.String())
	})
}

// TestRequireWhileTheStoreIsDown: an unknown key may then be a new one of the fleet, and a 401
// would make the client discard a valid token. Other responses are unaffected.
func TestRequireWhileTheStoreIsDown(t *testing.T) {
	store := fleetkeytest.NewStore()
	s, other := testkit.Start(t, store, testkit.Config()), testkit.Start(t, fleetkeytest.NewStore(), testkit.Config())
	store.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpLoad))
	h := s.Require()(http.NotFoundHandler())
	for range 2 { // the second one causes no load
		answer := ask(h, "GET", "Authorization", "Bearer "+testkit.Issue(t, other))
		require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
		require.Equal(t, []string{"10", "", "no-store"}, []string{answer.Header.Get("Retry-After"), answer.Header.Get("WWW-Authenticate"), answer.Header.Get("Cache-Control")})
	}
	require.Equal(t, http.StatusNotFound, ask(h, "GET", "Authorization", "Bearer "+testkit.Issue(t, s)).StatusCode)
	require.Equal(t, http.StatusUnauthorized, ask(h, "GET", "Authorization", "Bearer junk").StatusCode)
	require.EqualValues(t, 2, s.Status().Counters.Verified["unavailable"])
	require.EqualValues(t, 1, s.Status().Counters.SuppressedLoads)
}
