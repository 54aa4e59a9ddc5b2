package jwks_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

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

// TestErrorsAreShortAndKeepSecrets: an address may hold a key, and a server may say anything.
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
		_, err = fleetkey.NewVerifier(t.Context(), p.Config(func(c *fleetkey.VerifierConfig) { c.Issuer = "https://alice:hunter2@id.example" }))
		require.ErrorContains(t, err, "user name")
		require.NotContains(t, err.Error(), "hunter2")
	})
}

// TestETagsThatAreNotLiked: an ETag is sent back once, if it is short.
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

// TestRefreshFollowsCacheControl: it can make the fetches more frequent, but not rare.
func TestRefreshFollowsCacheControl(t *testing.T) {
	for name, test := range map[string]struct {
		headers []string
		want    time.Duration
	}{
		"nothing":                       {nil, 5 * time.Minute},
		"longer":                        {[]string{"Cache-Control", "public, max-age=86400"}, 5 * time.Minute},
		"shorter":                       {[]string{"Cache-Control", "public, max-age=120"}, 2 * time.Minute},
		"much shorter, as of Auth0":     {[]string{"Cache-Control", "max-age=15"}, time.Minute},
		"less its Age":                  {[]string{"Cache-Control", "max-age=300", "Age", "120"}, 3 * time.Minute},
		"older than that":               {[]string{"Cache-Control", "max-age=300", "Age", "400"}, time.Minute},
		"in capitals and quotes":        {[]string{"Cache-Control", `Max-Age="120"`}, 2 * time.Minute},
		"no-cache alone, as Keycloak":   {[]string{"Cache-Control", "no-cache"}, 5 * time.Minute},
		"not a number":                  {[]string{"Cache-Control", "max-age=soon"}, 5 * time.Minute},
		"negative":                      {[]string{"Cache-Control", "max-age=-1"}, 5 * time.Minute},
		"beyond all numbers":            {[]string{"Cache-Control", "max-age=99999999999999999999"}, 5 * time.Minute},
		"the directive of other caches": {[]string{"Cache-Control", "s-maxage=60"}, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, jwks string) {
				p.Serve(testkit.JWKSURL, testkit.Page(jwks, test.headers...))
				v := p.Verifier(t)
				time.Sleep(20 * test.want)
				require.NoError(t, v.Status().LoadErr)
				require.GreaterOrEqual(t, len(waits(p)), 19)
				for _, wait := range waits(p) {
					require.LessOrEqual(t, wait, test.want)
					require.GreaterOrEqual(t, wait, test.want*9/10)
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

// TestRefreshByETag: a set that has not changed costs no body.
func TestRefreshByETag(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
		bodies := 0
		p.Serve(testkit.JWKSURL, func(w http.ResponseWriter, r *http.Request) {
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
		require.GreaterOrEqual(t, len(waits(p)), 5, "by the Cache-Control of 304")
		status := v.Status()
		require.NoError(t, status.LoadErr)
		require.Less(t, time.Since(status.LastLoad), 2*time.Minute, "304 counts as a success")
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.EqualValues(t, 1, v.Status().Counters.CacheHits, "the cache of tokens lives on")
	})
}

// TestFetchRefuses: each of these is a failure, of which the error says what and where, and
// nothing of what the server has sent.
func TestFetchRefuses(t *testing.T) {
	elsewhere := "https://evil.example/keys"
	ring := func(n int) func(p *testkit.Provider, then http.HandlerFunc) {
		return func(p *testkit.Provider, then http.HandlerFunc) {
			for i := range n {
				from, to := testkit.JWKSURL+fmt.Sprint(i), testkit.JWKSURL+fmt.Sprint(i+1)
				if i == 0 {
					from = testkit.JWKSURL
				}
				p.Serve(from, testkit.Answer(http.StatusFound, to))
			}
			p.Serve(testkit.JWKSURL+fmt.Sprint(n), then)
		}
	}
	to := func(status int, location string) func(*testkit.Provider, http.HandlerFunc) {
		return func(p *testkit.Provider, then http.HandlerFunc) {
			p.Serve(location, then)
			p.Serve(testkit.JWKSURL, testkit.Answer(status, location))
		}
	}
	is := func(h func(jwks string) http.HandlerFunc) func(*testkit.Provider, http.HandlerFunc) {
		return func(p *testkit.Provider, then http.HandlerFunc) {
			p.Serve(testkit.JWKSURL, func(w http.ResponseWriter, r *http.Request) {
				var body strings.Builder
				then(recording{w, &body}, r)
				h(body.String())(w, r)
			})
		}
	}
	for name, test := range map[string]struct {
		serve func(p *testkit.Provider, then http.HandlerFunc)
		want  string // "": it succeeds
	}{
		"3 redirects":                    {ring(3), ""},
		"4 redirects":                    {ring(4), "more than 3 redirects"},
		"a redirect with its port":       {to(307, "https://issuer.example:443/other"), ""},
		"a redirect in capitals":         {to(308, "https://ISSUER.example/other"), ""},
		"to another host":                {to(302, elsewhere), `it redirects to another origin, "https://evil.example:443"`},
		"to another port":                {to(302, "https://issuer.example:8443/keys"), "another origin"},
		"to http":                        {to(302, "http://issuer.example/keys"), "another origin"},
		"to itself":                      {to(302, testkit.JWKSURL), "more than 3 redirects"},
		"a redirect to nowhere":          {to(302, ""), "302"},
		"500":                            {is(func(string) http.HandlerFunc { return testkit.Answer(500, "") }), "HTTP status 500"},
		"404":                            {is(func(string) http.HandlerFunc { return testkit.Answer(404, "") }), "HTTP status 404"},
		"403":                            {is(func(string) http.HandlerFunc { return testkit.Answer(403, "") }), "HTTP status 403"},
		"204":                            {is(func(string) http.HandlerFunc { return testkit.Answer(204, "") }), "HTTP status 204"},
		"304 that nobody has asked for":  {is(func(string) http.HandlerFunc { return testkit.Answer(304, "") }), "HTTP status 304"},
		"HTML":                           {is(func(string) http.HandlerFunc { return testkit.Page("<html>secret of the server</html>") }), "not a JSON Web Key Set"},
		"nothing":                        {is(func(string) http.HandlerFunc { return testkit.Page("") }), "not a JSON Web Key Set"},
		"an empty set":                   {is(func(string) http.HandlerFunc { return testkit.Page(`{"keys":[]}`) }), "none of the 0 keys"},
		"truncated":                      {is(testkit.Truncated), "unexpected EOF"},
		"1 MiB":                          {is(func(s string) http.HandlerFunc { return testkit.Page(s + strings.Repeat(" ", 1<<20-len(s))) }), ""},
		"over 1 MiB":                     {is(func(s string) http.HandlerFunc { return testkit.Page(s + strings.Repeat(" ", 1<<20-len(s)+1)) }), "over 1048576 bytes"},
		"another media type":             {is(func(s string) http.HandlerFunc { return testkit.Page(s, "Content-Type", "text/html") }), ""},
		"9 seconds":                      {is(func(s string) http.HandlerFunc { return testkit.Slowly(9*time.Second, testkit.Page(s)) }), ""},
		"11 seconds":                     {is(func(s string) http.HandlerFunc { return testkit.Slowly(11*time.Second, testkit.Page(s)) }), "deadline exceeded"},
		"a connection that is not there": {is(func(string) http.HandlerFunc { return testkit.Slowly(time.Hour, nil) }), "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
				test.serve(p, testkit.Page(jwks))
				begin := time.Now()
				v := p.Verifier(t, func(c *fleetkey.VerifierConfig) {
					c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return nil } // ours wins
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

// recording keeps what a handler writes.
type recording struct {
	http.ResponseWriter
	body *strings.Builder
}

func (r recording) Write(b []byte) (int, error) { return r.body.Write(b) }

// TestFetchRequest: what the issuer is asked.
func TestFetchRequest(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, jwks string) {
		p.Serve(testkit.JWKSURL, testkit.Page(jwks, "ETag", `"a"`))
		v := p.Verifier(t)
		require.NoError(t, v.Refresh(t.Context()))
		requests := p.Requests(testkit.JWKSURL)
		require.Equal(t, []string{"", `"a"`}, []string{requests[0].Header.Get("If-None-Match"), requests[1].Header.Get("If-None-Match")})
		for _, r := range append(requests, p.Requests(testkit.DiscoveryURL)...) {
			require.Equal(t, http.MethodGet, r.Method)
			require.Contains(t, r.UserAgent(), "fleetkey")
			require.Contains(t, r.Header.Get("Accept"), "application/json")
			_, bounded := r.Context().Deadline()
			require.True(t, bounded)
		}
	})
}

// TestFetchKeepsTheClientsTimeout, if that is shorter than ours.
func TestFetchKeepsTheClientsTimeout(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, jwks string) {
		p.Serve(testkit.JWKSURL, testkit.Slowly(2*time.Second, testkit.Page(jwks)))
		begin := time.Now()
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.HTTPClient.Timeout = time.Second })
		require.Equal(t, time.Second, time.Since(begin))
		require.ErrorContains(t, v.Status().LoadErr, "deadline exceeded")
	})
}

// TestFetchIsNotTheRequests: a request that ends does not end the fetch that it has begun.
func TestFetchIsNotTheRequests(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, _ string) {
		v := p.Verifier(t)
		time.Sleep(10 * time.Second)
		added := testkit.NewForger("ES256")
		p.Serve(testkit.JWKSURL, testkit.Slowly(2*time.Second, testkit.Page(testkit.JWKS(added.JWK()))))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := v.Verify(ctx, testkit.AccessToken(added))
		require.ErrorIs(t, err, fleetkey.ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(2 * time.Second)
		_, err = v.Verify(t.Context(), testkit.AccessToken(added))
		require.NoError(t, err)
		require.Len(t, p.Requests(testkit.JWKSURL), 2)
	})
}
