// Package jwks fetches the public keys that an issuer publishes, from its discovery
// document or a known address. Sizes and times are limited, and unchanged keys are not
// fetched again.
package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/trust"
)

const (
	fetchTimeout    = 10 * time.Second // for discovery and key set together
	pingTimeout     = 3 * time.Second  // of an idle connection
	maxDocument     = 1 << 20          // bytes
	maxETag         = 256              // bytes; a longer one is not sent back
	maxErrorText    = 200              // bytes of a text that may quote the server
	maxRedirects    = 3
	discoverEvery   = 24 * time.Hour
	discoverAfter   = 3           // this many failures, in case the key set has moved
	shortestFreshly = time.Minute // that Cache-Control can require

	// DiscoveryPath is the path defined by OpenID Connect Discovery 1.0 section 4.
	DiscoveryPath = "/.well-known/openid-configuration"

	// OAuthDiscoveryPath is the path defined by RFC 8414 section 3. The issuer's path follows it.
	OAuthDiscoveryPath = "/.well-known/oauth-authorization-server"

	userAgent = "fleetkey (https://github.com/fleetkey/fleetkey)"
)

// ErrOtherIssuer means that a discovery document belongs to another issuer. Retrying cannot
// help.
var ErrOtherIssuer = errors.New("the discovery document is another issuer's")

// Options configure a Source.
type Options struct {
	Issuer       string
	URL          string // of the key set; "": taken from the discovery document
	Former       bool   // see trust.ParseJWKS
	InsecureHTTP bool
	Client       *http.Client // copied; nil: New creates one
	Clock        clock.Clock
}

// A Source fetches the keys of an issuer. Load must not be called concurrently.
type Source struct {
	Options
	client *http.Client
	close  func() // idle connections, unless the caller's

	url        string        // of the key set; "": not discovered yet
	discovered time.Duration // when, by the monotonic clock
	failures   int           // since the last success
	etag       string        // of the keys in use; "": unknown

	whole atomic.Bool
}

// An Answer is the result of a successful load.
type Answer struct {
	Keys    []*trust.Key // nil: unchanged
	Skipped map[string]int
	Fresh   time.Duration // how long the keys stay fresh; 0: unknown
}

// New returns a Source, which must be closed.
func New(o Options) *Source {
	s := &Source{Options: o, client: &http.Client{}, close: func() {}, url: o.URL}
	if o.Client != nil {
		*s.client = *o.Client
	}
	if s.client.Transport == nil {
		// A dial and a handshake outlive the request that caused them, and a dead HTTP/2
		// connection would be reused.
		own := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
			MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: time.Minute, MaxIdleConns: 2,
			DialContext: (&net.Dialer{Timeout: fetchTimeout}).DialContext, TLSHandshakeTimeout: fetchTimeout,
			HTTP2: &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout}}
		s.client.Transport, s.close = own, own.CloseIdleConnections
	}
	s.client.CheckRedirect = checkRedirect
	return s
}

// Close closes the connections, unless they are the caller's.
func (s *Source) Close() { s.close() }

// AskForAll makes the next Load fetch the keys without an ETag, since a token with a new kid
// shows that the ETag may be wrong.
func (s *Source) AskForAll() { s.whole.Store(true) }

// checkRedirect allows few redirects, and none to another origin, which could replace the
// keys.
func checkRedirect(next *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if to := origin(next.URL); to != origin(via[0].URL) {
		return fmt.Errorf("it redirects to another origin, %.200q", to)
	}
	return nil
}

// origin returns the origin of a URL (RFC 6454 section 4).
func origin(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if u.Port() == "" {
		host += map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	}
	return u.Scheme + "://" + host
}

// Load fetches the keys. The error never quotes the document that the server has sent.
func (s *Source) Load(ctx context.Context) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	got, err := s.fetch(ctx)
	if err != nil {
		s.failures++
		s.etag = "" // the server may reject it
		return Answer{}, err
	}
	s.failures = 0
	return got, nil
}

func (s *Source) fetch(ctx context.Context) (Answer, error) {
	if err := s.discover(ctx); err != nil {
		return Answer{}, err
	}
	etag := s.etag
	if s.whole.Swap(false) {
		etag = ""
	}
	header, body, err := s.get(ctx, s.url, etag)
	if err != nil {
		return Answer{}, fmt.Errorf("fetch the keys: %w", err)
	}
	if body == nil {
		return Answer{Fresh: freshness(header)}, nil
	}
	keys, skipped, err := trust.ParseJWKS(body, s.Issuer, s.Former)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", Show(s.url), err)
	}
	if s.etag = header.Get("ETag"); len(s.etag) > maxETag {
		s.etag = ""
	}
	return Answer{keys, skipped, freshness(header)}, nil
}

