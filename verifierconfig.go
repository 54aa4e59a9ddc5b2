package fleetkey

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fleetkey/fleetkey/internal/jwks"
)

// A VerifierConfig configures a [Verifier]. Issuer and Audience are required; the defaults
// of the other fields suit most services.
type VerifierConfig struct {
	// Issuer is the iss claim of the tokens: an https URL without query and fragment. The
	// discovery document below this URL (OpenID Connect Discovery 1.0 section 4, or RFC
	// 8414 section 3) gives the address of the keys. Required.
	Issuer string

	// JWKSURL is the address of the issuer's keys, for issuers without a discovery document
	// or with one that names another issuer. Issuer can then be any text. Default: taken
	// from the discovery document.
	JWKSURL string

	// Audience lists the names of this service. A token is accepted if its aud claim
	// contains at least one of them. Required.
	Audience []string

	// Legacy accepts access tokens of issuers that do not follow RFC 9068, such as
	// Keycloak, Entra ID, Cognito, Okta and Kubernetes: typ may be JWT or absent, sub and
	// iat may be absent, and scp may replace scope. ID tokens and other tokens that declare
	// their kind are still rejected. If an audience is not a URL, it could be a client's
	// name, so the token must show that it is an access token, for instance by a scope, or
	// roles with azp or appid. A token without aud is accepted if token_use is access and
	// its client_id is in Audience (Cognito). Default: false.
	Legacy bool

	// ClockSkew is the largest error of this clock and of the issuer's. Default: 1 minute.
	ClockSkew time.Duration

	// MaxTokenTTL is the longest lifetime of an accepted token. Default: 24 hours; with
	// Legacy, no limit.
	MaxTokenTTL time.Duration

	// RefreshEvery is how often the keys are fetched, at least 10 seconds. Each interval is
	// shortened by up to 10% at random. The issuer's Cache-Control can shorten it further,
	// but not below 54 seconds. Default: 5 minutes.
	RefreshEvery time.Duration

	// MaxStale is how old the keys may become while they cannot be fetched. Once they are
	// older, Verify returns [ErrUnavailable]. MaxStale must be at least 2 RefreshEvery.
	// Without a limit, an attacker who can block the key set keeps a stolen key alive.
	// Default: 0, no limit, so that tokens stay valid during an outage of the issuer.
	MaxStale time.Duration

	// InsecureHTTP allows http addresses, for private networks without TLS. Loopback
	// addresses are always allowed. Default: false.
	InsecureHTTP bool

	// CachedTokens is the approximate number of verified tokens to cache; see [Config].
	// Default: 10,000; negative: no cache.
	CachedTokens int

	// HTTPClient fetches the keys. It is copied, and never follows a redirect to another
	// origin. Default: a client that uses the proxy set in the environment.
	HTTPClient *http.Client

	// Logger receives a record for every change of state. A rejection
	// by Require is logged at level Debug. Default: slog.Default().
	Logger *slog.Logger
}

// withDefaults returns a copy of c with every field set, or an error that names the invalid
// field.
func (c VerifierConfig) withDefaults() (VerifierConfig, error) {
	if err := checkDurations("VerifierConfig", map[string]time.Duration{
		"ClockSkew": c.ClockSkew, "MaxTokenTTL": c.MaxTokenTTL, "RefreshEvery": c.RefreshEvery, "MaxStale": c.MaxStale,
	}); err != nil {
		return c, err
	}
	address, field := c.JWKSURL, "JWKSURL"
	if address == "" {
		address, field = c.Issuer, "Issuer"
	}
	if _, err := jwks.CheckURL(address, c.InsecureHTTP); err != nil {
		return c, fmt.Errorf("VerifierConfig.%s %q: %w", field, jwks.Show(address), err)
	}
	switch {
	case c.Issuer == "" || !utf8.ValidString(c.Issuer) || field == "Issuer" && strings.ContainsAny(c.Issuer, "?#"):
		return c, fmt.Errorf("VerifierConfig.Issuer %q is empty, not UTF-8, or has a query or fragment", c.Issuer)
	case strings.Contains(c.Issuer, jwks.TenantTemplate):
		return c, fmt.Errorf("VerifierConfig.Issuer %q stands for many issuers; use one Verifier per tenant and replace %s with the tenant's ID", c.Issuer, jwks.TenantTemplate)
	case len(c.Audience) == 0:
		return c, errors.New("VerifierConfig.Audience is empty: set it to the name of this service, or tokens for other services of the issuer would be accepted")
	}
	if err := checkAccepted("VerifierConfig", c.Audience, c.CachedTokens); err != nil {
		return c, err
	}
	c.Audience = slices.Clone(c.Audience)
	if !c.Legacy {
		setDefault(&c.MaxTokenTTL, 24*time.Hour)
	}
	setDefault(&c.ClockSkew, time.Minute)
	setDefault(&c.RefreshEvery, 5*time.Minute)
	setDefault(&c.CachedTokens, 10_000)
	if c.RefreshEvery < 10*time.Second {
		return c, fmt.Errorf("VerifierConfig.RefreshEvery %v is less than 10 seconds, the shortest time between two fetches", c.RefreshEvery)
	}
	if c.MaxStale != 0 && c.MaxStale < 2*c.RefreshEvery {
		return c, fmt.Errorf("VerifierConfig.MaxStale %v is less than 2 RefreshEvery = %v, so one failed fetch would make the keys too old", c.MaxStale, 2*c.RefreshEvery)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}
