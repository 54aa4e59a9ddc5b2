package fleetkey

import (
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// Config says how a [Signer] works. Only Issuer is required; the defaults of the other
// fields suit most servers. All instances of a fleet should have the same Config.
type Config struct {
	// Issuer is the server's issuer identifier: the iss claim of every token,
	// and the only one that Verify accepts. It is an http or https URL without
	// query and fragment (OpenID Connect Discovery 1.0 section 3). Required.
	Issuer string

	// Audience names the resource servers that tokens are for: the aud claim of
	// tokens issued without one. Verify accepts a token that names at least one
	// of them. Default: the Issuer (RFC 9068 section 3 asks for a default).
	Audience []string

	// Former are other systems whose tokens stay valid while you move from them.
	// Default: none.
	Former []Former

	// Adopt is a store of keys that this instance used before it shared a store, such
	// as a local file: see NewSigner. Default: none.
	Adopt KeyStore

	// MustExist makes NewSigner fail where it would create the fleet's first key, for a
	// fleet whose store was filled before. Default: false.
	MustExist bool

	// Algorithm is the one that a new key signs with: RS256, PS256, ES256, ES384 or
	// EdDSA. Keys that exist keep theirs. Default: that of the key it follows, and for
	// a first key RS256, which OpenID Connect makes mandatory.
	Algorithm string

	// CommonName is the subject of a new certificate, at most 64 bytes (RFC
	// 5280 appendix A). Default: the Issuer, or its host if that is too long.
	CommonName string

	// TokenTTL is the lifetime of tokens issued without an expiry.
	// Default: 1 hour, or MaxTokenTTL if that is less.
	TokenTTL time.Duration

	// MaxTokenTTL is the longest lifetime that Issue and Sign grant and Verify
	// accepts. Replaced keys are trusted for at least this long. To raise
	// lifetimes in a running fleet, raise this on all instances before
	// TokenTTL; to lower them, the other way round.
	// Default: 1 hour, or TokenTTL if that is more.
	MaxTokenTTL time.Duration

	// ClockSkew is how far any clock of the fleet may be off the true time.
	// Verify allows for it: once for exp, and twice for nbf and iat, since the
	// issuer's clock may be ahead while the verifier's is behind. Default: 1
	// minute.
	ClockSkew time.Duration

	// RefreshEvery is how often the store is read for a changed key set: each time
	// up to 10% sooner, and the first time at a random moment within it, so that a fleet
	// does not read in step.
	// Default: 5 minutes, which costs 0.045 USD an instance a month on AWS
	// Secrets Manager (at 0.05 USD for 10,000 calls).
	RefreshEvery time.Duration

	// JWKSMaxAge is how long clients may cache the key set that JWKS serves, by its
	// Cache-Control header; docs/clients.md lists clients that cache it for longer. A
	// new key is announced for longer than this before it signs.
	// Default: 15 minutes.
	JWKSMaxAge time.Duration

	// CachedTokens is about how many verified tokens are remembered, so that
	// the next request with the same token costs no cryptography. Their times
	// are checked each time, and a changed key set forgets them all. The cache
	// takes at most 1.5 KB for each: tokens over 900 bytes or with many
	// audiences take the place of several, and those that take more than
	// 10 KB with their decoded claims are not remembered. Default: 10,000,
	// which takes about 11 MB when full of tokens of 770 bytes, and never more
	// than 16 MB; negative: none.
	CachedTokens int

	// Rotation replaces the signing key from time to time. Default: off.
	Rotation Rotation

	// Logger receives an event for every change of state, and for a token only
	// at level Debug, if Require refuses it. Default: slog.Default().
	Logger *slog.Logger
}

// Rotation is the policy by which keys are replaced. It is off while Every is
// zero. Switched on, it requires permission to write to the store.
type Rotation struct {
	// Every is how long a key signs before the next one takes over; 90 days is
	// a good choice. Zero: keys are not replaced. A key that signs at once, such as a
	// fleet's first, counts as begun up to a day earlier.
	Every time.Duration

	// Announce is how long a new key is published before it signs, so that
	// every instance and every client knows it by then: at least 2 RefreshEvery
	// + JWKSMaxAge + 2 ClockSkew. What it is longer than that is the longest
	// outage of the store that costs no token. Default: 24 hours, or the least
	// if that is more.
	Announce time.Duration

	// Retain is how long a replaced key is still trusted.
	// Default: 24 hours, or MaxTokenTTL + 2 ClockSkew if that is more.
	Retain time.Duration
}

const (
	defaultTokenTTL = time.Hour
	maxCommonName   = 64
	maxCachedTokens = 10_000_000
	maxKeys         = 16 // of RSA-4096 fit into MaxBundleSize
	maxDuration     = 2 * 365 * 24 * time.Hour
)

// withDefaults returns a copy of c with every field filled in, or an error that
// names the field that cannot work.
func (c Config) withDefaults() (Config, error) {
	if err := checkDurations("Config", map[string]time.Duration{
		"TokenTTL": c.TokenTTL, "MaxTokenTTL": c.MaxTokenTTL, "ClockSkew": c.ClockSkew,
		"RefreshEvery": c.RefreshEvery, "JWKSMaxAge": c.JWKSMaxAge, "Rotation.Every": c.Rotation.Every,
		"Rotation.Announce": c.Rotation.Announce, "Rotation.Retain": c.Rotation.Retain,
	}); err != nil {
		return c, err
	}
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") || strings.ContainsAny(c.Issuer, "?#") || !utf8.ValidString(c.Issuer) {
		return c, fmt.Errorf("Config.Issuer %q is not an http or https URL without query and fragment", c.Issuer)
	}
	c.Audience = slices.Clone(c.Audience)
	if len(c.Audience) == 0 {
		c.Audience = []string{c.Issuer}
	}
	c.Former = slices.Clone(c.Former)
	if err := checkAccepted("Config", c.Audience, c.CachedTokens); err != nil {
		return c, err
	}
	if !utf8.ValidString(c.CommonName) {
		return c, fmt.Errorf("Config.CommonName %q is not UTF-8", c.CommonName)
	}
	if _, err := jws.AlgorithmNamed(c.Algorithm); c.Algorithm != "" && err != nil {
		return c, fmt.Errorf("Config.Algorithm: %w", err)
	}
	if c.CommonName == "" {
		c.CommonName = c.Issuer
		if len(c.CommonName) > maxCommonName {
			c.CommonName = strings.ToValidUTF8(u.Host[:min(len(u.Host), maxCommonName)], "")
		}
	}
	if len(c.CommonName) > maxCommonName {
		return c, fmt.Errorf("Config.CommonName has %d bytes; at most %d are allowed", len(c.CommonName), maxCommonName)
	}
	setDefault(&c.MaxTokenTTL, max(defaultTokenTTL, c.TokenTTL))
	setDefault(&c.TokenTTL, min(defaultTokenTTL, c.MaxTokenTTL))
	setDefault(&c.ClockSkew, time.Minute)
	setDefault(&c.RefreshEvery, 5*time.Minute)
	setDefault(&c.JWKSMaxAge, 15*time.Minute)
	setDefault(&c.CachedTokens, 10_000)
	setDefault(&c.Rotation.Announce, max(24*time.Hour, c.leastAnnounce()))
	setDefault(&c.Rotation.Retain, max(24*time.Hour, c.MaxTokenTTL+2*c.ClockSkew))
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// checkDurations refuses durations that cannot be meant. It comes before any sum
// of them, which could overflow.
func checkDurations(config string, durations map[string]time.Duration) error {
	for name, d := range durations {
		if d < 0 {
			return fmt.Errorf("%s.%s is negative: %v", config, name, d)
		}
		if d > maxDuration {
			return fmt.Errorf("%s.%s %v is over two years", config, name, d)
		}
	}
	return nil
}

// checkAccepted refuses an audience that no token can name, and a cache without bounds.
func checkAccepted(config string, audience []string, cachedTokens int) error {
	if cachedTokens > maxCachedTokens {
		return fmt.Errorf("%s.CachedTokens %d is over %d", config, cachedTokens, maxCachedTokens)
	}
	for _, name := range audience {
		if name == "" || !utf8.ValidString(name) {
			return fmt.Errorf("%s.Audience holds %q, which is empty or not UTF-8", config, name)
		}
	}
	return nil
}

// leastAnnounce is how long it takes until everyone knows a new key: an instance
// reads it one refresh late, a client caches the set for JWKSMaxAge, and clocks
// differ.
func (c *Config) leastAnnounce() time.Duration {
	return 2*c.RefreshEvery + c.JWKSMaxAge + 2*c.ClockSkew
}

// policy is the part of c that key sets are made by.
func (c *Config) policy() keyset.Policy {
	return keyset.Policy{Algorithm: c.Algorithm, Every: c.Rotation.Every, Announce: c.Rotation.Announce, Retain: c.Rotation.Retain,
		MaxTokenTTL: c.MaxTokenTTL, ClockSkew: c.ClockSkew, RefreshEvery: c.RefreshEvery}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// checkBounds refuses a policy under which valid tokens would be rejected, and
// names the bound that it breaks.
func (c Config) checkBounds() error {
	if c.TokenTTL > c.MaxTokenTTL {
		return fmt.Errorf("Config.TokenTTL %v is over MaxTokenTTL %v", c.TokenTTL, c.MaxTokenTTL)
	}
	if c.RefreshEvery < time.Second {
		return fmt.Errorf("Config.RefreshEvery %v is under one second", c.RefreshEvery)
	}
	if c.TokenTTL < time.Second {
		return fmt.Errorf("Config.TokenTTL %v is under one second, the resolution of a token", c.TokenTTL)
	}
	if need := c.MaxTokenTTL + 2*c.ClockSkew; c.Rotation.Retain < need {
		return fmt.Errorf("Config.Rotation.Retain %v would drop a replaced key before its last token ends: it must be at least MaxTokenTTL + 2 ClockSkew = %v",
			c.Rotation.Retain, need)
	}
	if need := c.leastAnnounce(); c.Rotation.Announce < need {
		return fmt.Errorf("Config.Rotation.Announce %v would let a key sign before everyone knows it: it must be at least 2 RefreshEvery + JWKSMaxAge + 2 ClockSkew = %v",
			c.Rotation.Announce, need)
	}
	if c.Rotation.Every == 0 {
		return nil
	}
	if need := c.MaxTokenTTL + 3*c.ClockSkew + trust.StaleRead + 2*c.RefreshEvery; c.Rotation.Announce+c.Rotation.Retain < need {
		return fmt.Errorf("Config.Rotation.Announce %v and Retain %v would make an instance stop signing between two loads: together they must be at least MaxTokenTTL + 3 ClockSkew + 1 min + 2 RefreshEvery = %v",
			c.Rotation.Announce, c.Rotation.Retain, need)
	}
	if c.Rotation.Every < c.Rotation.Announce {
		return fmt.Errorf("Config.Rotation.Every %v is less than Announce %v, the time that it takes to replace a key", c.Rotation.Every, c.Rotation.Announce)
	}
	policy := c.policy()
	if keys := (c.Rotation.Retain+policy.Patience())/c.Rotation.Every + 3; keys > maxKeys {
		return fmt.Errorf("Config.Rotation would keep %d keys, by Retain %v and Every %v; a bundle has room for %d", keys, c.Rotation.Retain, c.Rotation.Every, maxKeys)
	}
	return nil
}