// discover finds the address of the keys (OpenID Connect Discovery 1.0 section 4). Once it
// is known, only a document of another issuer is an error.
func (s *Source) discover(ctx context.Context) error {
	now := s.Clock.Monotonic()
	due := s.url == "" || now-s.discovered >= discoverEvery || s.failures > 0 && s.failures%discoverAfter == 0
	if s.URL != "" || !due {
		return nil
	}
	if s.url != "" { // leave time to fetch the keys
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, fetchTimeout/2)
		defer cancel()
	}
	found, err := s.discovery(ctx)
	if err == nil && found != s.url {
		s.url, s.etag = found, ""
	}
	if s.url == "" || errors.Is(err, ErrOtherIssuer) {
		return fmt.Errorf("discover the keys: %w", err)
	}
	s.discovered = now // even after a failure, so that a known address is not looked up each time
	return nil
}

// discovery returns the address of the key set.
func (s *Source) discovery(ctx context.Context) (string, error) {
	issuer, err := url.Parse(s.Issuer)
	if err != nil {
		return "", err
	}
	base := strings.TrimSuffix(s.Issuer, "/")
	_, body, err := s.get(ctx, base+DiscoveryPath, "")
	if status, ok := errors.AsType[statusError](err); ok && status == http.StatusNotFound {
		path := strings.TrimSuffix(issuer.EscapedPath(), "/")
		_, body, err = s.get(ctx, issuer.Scheme+"://"+issuer.Host+OAuthDiscoveryPath+path, "")
	}
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &document); err != nil || document.Issuer == "" {
		return "", fmt.Errorf("the response of %q is not a discovery document", s.Issuer)
	}
	if document.Issuer != s.Issuer {
		advice := "set VerifierConfig.Issuer to the iss of the tokens, and set JWKSURL if discovery names another issuer"
		switch {
		case strings.TrimSuffix(document.Issuer, "/") == base:
			advice = "they differ in the trailing slash"
		case strings.Contains(document.Issuer, TenantTemplate):
			advice = "use the issuer of one tenant"
		}
		return "", fmt.Errorf("%w: it names %.200q, and VerifierConfig.Issuer is %q: %s", ErrOtherIssuer, document.Issuer, s.Issuer, advice)
	}
	keys, err := CheckURL(document.JWKSURI, s.InsecureHTTP)
	if err == nil && isLoopback(keys) && !isLoopback(issuer) {
		err = errors.New("it is a loopback address, but the issuer's is not")
	}
	if err != nil {
		return "", fmt.Errorf("jwks_uri %.200q of %q: %w", Show(document.JWKSURI), s.Issuer, err)
	}
	return document.JWKSURI, nil
}

// A statusError is an HTTP status other than 200.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("HTTP status %d", int(e)) }

// get fetches a document. The body is nil if the document still has the given ETag.
func (s *Source) get(ctx context.Context, address, etag string) (http.Header, []byte, error) {
	fail := func(err error) (http.Header, []byte, error) {
		return nil, nil, fmt.Errorf("%s: %w", Show(address), short{err})
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fail(err)
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the caller adds the address
		}
		return fail(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusNotModified && etag != "" {
		return resp.Header, nil, nil
	}
	if resp.StatusCode != http.StatusOK {
		return fail(statusError(resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil && len(body) > maxDocument {
		err = fmt.Errorf("it has more than %d bytes", maxDocument)
	}
	if err != nil {
		return fail(err)
	}
	return resp.Header, body, nil
}

// A short error limits the length of a text, since errors of net/http can quote a header.
type short struct{ error }

func (e short) Error() string { return fmt.Sprintf("%.*s", maxErrorText, e.error.Error()) }
func (e short) Unwrap() error { return e.error }

// Show returns an address without parts that may be secret.
func Show(address string) string {
	u, err := url.Parse(address)
	if err != nil && strings.ContainsAny(address, "@?") {
		return "..."
	}
	if err != nil {
		return address
	}
	if u.User = nil; u.RawQuery != "" {
		u.RawQuery = "..."
	}
	return u.String()
}

// freshness returns how long a response stays fresh (max-age, RFC 9111 section 5.2.2.1), or
// 0.
func freshness(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
		if !strings.EqualFold(name, "max-age") || err != nil {
			continue
		}
		age, _ := strconv.ParseUint(strings.TrimSpace(h.Get("Age")), 10, 31)
		return max(shortestFreshly, time.Duration(int64(seconds)-int64(age))*time.Second)
	}
	return 0
}

// TenantTemplate stands for the tenant in the issuer that Entra ID publishes for all tenants.
const TenantTemplate = "{tenantid}"

// CheckURL parses an address. Unless insecureHTTP is set, it requires TLS or a loopback host.
func CheckURL(address string, insecureHTTP bool) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("it is not an https URL")
	case u.User != nil:
		return nil, errors.New("it contains a user name")
	case u.Scheme == "http" && !insecureHTTP && !isLoopback(u):
		return nil, errors.New("without TLS anyone on the network could replace the keys; use https, or set InsecureHTTP on a private network")
	}
	return u, nil
}

// isLoopback reports whether an address is literally a loopback one. Other names can
// resolve to loopback, too.
func isLoopback(u *url.URL) bool {
	host, _, _ := strings.Cut(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), "%")
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) ||
		ip == nil && strings.HasPrefix(host, "127.") && strings.Trim(host, "0123456789.") == ""
}
