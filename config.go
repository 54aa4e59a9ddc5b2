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

// Config configures a [Signer]. Only Issuer is required; the defaults suit most servers.
// All instances of a fleet should have the same Config.
type Config struct {
	// Issuer is the server's issuer identifier: the iss claim of every token, and the only
	// one that Verify accepts. It is an http or https URL without query and fragment
	// (OpenID Connect Discovery 1.0 section 3). Required.
	Issuer string

	// Audience lists the resource servers that tokens are intended for. It is the aud claim
	// of tokens issued without one. Verify accepts a token that names at least one of them.
	// Default: the Issuer (RFC 9068 section 3 requires a default).
	Audience []string

	// Former lists keys of other systems whose tokens stay valid during a migration.
	// Default: none.
	Former []Former

	// Adopt is the store, such as a local file, that this instance used before the fleet
	// shared one. See [NewSigner]. Default: none.
	Adopt KeyStore

	// MustExist makes NewSigner return an error instead of creating the fleet's first key,
	// for a fleet whose store is known to hold keys. Default: false.
	MustExist bool

	// Algorithm is the algorithm of new keys: RS256, PS256, ES256, ES384 or EdDSA. Existing
	// keys keep theirs. Default: the previous key's; for the first key RS256, which OpenID
	// Connect requires every server to support.
	Algorithm string

	// CommonName is the subject of new certificates, at most 64 bytes (RFC 5280 appendix
	// A). Default: the Issuer, or its host if the Issuer is too long.
	CommonName string

	// TokenTTL is the lifetime of tokens issued without an expiry.
	// Default: 1 hour, or MaxTokenTTL if that is less.
	TokenTTL time.Duration

	// MaxTokenTTL is the longest lifetime that Issue and Sign grant and Verify accepts.
	// Replaced keys are trusted for at least this long. To raise lifetimes in a running
	// fleet, raise Rotation.Retain and MaxTokenTTL on all instances before TokenTTL; to
	// lower them, lower TokenTTL first. Default: 1 hour, or TokenTTL if that is longer.
	MaxTokenTTL time.Duration

	// ClockSkew is the largest error of any clock in the fleet. Verify accepts a token for
	// one ClockSkew after its exp. It allows two for nbf and iat, so that a token from a
	// machine whose clock is ahead works at once on one whose clock is behind. Default: 1
	// minute.
	ClockSkew time.Duration

	// RefreshEvery is how often the store is read. The first interval is random, and later
	// ones are shortened by up to 10% at random, so that instances do not read at the same
	// moment. Default: 5 minutes, which costs 0.045 USD per instance per month on AWS
	// Secrets Manager (at 0.05 USD per 10,000 calls).
	RefreshEvery time.Duration

	// JWKSMaxAge is how long clients may cache the JWKS, as its Cache-Control header says.
	// A new key is announced for longer than this before it signs; docs/clients.md lists
	// clients that ignore the header. Default: 15 minutes.
	JWKSMaxAge time.Duration

	// CachedTokens is the approximate number of verified tokens to cache, so that verifying
	// the same token again costs no cryptography. Times are still checked on each call, and
	// a changed key set empties the cache. A token over 900 bytes or with many audiences
	// takes the place of several, and a token that needs more than 10 KB with its decoded
	// claims is not cached. So the cache uses at most 1.6 KB times CachedTokens. Default:
	// 10,000, which takes at most 16 MB, and about 11 MB with tokens of 770 bytes. A
	// negative number turns the cache off.
	CachedTokens int

	// Rotation replaces the signing key at intervals. Default: off.
	Rotation Rotation

	// Logger receives a record for every change of state. A rejection
	// by Require is logged at level Debug. Default: slog.Default().
	Logger *slog.Logger
}

