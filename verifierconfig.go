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

// A VerifierConfig says whose tokens a [Verifier] accepts. Issuer and Audience are
// required; the defaults of the other fields suit most services.
type VerifierConfig struct {
	// Issuer is the iss claim of the tokens. Its discovery document (OpenID Connect
	// Discovery 1.0 section 4, or RFC 8414 section 3) says where its keys are. It is an
	// https URL without query and fragment. Required.
	Issuer string

	// JWKSURL is where the issuer's keys are, for issuers without a discovery document
	// or with one that names another issuer. Issuer can then be any text. Default: what
	// discovery says.
	JWKSURL string

	// Audience names this service. A token is accepted if its aud claim holds one of
	// these names. Required.
	Audience []string

	// Legacy accepts the access tokens of issuers that do not follow RFC 9068, such as
	// Keycloak, Entra ID, Cognito, Okta and Kubernetes: typ JWT or none, no sub or iat, scp
	// in place of scope. ID tokens and others that say what they are stay refused; where
	// an audience is no URI, it may be the name of a client, and a token needs a scope,
	// roles with azp or appid, or another sign that it is an access token. A token without aud is accepted if
	// it says token_use access and its client_id is in Audience (Cognito). Default: false.
	Legacy bool

	// ClockSkew is how far this clock and the issuer's may be off the true time. Default: 1
	// minute.
	ClockSkew time.Duration

	// MaxTokenTTL is the longest lifetime of a token that is accepted. Default: 24 hours;
	// with Legacy, no limit.
	MaxTokenTTL time.Duration

	// RefreshEvery is how often the keys are fetched: each time up to 10% sooner, and
	// sooner still, but not within 54 seconds, if the issuer's Cache-Control says so. At least
	// 10 seconds.
	// Default: 5 minutes.
	RefreshEvery time.Duration

	// MaxStale is how old the keys may become while they cannot be fetched. After that
	// Verify returns [ErrUnavailable]. At least 2 RefreshEvery. Whoever can block the issuer's key set keeps a
	// stolen key alive for as long. Default: 0, no limit, so that tokens stay good in an
	// outage of the issuer.
	MaxStale time.Duration

	// InsecureHTTP allows http addresses, for private networks without TLS. Those on this
	// machine are always allowed. Default: false.
	InsecureHTTP bool

	// CachedTokens is about how many verified tokens are remembered, as in [Config].
	// Default: 10,000; negative: none.
	CachedTokens int

	// HTTPClient fetches the keys. It is copied; redirects to another origin are refused
	// whatever it says. Default: one of the Verifier's own, which uses the proxy of the
	// environment.
	HTTPClient *http.Client

	// Logger receives an event for every change of state, and for a token only at level
	// Debug, if Require refuses it. Default: slog.Default().
	Logger *slog.Logger
}

// withDefaults returns a copy of c with every field filled in, or an error that names the
// field that cannot work.
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
		return c, fmt.Errorf("VerifierConfig.Issuer %q stands for many issuers; use one Verifier for each tenant, with the tenant's id in place of %s", c.Issuer, jwks.TenantTemplate)
	case len(c.Audience) == 0:
		return c, errors.New("VerifierConfig.Audience is empty: name this service, or tokens for any other service of the issuer would be accepted")
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
		return c, fmt.Errorf("VerifierConfig.RefreshEvery %v is under 10 seconds, the least time between two fetches", c.RefreshEvery)
	}
	if c.MaxStale != 0 && c.MaxStale < 2*c.RefreshEvery {
		return c, fmt.Errorf("VerifierConfig.MaxStale %v is less than 2 RefreshEvery = %v, so one failed fetch would make the keys too old", c.MaxStale, 2*c.RefreshEvery)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}
