package jwks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// waits returns the times between the requests for the JWKS.
func waits(p *testkit.Provider) (waits []time.Duration) {
	requests := p.Requests(testkit.JWKSURL)
	for i := 1; i < len(requests); i++ {
		waits = append(waits, requests[i].At.Sub(requests[i-1].At))
	}
	return waits
}

// TestErrorsAreShortAndKeepSecrets: an address may contain a secret, and a response any text.
func TestErrorsAreShortAndKeepSecrets(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, _ string) {
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.JWKSURL = "https://keys.example/jwks?key=hunter2" })
		err := v.Refresh(t.Context())
		require.ErrorContains(t, err, "https://keys.example/jwks?...: HTTP status 404")
		require.NotContains(t, err.Error(), "hunter2")
		p.Serve("https://keys.example/jwks?key=hunter2", testkit.Answer(302, "https://"+strings.Repeat("x", 50_000)))
		err = v.Refresh(t.Context())
		require.ErrorContains(t, err, "another origin")
		require.Less(t, len(err.Error()), 500)
	})
}

// TestETagsThatAreNotLiked: a short ETag is sent back, but not again after an error.
func TestETagsThatAreNotLiked(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, jwks string) {
		v := p.Verifier(t)
		for _, etag := range []string{`"x"`, `"` + strings.Repeat("x", 40_000) + `"`} {
			p.Serve(testkit.JWKSURL, testkit.Page(jwks, "ETag", etag))
			require.NoError(t, v.Refresh(t.Context()))
			p.Serve(testkit.JWKSURL, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("If-None-Match") != "" {
					w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
					return
				}
				testkit.Page(jwks)(w, r)
			})
			require.Equal(t, len(etag) < 256, v.Refresh(t.Context()) != nil)
			require.NoError(t, v.Refresh(t.Context()))
		}
	})
}

// TestRefreshFollowsCacheControl: Cache-Control can make fetches more frequent, not less.
func TestRefreshFollowsCacheControl(t *testing.T) {
	for headers, want := range map[[2]string]time.Duration{ // Cache-Control and Age
		{}:                               5 * time.Minute,
		{"public, max-age=86400"}:        5 * time.Minute,
		{"public, max-age=120"}:          2 * time.Minute,
		{"max-age=15"}:                   time.Minute, // Auth0
		{"max-age=300", "120"}:           3 * time.Minute,
		{"max-age=300", "400"}:           time.Minute,
		{`Max-Age="120"`}:                2 * time.Minute,
		{"no-cache"}:                     5 * time.Minute, // Keycloak
		{"max-age=99999999999999999999"}: 5 * time.Minute,
		{"s-maxage=60"}:                  5 * time.Minute, // only for shared caches
	} {
		t.Run(headers[0]+" "+headers[1], func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, jwks string) {
				p.Serve(testkit.JWKSURL, testkit.Page(jwks, "Cache-Control", headers[0], "Age", headers[1]))
				v := p.Verifier(t)
				time.Sleep(20 * want)
				require.NoError(t, v.Status().LoadErr)
				require.GreaterOrEqual(t, len(waits(p)), 19)
				for _, wait := range waits(p) {
					require.LessOrEqual(t, wait, want)
					require.GreaterOrEqual(t, wait, want*9/10)
				}
			})
		})
	}
	t.Run("of a failure", func(t *testing.T) {
		testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, _ string) {
			v := p.Verifier(t)
			p.Serve(testkit.JWKSURL, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "max-age=86400")
				w.Header().Set("Retry-After", "86400")
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			time.Sleep(time.Hour)
			require.Error(t, v.Status().LoadErr)
			require.GreaterOrEqual(t, len(waits(p)), 58, "at least once a minute")
		})
	})
}

