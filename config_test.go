package fleetkey

import (
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

// This file tests the defaults of a Config, and that one that cannot work is
// refused by NewSigner with the name of the field and of the bound.

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
	assert.Equal(t, c, twice, "defaults on top of defaults change nothing")
}

func TestConfigDerivedDefaults(t *testing.T) {
	for name, tc := range map[string]struct {
		given                      Config
		ttl, longest, skew, retain time.Duration
	}{
		"short tokens":          {Config{TokenTTL: time.Minute}, time.Minute, time.Hour, time.Minute, 24 * time.Hour},
		"long tokens":           {Config{TokenTTL: 2 * time.Hour}, 2 * time.Hour, 2 * time.Hour, time.Minute, 24 * time.Hour},
		"a short limit":         {Config{MaxTokenTTL: time.Minute}, time.Minute, time.Minute, time.Minute, 24 * time.Hour},
		"a long limit":          {Config{MaxTokenTTL: 8 * time.Hour}, time.Hour, 8 * time.Hour, time.Minute, 24 * time.Hour},
		"a limit over a day":    {Config{MaxTokenTTL: 48 * time.Hour}, time.Hour, 48 * time.Hour, time.Minute, 48*time.Hour + 2*time.Minute},
		"clocks far apart":      {Config{ClockSkew: 12 * time.Hour}, time.Hour, time.Hour, 12 * time.Hour, 25 * time.Hour},
		"everything at the end": {Config{TokenTTL: time.Second, MaxTokenTTL: time.Second, ClockSkew: 1, Rotation: Rotation{Retain: time.Second + 2}}, time.Second, time.Second, 1, time.Second + 2},
	} {
		t.Run(name, func(t *testing.T) {
			tc.given.Issuer = "https://op.example"
			c, err := tc.given.withDefaults()
			require.NoError(t, err)
			require.NoError(t, c.checkBounds())
			assert.Equal(t, []time.Duration{tc.ttl, tc.longest, tc.skew, tc.retain}, []time.Duration{c.TokenTTL, c.MaxTokenTTL, c.ClockSkew, c.Rotation.Retain})
		})
	}
}

// An untouchable store is for a signer that must not come so far: a call panics.
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
		"algorithm in lower case": {func(c *Config) { c.Algorithm = "rs256" }, "Config.Algorithm"},
		"common name":             {func(c *Config) { c.CommonName = strings.Repeat("x", 65) }, "Config.CommonName has 65 bytes; at most 64"},
		"common name, no UTF-8":   {func(c *Config) { c.CommonName = "\xff" }, `CommonName "\xff" is not UTF-8`},
		"negative TokenTTL":       {func(c *Config) { c.TokenTTL = -1 }, "Config.TokenTTL is negative: -1ns"},
		"negative MaxTokenTTL":    {func(c *Config) { c.MaxTokenTTL = -1 }, "Config.MaxTokenTTL is negative"},
		"negative ClockSkew":      {func(c *Config) { c.ClockSkew = -1 }, "Config.ClockSkew is negative"},
		"negative RefreshEvery":   {func(c *Config) { c.RefreshEvery = -1 }, "Config.RefreshEvery is negative"},
		"negative JWKSMaxAge":     {func(c *Config) { c.JWKSMaxAge = -1 }, "Config.JWKSMaxAge is negative"},
		"negative Every":          {func(c *Config) { c.Rotation.Every = -1 }, "Config.Rotation.Every is negative"},
		"negative Announce":       {func(c *Config) { c.Rotation.Announce = -1 }, "Config.Rotation.Announce is negative"},
		"negative Retain":         {func(c *Config) { c.Rotation.Retain = -1 }, "Config.Rotation.Retain is negative"},
		"TokenTTL over the limit": {func(c *Config) { c.TokenTTL, c.MaxTokenTTL = 2*time.Hour, time.Hour }, "Config.TokenTTL 2h0m0s is longer than MaxTokenTTL 1h0m0s"},
		"TokenTTL under a second": {func(c *Config) { c.TokenTTL = time.Second - 1 }, "Config.TokenTTL 999.999999ms is less than one second"},
		"MaxTokenTTL too short":   {func(c *Config) { c.MaxTokenTTL = time.Second - 1 }, "Config.TokenTTL 999.999999ms is less than one second"},
		"Retain too short":        {func(c *Config) { c.Rotation.Retain = time.Hour + 2*time.Minute - 1 }, "Config.Rotation.Retain 1h1m59.999999999s would drop a replaced key before its last token expires: it must be at least MaxTokenTTL + 2 ClockSkew = 1h2m0s"},
		"Announce too short": {func(c *Config) { c.Rotation = rotating; c.Rotation.Announce = 27*time.Minute - 1 },
			"Config.Rotation.Announce 26m59.999999999s would let a key sign before everyone knows it: it must be at least 2 RefreshEvery + JWKSMaxAge + 2 ClockSkew = 27m0s"},
		"Announce too short to Rotate by hand": {func(c *Config) { c.Rotation.Announce = time.Second }, "Config.Rotation.Announce 1s would"},
		"RefreshEvery too short":               {func(c *Config) { c.RefreshEvery = time.Second - 1 }, "Config.RefreshEvery 999.999999ms is less than one second"},
		// Sums of these must not overflow and so pass for small ones.
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
	for name, tc := range refusals {
		t.Run(name, func(t *testing.T) {
			c := Config{Issuer: "https://op.example"}
			tc.change(&c)
			s, err := NewSigner(t.Context(), untouchable{}, c) // refused before the store is touched
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "fleetkey: ")
			require.Nil(t, s)
		})
	}
}

