package fleetkey_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestVerifierConfig: an invalid configuration is rejected before anything is fetched, with an
// error that names the field.
func TestVerifierConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, change := range map[string]func(*fleetkey.VerifierConfig){
			`VerifierConfig.Issuer "": it is not an https URL`:                            func(c *fleetkey.VerifierConfig) { c.Issuer = "" },
			`VerifierConfig.Issuer "" is empty`:                                           func(c *fleetkey.VerifierConfig) { c.Issuer, c.JWKSURL = "", testkit.JWKSURL },
			`VerifierConfig.Issuer "\xff" is empty, not UTF-8`:                            func(c *fleetkey.VerifierConfig) { c.Issuer, c.JWKSURL = "\xff", testkit.JWKSURL },
			`VerifierConfig.Issuer "ftp://issuer.example": it is not an https URL`:        func(c *fleetkey.VerifierConfig) { c.Issuer = "ftp://issuer.example" },
			`VerifierConfig.Issuer "https://issuer.example?x" is empty, not UTF-8, or`:    func(c *fleetkey.VerifierConfig) { c.Issuer += "?x" },
			`VerifierConfig.Issuer "https://issuer.example": it contains a user name`:     func(c *fleetkey.VerifierConfig) { c.Issuer = "https://me@issuer.example" },
			`VerifierConfig.Issuer "http://issuer.example": without TLS`:                  func(c *fleetkey.VerifierConfig) { c.Issuer = "http://issuer.example" },
			`VerifierConfig.Issuer "http://127.0.0.1.example": without TLS`:               func(c *fleetkey.VerifierConfig) { c.Issuer = "http://127.0.0.1.example" },
			`VerifierConfig.JWKSURL "http://issuer.example/keys": without TLS`:            func(c *fleetkey.VerifierConfig) { c.JWKSURL = "http://issuer.example/keys" },
			`VerifierConfig.JWKSURL "https://\n": it is not an https URL`:                 func(c *fleetkey.VerifierConfig) { c.JWKSURL = "https://\n" },
			`login.microsoftonline.com/{tenantid}/v2.0" stands for many issuers; use one`: func(c *fleetkey.VerifierConfig) { c.Issuer = "https://login.microsoftonline.com/{tenantid}/v2.0" },
			`VerifierConfig.Audience is empty: set it to the name of this service`:        func(c *fleetkey.VerifierConfig) { c.Audience = nil },
			`VerifierConfig.Audience contains "", which is empty`:                         func(c *fleetkey.VerifierConfig) { c.Audience = []string{"a", ""} },
			`VerifierConfig.ClockSkew is negative: -1ns`:                                  func(c *fleetkey.VerifierConfig) { c.ClockSkew = -1 },
			`VerifierConfig.MaxTokenTTL is negative: -1ns`:                                func(c *fleetkey.VerifierConfig) { c.MaxTokenTTL = -1 },
			`VerifierConfig.RefreshEvery is negative: -1ns`:                               func(c *fleetkey.VerifierConfig) { c.RefreshEvery = -1 },
			`VerifierConfig.RefreshEvery 9s is less than 10 seconds`:                      func(c *fleetkey.VerifierConfig) { c.RefreshEvery = 9 * time.Second },
			`VerifierConfig.MaxStale is negative: -1ns`:                                   func(c *fleetkey.VerifierConfig) { c.MaxStale = -1 },
			`VerifierConfig.MaxStale 9m0s is less than 2 RefreshEvery = 10m0s`:            func(c *fleetkey.VerifierConfig) { c.MaxStale = 9 * time.Minute },
			`VerifierConfig.CachedTokens 1099511627776 is more than`:                      func(c *fleetkey.VerifierConfig) { c.CachedTokens = 1 << 40 },
		} {
			p := testkit.NewProvider()
			v, err := fleetkey.NewVerifier(t.Context(), p.Config(change))
			require.ErrorContains(t, err, want)
			require.Nil(t, v)
			require.Empty(t, p.Requests(testkit.DiscoveryURL))
			require.Empty(t, p.Requests(testkit.JWKSURL))
		}
	})
}

// TestVerifierConfigIsCopied: later changes by the program have no effect, and its HTTP client
// is not modified.
func TestVerifierConfigIsCopied(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		cfg := p.Config()
		v, err := fleetkey.NewVerifier(t.Context(), cfg)
		require.NoError(t, err)
		defer v.Close()
		require.Nil(t, cfg.HTTPClient.CheckRedirect)
		cfg.HTTPClient.Transport, cfg.Audience[0] = nil, "x"
		require.NoError(t, v.Refresh(t.Context()))
		_, err = v.Verify(t.Context(), testkit.AccessToken(key))
		require.NoError(t, err)
	})
}

// TestVerifierDefaults tests the defaults of ClockSkew and MaxTokenTTL.
func TestVerifierDefaults(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		strict, legacy := p.Verifier(t), p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Legacy = true })
		limited := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Legacy, c.MaxTokenTTL = true, 24*time.Hour })
		in := func(d time.Duration) string { return jwstest.Unix(time.Since(jwstest.Noon) + d) }
		for name, test := range map[string]struct {
			changes                 []string
			strict, legacy, limited error
		}{
			"the longest life":     {[]string{"exp", in(24 * time.Hour)}, nil, nil, nil},
			"a longer one":         {[]string{"exp", in(24*time.Hour + time.Second)}, fleetkey.ErrInvalidClaims, nil, fleetkey.ErrInvalidClaims},
			"expired by a skew":    {[]string{"iat", in(-time.Hour), "exp", in(-time.Minute)}, fleetkey.ErrExpired, fleetkey.ErrExpired, fleetkey.ErrExpired},
			"issued further ahead": {[]string{"iat", in(2*time.Minute + time.Second)}, fleetkey.ErrNotYetValid, fleetkey.ErrNotYetValid, fleetkey.ErrNotYetValid},
		} {
			token := testkit.AccessToken(key, test.changes...)
			for v, want := range map[*fleetkey.Verifier]error{strict: test.strict, legacy: test.legacy, limited: test.limited} {
				_, err := v.Verify(t.Context(), token)
				require.ErrorIs(t, err, want, name)
			}
		}
	})
}