// TestRefreshByETag: an unchanged key set is not sent again.
func TestRefreshByETag(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
		bodies := 0
		p.Serve(testkit.JWKSURL, func(w http.ResponseWriter, r *http.Request) {
			assert.Contains(t, r.UserAgent(), "fleetkey")
			assert.Contains(t, r.Header.Get("Accept"), "application/json")
			w.Header().Set("ETag", `W/"1"`)
			w.Header().Set("Cache-Control", "max-age=120")
			if r.Header.Get("If-None-Match") == `W/"1"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			bodies++
			testkit.Page(jwks)(w, r)
		})
		v := p.Verifier(t)
		token := testkit.AccessToken(key)
		_, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		require.Equal(t, 1, bodies)
		require.GreaterOrEqual(t, len(waits(p)), 5, "the Cache-Control of a 304 applies")
		status := v.Status()
		require.NoError(t, status.LoadErr)
		require.Less(t, time.Since(status.LastLoad), 2*time.Minute, "304 counts as a success")
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.EqualValues(t, 1, v.Status().Counters.CacheHits, "the token cache must be kept")
	})
}

// TestFetchRefuses: each of these responses is a failure. The error gives the reason and the
// address, but nothing that the server has sent.
func TestFetchRefuses(t *testing.T) {
	const elsewhere = "https://evil.example/keys"
	type serve = func(p *testkit.Provider, jwks string)
	is := func(h http.HandlerFunc) serve {
		return func(p *testkit.Provider, _ string) { p.Serve(testkit.JWKSURL, h) }
	}
	has := func(h func(jwks string) http.HandlerFunc) serve {
		return func(p *testkit.Provider, jwks string) { p.Serve(testkit.JWKSURL, h(jwks)) }
	}
	to := func(status int, location string) serve {
		return func(p *testkit.Provider, jwks string) {
			p.Serve(location, testkit.Page(jwks))
			p.Serve(testkit.JWKSURL, testkit.Answer(status, location))
		}
	}
	ring := func(n int) serve {
		return func(p *testkit.Provider, jwks string) {
			to(http.StatusFound, testkit.JWKSURL+"1")(p, jwks)
			for i := 1; i < n; i++ {
				p.Serve(testkit.JWKSURL+fmt.Sprint(i), testkit.Answer(http.StatusFound, testkit.JWKSURL+fmt.Sprint(i+1)))
			}
			p.Serve(testkit.JWKSURL+fmt.Sprint(n), testkit.Page(jwks))
		}
	}
	padded := func(size int) serve {
		return has(func(s string) http.HandlerFunc { return testkit.Page(s + strings.Repeat(" ", size-len(s))) })
	}
	slow := func(d time.Duration) serve {
		return has(func(s string) http.HandlerFunc { return testkit.Slowly(d, testkit.Page(s)) })
	}
	for name, test := range map[string]struct {
		serve serve
		want  string // "": Load succeeds
	}{
		"3 redirects":              {ring(3), ""},
		"4 redirects":              {ring(4), "more than 3 redirects"},
		"a redirect with its port": {to(307, "https://issuer.example:443/other"), ""},
		"a redirect in capitals":   {to(308, "https://ISSUER.example/other"), ""},
		"to another host":          {to(302, elsewhere), `it redirects to another origin, "https://evil.example:443"`},
		"to another port":          {to(302, "https://issuer.example:8443/keys"), "another origin"},
		"to http":                  {to(302, "http://issuer.example/keys"), "another origin"},
		"a redirect to nowhere":    {to(302, ""), "302"},
		"500":                      {is(testkit.Answer(500, "")), "HTTP status 500"},
		"204":                      {is(testkit.Answer(204, "")), "HTTP status 204"},
		"304, unasked for":         {is(testkit.Answer(304, "")), "HTTP status 304"},
		"HTML":                     {is(testkit.Page("<html>secret of the server</html>")), "not a JSON Web Key Set"},
		"truncated":                {has(testkit.Truncated), "unexpected EOF"},
		"1 MiB":                    {padded(1 << 20), ""},
		"over 1 MiB":               {padded(1<<20 + 1), "more than 1048576 bytes"},
		"another media type":       {has(func(s string) http.HandlerFunc { return testkit.Page(s, "Content-Type", "text/html") }), ""},
		"9 seconds":                {slow(9 * time.Second), ""},
		"11 seconds":               {slow(11 * time.Second), "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
				test.serve(p, jwks)
				begin := time.Now()
				v := p.Verifier(t, func(c *fleetkey.VerifierConfig) {
					c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return nil } // must have no effect
				})
				require.LessOrEqual(t, time.Since(begin), 10*time.Second)
				_, err := v.Verify(t.Context(), testkit.AccessToken(key))
				if test.want == "" {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, fleetkey.ErrUnavailable)
				err = v.Status().LoadErr
				require.ErrorContains(t, err, test.want)
				require.ErrorContains(t, err, testkit.JWKSURL)
				require.ErrorIs(t, err, fleetkey.ErrUnavailable)
				require.NotContains(t, err.Error(), "secret of the server")
				require.Empty(t, p.Requests(elsewhere))
			})
		})
	}
}

// The timeout of the program's client applies if it is shorter than fetchTimeout.
func TestFetchKeepsTheClientsTimeout(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, jwks string) {
		p.Serve(testkit.JWKSURL, testkit.Slowly(2*time.Second, testkit.Page(jwks)))
		begin := time.Now()
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.HTTPClient.Timeout = time.Second })
		require.Equal(t, time.Second, time.Since(begin))
		require.ErrorContains(t, v.Status().LoadErr, "deadline exceeded")
	})
}
