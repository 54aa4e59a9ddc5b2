package testkit

import (
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
)

// Addresses of a Provider.
const (
	DiscoveryURL = jwstest.Issuer + fleetkey.DiscoveryPath
	JWKSURL      = jwstest.Issuer + "/keys"
)

// A Provider is an issuer on a separate network, without sockets, so that it works in
// testing/synctest. It misbehaves as a test requires. It is safe for concurrent use.
type Provider struct {
	mu       sync.Mutex
	pages    map[string]http.HandlerFunc // by URL
	requests []Request
}

// A Request is a request to a Provider, with its time.
type Request struct {
	*http.Request
	At time.Time
}

// NewProvider returns an issuer with the address jwstest.Issuer that publishes keys.
func NewProvider(keys ...string) *Provider {
	p := &Provider{pages: map[string]http.HandlerFunc{}}
	p.Serve(DiscoveryURL, Page(`{"issuer":"`+jwstest.Issuer+`","jwks_uri":"`+JWKSURL+`"}`))
	p.Publish(keys...)
	return p
}

// Publishing runs a test in a bubble with a Provider that publishes a fresh key.
func Publishing(t *testing.T, test func(t *testing.T, p *Provider, key *jwstest.Forger, jwks string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		key := NewForger("ES256")
		test(t, NewProvider(key.JWK()), key, JWKS(key.JWK()))
	})
}

// JWKS returns a JSON Web Key Set.
func JWKS(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// Publish replaces the JWKS.
func (p *Provider) Publish(keys ...string) {
	p.Serve(JWKSURL, Page(JWKS(keys...)))
}

// Serve sets the handler of a URL. Without a handler, the answer is 404.
func (p *Provider) Serve(url string, h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pages[url] = h
}

// Requests returns the requests for an address so far.
func (p *Provider) Requests(url string) (found []Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if r.URL.String() == url {
			found = append(found, r)
		}
	}
	return found
}

// Forget drops the requests so far, for tests that count memory.
func (p *Provider) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
}

// RoundTrip answers a request. A body that is shorter than its Content-Length ends with an
// error, as on a connection that breaks.
func (p *Provider) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.requests = append(p.requests, Request{r, time.Now()})
	h := p.pages[r.URL.String()]
	p.mu.Unlock()
	if h == nil {
		h = http.NotFound
	}
	w := httptest.NewRecorder()
	h(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	answer := w.Result()
	answer.Request = r
	if answer.ContentLength > int64(w.Body.Len()) {
		answer.Body = io.NopCloser(io.MultiReader(answer.Body, broken{}))
	}
	return answer, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Page returns a handler that answers 200 with headers, given as names and values.
func Page(body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		_, _ = io.WriteString(w, body)
	}
}

// Truncated returns a handler whose connection breaks within the body.
func Truncated(body string) http.HandlerFunc {
	return Page(body[:len(body)-1], "Content-Length", strconv.Itoa(len(body)))
}

// Answer returns a handler that answers with a status and, if it is a redirect, a target.
func Answer(status int, location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if location != "" {
			w.Header().Set("Location", location)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<html>secret of the server</html>")
	}
}

// Slowly returns a handler that answers after d, or never if the client gives up first.
func Slowly(d time.Duration, then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-r.Context().Done():
		case <-timer.C:
			then(w, r)
		}
	}
}

// Config returns the configuration of a Verifier that reaches only the Provider.
func (p *Provider) Config(change ...func(*fleetkey.VerifierConfig)) fleetkey.VerifierConfig {
	cfg := fleetkey.VerifierConfig{Issuer: jwstest.Issuer, Audience: []string{jwstest.API},
		HTTPClient: &http.Client{Transport: p}, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// Verifier returns a Verifier that is closed when the test ends.
func (p *Provider) Verifier(t testing.TB, change ...func(*fleetkey.VerifierConfig)) *fleetkey.Verifier {
	t.Helper()
	v, err := fleetkey.NewVerifier(t.Context(), p.Config(change...))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

// NewForger returns a key of another issuer.
func NewForger(alg string) *jwstest.Forger { return jwstest.NewForger(alg, rand.Text()) }

// AccessToken returns a good token of a Provider that is issued now and lives for an hour.
func AccessToken(f *jwstest.Forger, changes ...string) string {
	now := time.Now()
	times := []string{"iat", jwstest.Unix(now.Sub(jwstest.Noon)), "exp", jwstest.Unix(now.Add(time.Hour).Sub(jwstest.Noon))}
	return f.Forge(f.Header(), jwstest.Payload(append(times, changes...)...))
}