// Rotation is the policy for replacing keys. It is off while Every is zero. It requires
// permission to write to the store.
type Rotation struct {
	// Every is how long a key signs before the next one takes over; 90 days is a good
	// choice. Zero means that keys are not replaced. If a key signs at once, as a fleet's
	// first does, its certificate begins up to a day before the key was created, so that
	// the key also signs on a machine whose clock is behind. The interval counts from that time.
	Every time.Duration

	// Announce is how long a new key is published before it signs, so that every instance
	// and client knows it by then: at least 2 RefreshEvery + JWKSMaxAge + 2 ClockSkew. The
	// time beyond that minimum is how long the store may be unavailable without a token
	// being rejected. Default: 24 hours, or the minimum if that is longer.
	Announce time.Duration

	// Retain is how long a replaced key stays trusted. Default: 24 hours, or MaxTokenTTL +
	// 2 ClockSkew if that is longer.
	Retain time.Duration
}

const (
	defaultTokenTTL = time.Hour
	maxCommonName   = 64
	maxCachedTokens = 10_000_000
	maxKeys         = 16 // RSA-4096 keys that fit into MaxBundleSize
	maxDuration     = 2 * 365 * 24 * time.Hour
)

// withDefaults returns a copy of c with every field set, or an error that names the invalid
// field.
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

// checkDurations rejects absurd durations, before they are added up and could overflow.
func checkDurations(config string, durations map[string]time.Duration) error {
	for name, d := range durations {
		if d < 0 {
			return fmt.Errorf("%s.%s is negative: %v", config, name, d)
		}
		if d > maxDuration {
			return fmt.Errorf("%s.%s %v is longer than two years", config, name, d)
		}
	}
	return nil
}

// checkAccepted rejects an audience that no token can name, and an unbounded cache.
func checkAccepted(config string, audience []string, cachedTokens int) error {
	if cachedTokens > maxCachedTokens {
		return fmt.Errorf("%s.CachedTokens %d is more than %d", config, cachedTokens, maxCachedTokens)
	}
	for _, name := range audience {
		if name == "" || !utf8.ValidString(name) {
			return fmt.Errorf("%s.Audience contains %q, which is empty or not UTF-8", config, name)
		}
	}
	return nil
}

// leastAnnounce returns how long it takes until everyone knows a new key: an instance may
// read it one refresh late, a client may cache the old set for JWKSMaxAge, and clocks
// differ.
func (c *Config) leastAnnounce() time.Duration {
	return 2*c.RefreshEvery + c.JWKSMaxAge + 2*c.ClockSkew
}

// policy returns the part of c that governs changes of the key set.
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

// checkBounds rejects a policy under which valid tokens could be rejected, naming the
// violated bound.
func (c Config) checkBounds() error {
	if c.TokenTTL > c.MaxTokenTTL {
		return fmt.Errorf("Config.TokenTTL %v is longer than MaxTokenTTL %v", c.TokenTTL, c.MaxTokenTTL)
	}
	if c.RefreshEvery < time.Second {
		return fmt.Errorf("Config.RefreshEvery %v is less than one second", c.RefreshEvery)
	}
	if c.TokenTTL < time.Second {
		return fmt.Errorf("Config.TokenTTL %v is less than one second, the resolution of token times", c.TokenTTL)
	}
	if need := c.MaxTokenTTL + 2*c.ClockSkew; c.Rotation.Retain < need {
		return fmt.Errorf("Config.Rotation.Retain %v would drop a replaced key before its last token expires: it must be at least MaxTokenTTL + 2 ClockSkew = %v",
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
		return fmt.Errorf("Config.Rotation.Announce %v and Retain %v would make an instance stop signing between two loads: their sum must be at least MaxTokenTTL + 3 ClockSkew + 1 min + 2 RefreshEvery = %v",
			c.Rotation.Announce, c.Rotation.Retain, need)
	}
	if c.Rotation.Every < c.Rotation.Announce {
		return fmt.Errorf("Config.Rotation.Every %v is less than Announce %v, the time it takes to replace a key", c.Rotation.Every, c.Rotation.Announce)
	}
	policy := c.policy()
	if keys := (c.Rotation.Retain+policy.Patience())/c.Rotation.Every + 3; keys > maxKeys {
		return fmt.Errorf("Config.Rotation with Retain %v and Every %v would keep %d keys; a bundle has room for %d", c.Rotation.Retain, c.Rotation.Every, keys, maxKeys)
	}
	return nil
}
