package fleetkey

import (
	"cmp"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This file tests the defaults of a Config, and that NewSigner rejects an invalid one and
// names the field and the violated bound.

func TestConfigDefaults(t *testing.T) {
	c, err := Config{Issuer: "https://op.example/tenant"}.withDefaults()
	require.NoError(t, err)
	assert.Same(t, slog.Default(), c.Logger)
	c.Logger = nil
	assert.Equal(t, Config{
		Issuer: "https://op.example/tenant", Audience: []string{"https://op.example/tenant"}, CommonName: "https://op.example/tenant",
		TokenTTL: time.Hour, MaxTokenTTL: time.Hour, ClockSkew: time.Minute, RefreshEvery: 5 * time.Minute, JWKSMaxAge: 15 * time.Minute, CachedTokens: 10_000,
		Rotation: Rotation{Announce: 24 * time.Hour, Retain: 24 * time.Hour},
	}, c)

	twice, err := c.withDefaults()
	require.NoError(t, err)
	twice.Logger = nil
	assert.Equal(t, c, twice, "applying the defaults twice must change nothing")

	audience := []string{"a", "b"}
	c, err = Config{Issuer: "https://op.example", Audience: audience}.withDefaults()
	require.NoError(t, err)
	audience[0] = "changed"
	assert.Equal(t, []string{"a", "b"}, c.Audience)
}

// TestConfigAccepts tests values at a bound, and defaults that depend on other fields.
func TestConfigAccepts(t *testing.T) {
	const hour, day = time.Hour, 24 * time.Hour
	for name, tc := range map[string]struct {
		given                      Config
		ttl, longest, skew, retain time.Duration // zero: the usual default
	}{
		"short tokens":          {given: Config{TokenTTL: time.Minute}, ttl: time.Minute},
		"a long limit":          {given: Config{MaxTokenTTL: 8 * hour}, longest: 8 * hour},
		"a limit over a day":    {given: Config{MaxTokenTTL: 2 * day}, longest: 2 * day, retain: 2*day + 2*time.Minute},
		"long tokens":           {given: Config{TokenTTL: 2 * hour}, ttl: 2 * hour, longest: 2 * hour},
		"a short limit":         {given: Config{MaxTokenTTL: time.Minute}, ttl: time.Minute, longest: time.Minute},
		"clocks far apart":      {given: Config{ClockSkew: 12 * hour}, skew: 12 * hour, retain: 25 * hour},
		"everything at the end": {Config{TokenTTL: time.Second, MaxTokenTTL: time.Second, ClockSkew: 1, Rotation: Rotation{Retain: time.Second + 2}}, time.Second, time.Second, 1, time.Second + 2},
		"IPv6":                  {given: Config{Issuer: "https://[::1]:8443/op"}},
		"a path and a slash":    {given: Config{Issuer: "https://op.example/a/b/"}},
		"Announce at its bound": {given: Config{Rotation: Rotation{Every: 3 * hour, Announce: 27 * time.Minute}}},
		"a slow refresh":        {given: Config{RefreshEvery: 12 * hour}}, // raises the default of Announce
		"as many keys as fit":   {given: Config{Rotation: Rotation{Every: day, Retain: 13 * day}}, retain: 13 * day},
		"a long common name":    {given: Config{CommonName: strings.Repeat("x", 64)}},
	} {
		t.Run(name, func(t *testing.T) {
			setDefault(&tc.given.Issuer, "https://op.example")
			c, err := tc.given.withDefaults()
			require.NoError(t, err)
			require.NoError(t, c.checkBounds())
			want := []time.Duration{cmp.Or(tc.ttl, hour), cmp.Or(tc.longest, hour), cmp.Or(tc.skew, time.Minute), cmp.Or(tc.retain, day)}
			assert.Equal(t, want, []time.Duration{c.TokenTTL, c.MaxTokenTTL, c.ClockSkew, c.Rotation.Retain})
		})
	}
}

// An untouchable store panics on every call, for Configs rejected before the store is used.
type untouchable struct{ KeyStore }

func TestConfigRefusals(t *testing.T) {
	rotating := Rotation{Every: 24 * time.Hour}
	type refusal struct {
		change func(*Config)
		want   string
	}
	refusals := map[string]refusal{
		"empty audience":          {func(c *Config) { c.Audience = []string{"x", ""} }, `Config.Audience contains ""`},
		"audience, no UTF-8":      {func(c *Config) { c.Audience = []string{"\xff"} }, `Config.Audience contains "\xff"`},
		"algorithm":               {func(c *Config) { c.Algorithm = "HS256" }, `Config.Algorithm: unknown algorithm "HS256": use RS256`},
		"common name":             {func(c *Config) { c.CommonName = strings.Repeat("x", 65) }, "Config.CommonName has 65 bytes; at most 64"},
		"common name, no UTF-8":   {func(c *Config) { c.CommonName = "\xff" }, `CommonName "\xff" is not UTF-8`},
		"TokenTTL over the limit": {func(c *Config) { c.TokenTTL, c.MaxTokenTTL = 2*time.Hour, time.Hour }, "Config.TokenTTL 2h0m0s is longer than MaxTokenTTL 1h0m0s"},
		"TokenTTL under a second": {func(c *Config) { c.TokenTTL = time.Second - 1 }, "Config.TokenTTL 999.999999ms is less than one second"},
		"MaxTokenTTL too short":   {func(c *Config) { c.MaxTokenTTL = time.Second - 1 }, "Config.TokenTTL 999.999999ms is less than one second"},
		"Retain too short":        {func(c *Config) { c.Rotation.Retain = time.Hour + 2*time.Minute - 1 }, "Config.Rotation.Retain 1h1m59.999999999s would drop a replaced key before its last token expires: it must be at least MaxTokenTTL + 2 ClockSkew = 1h2m0s"},
		"Announce too short": {func(c *Config) { c.Rotation = rotating; c.Rotation.Announce = 27*time.Minute - 1 },
			"Config.Rotation.Announce 26m59.999999999s would let a key sign before everyone knows it: it must be at least 2 RefreshEvery + JWKSMaxAge + 2 ClockSkew = 27m0s"},
		"RefreshEvery too short": {func(c *Config) { c.RefreshEvery = time.Second - 1 }, "Config.RefreshEvery 999.999999ms is less than one second"},
		// Sums of these must not overflow, which would make them look small.
		"no limit of the lifetime": {func(c *Config) { c.MaxTokenTTL = math.MaxInt64 }, "Config.MaxTokenTTL 2562047h47m16.854775807s is longer than two years"},
		"Every below Announce":     {func(c *Config) { c.Rotation.Every = 24*time.Hour - 1 }, "Config.Rotation.Every 23h59m59.999999999s is less than Announce 24h0m0s"},
		"too many keys":            {func(c *Config) { c.Rotation = Rotation{Every: 24 * time.Hour, Retain: 14 * 24 * time.Hour} }, "would keep 17 keys; a bundle has room for 16"},
		"boundless skew":           {func(c *Config) { c.ClockSkew = math.MaxInt64 / 2 }, "Config.ClockSkew"},
		"more tokens than memory":  {func(c *Config) { c.CachedTokens = math.MaxInt }, "Config.CachedTokens 9223372036854775807 is more than 10000000"},
		"boundless RefreshEvery":   {func(c *Config) { c.Rotation = rotating; c.RefreshEvery = math.MaxInt64/2 + 1 }, "Config.RefreshEvery"},
		"boundless JWKSMaxAge":     {func(c *Config) { c.Rotation = rotating; c.JWKSMaxAge = math.MaxInt64 }, "Config.JWKSMaxAge"},
	}
	for _, issuer := range []string{"", "op.example", "https:///path", "https://:8080", "ftp://op.example", "urn:op", "https://op.example/?x",
		"https://op.example/?", "https://op.example/#x", "https://op.example/#", "https://op.example/\xff", "https://op.example:x", "https://op.example\n"} {
		refusals[strconv.Quote(issuer)] = refusal{func(c *Config) { c.Issuer = issuer }, "Config.Issuer " + strconv.Quote(issuer)}
	}
	for field, negative := range map[string]Config{"TokenTTL": {TokenTTL: -1}, "MaxTokenTTL": {MaxTokenTTL: -1}, "ClockSkew": {ClockSkew: -1},
		"RefreshEvery": {RefreshEvery: -1}, "JWKSMaxAge": {JWKSMaxAge: -1}, "Rotation.Every": {Rotation: Rotation{Every: -1}},
		"Rotation.Announce": {Rotation: Rotation{Announce: -1}}, "Rotation.Retain": {Rotation: Rotation{Retain: -1}}} {
		refusals["negative "+field] = refusal{func(c *Config) { *c, c.Issuer = negative, "https://op.example" }, "Config." + field + " is negative: -1ns"}
	}
	_, err := NewSigner(t.Context(), nil, Config{Issuer: "https://op.example"})
	require.EqualError(t, err, "fleetkey: the store is nil: use NewFileStore, NewAWSStore or OpenStore")
	for name, tc := range refusals {
		t.Run(name, func(t *testing.T) {
			c := Config{Issuer: "https://op.example"}
			tc.change(&c)
			s, err := NewSigner(t.Context(), untouchable{}, c)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "fleetkey: ")
			require.Nil(t, s)
		})
	}
}

// TestDefaultCommonName: a certificate can be made for every issuer.
func TestDefaultCommonName(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://op.example/a":                             "https://op.example/a",
		"https://op.example/" + strings.Repeat("x", 60):    "op.example",
		"https://" + strings.Repeat("x", 63) + ".example/": strings.Repeat("x", 63) + ".",
		"https://" + strings.Repeat("ü", 40) + ".example/": strings.Repeat("ü", 32),
		"https://x" + strings.Repeat("ü", 40) + ".example": "x" + strings.Repeat("ü", 31), // must not cut a UTF-8 character
	} {
		c, err := Config{Issuer: issuer, Algorithm: "ES256"}.withDefaults()
		require.NoError(t, err, issuer)
		assert.Equal(t, want, c.CommonName)
		assert.True(t, utf8.ValidString(c.CommonName))
		_, _, err = newMaker(c.CommonName)(c.Algorithm, 2048, time.Now())
		assert.NoError(t, err, issuer)
	}
}