func TestConfigAccepts(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"plain http":                  func(c *Config) { c.Issuer = "http://localhost:8080" },
		"IPv6":                        func(c *Config) { c.Issuer = "https://[::1]:8443/op" },
		"a path and a slash":          func(c *Config) { c.Issuer = "https://op.example/a/b/" },
		"Announce at its bound":       func(c *Config) { c.Rotation = Rotation{Every: 3 * time.Hour, Announce: 27 * time.Minute} },
		"Retain at its bound":         func(c *Config) { c.Rotation.Retain = time.Hour + 2*time.Minute },
		"a slow refresh":              func(c *Config) { c.RefreshEvery = 12 * time.Hour }, // raises the default of Announce
		"as many keys as fit in":      func(c *Config) { c.Rotation = Rotation{Every: 24 * time.Hour, Retain: 13 * 24 * time.Hour} },
		"no memory for tokens":        func(c *Config) { c.CachedTokens = -1 },
		"rotation with defaults":      func(c *Config) { c.Rotation.Every = 90 * 24 * time.Hour },
		"a common name of 64 letters": func(c *Config) { c.CommonName = strings.Repeat("x", 64) },
	} {
		c := Config{Issuer: "https://op.example"}
		change(&c)
		c, err := c.withDefaults()
		require.NoError(t, err, name)
		err = c.checkBounds()
		assert.NoError(t, err, name)
	}
}

// TestDefaultCommonName: a certificate can be made for every issuer.
func TestDefaultCommonName(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://op.example/a":                             "https://op.example/a",
		"https://op.example/" + strings.Repeat("x", 60):    "op.example",
		"https://" + strings.Repeat("x", 63) + ".example/": strings.Repeat("x", 63) + ".",
		"https://" + strings.Repeat("ü", 40) + ".example/": strings.Repeat("ü", 32),
		"https://x" + strings.Repeat("ü", 40) + ".example": "x" + strings.Repeat("ü", 31), // no letter is cut in two
	} {
		c, err := Config{Issuer: issuer, Algorithm: "ES256"}.withDefaults()
		require.NoError(t, err, issuer)
		assert.Equal(t, want, c.CommonName)
		assert.True(t, utf8.ValidString(c.CommonName))
		_, _, err = newMaker(c.CommonName)(c.Algorithm, 2048, time.Now())
		assert.NoError(t, err, issuer)
	}
}

func TestConfigKeepsNoCallersSlice(t *testing.T) {
	audience := []string{"a", "b"}
	c, err := Config{Issuer: "https://op.example", Audience: audience}.withDefaults()
	require.NoError(t, err)
	audience[0] = "changed"
	assert.Equal(t, []string{"a", "b"}, c.Audience)
}
