package fleetkey_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestUnknownKeyOfAnIssuer: what Verify says of a token whose key is unknown depends on whether the
// keys could be loaded, and of any other token it says what is wrong with that.
func TestUnknownKeyOfAnIssuer(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
		v, unknown := p.Verifier(t), testkit.NewForger("ES256")
		token := testkit.AccessToken(unknown)
		is := func(unavailable bool, why string) {
			t.Helper()
			_, err := v.Verify(t.Context(), token)
			require.ErrorIs(t, err, fleetkey.ErrUnknownKey, why)
			if unavailable {
				require.ErrorIs(t, err, fleetkey.ErrUnavailable, why)
			} else {
				require.NotErrorIs(t, err, fleetkey.ErrUnavailable, why)
			}
		}
		is(false, "the fetch of NewVerifier has just shown that it is not among them")
		require.Len(t, p.Requests(testkit.JWKSURL), 1)
		require.EqualValues(t, 1, v.Status().Counters.SuppressedLoads)
		time.Sleep(10 * time.Second)
		p.Serve(testkit.JWKSURL, testkit.Answer(500, ""))
		is(true, "the fetch has failed")
		is(true, "the last fetch has failed, and this is no time for another")
		_, err := v.Verify(t.Context(), testkit.AccessToken(key))
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), "x")
		require.NotErrorIs(t, err, fleetkey.ErrUnavailable)
		_, err = v.Verify(t.Context(), testkit.AccessToken(unknown, "iss", `"x"`))
		require.NotErrorIs(t, err, fleetkey.ErrUnavailable, "no key could make it good")
		_, err = v.Verify(t.Context(), testkit.AccessToken(unknown, "exp", "1"))
		require.NotErrorIs(t, err, fleetkey.ErrUnavailable)

		time.Sleep(21 * time.Second) // the first retry takes a turn after 10, and the next follows 20 later
		p.Serve(testkit.JWKSURL, testkit.Slowly(5*time.Second, testkit.Page(jwks)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err = v.Verify(ctx, token)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, fleetkey.ErrUnavailable, "the token may be good")
		require.Equal(t, time.Second, time.Since(begin))
		begin = time.Now()
		is(true, "nobody waits for longer")
		require.Equal(t, 3*time.Second, time.Since(begin))
		time.Sleep(3 * time.Second)
		is(false, "the fetch has succeeded since")

		require.NoError(t, v.Close())
		time.Sleep(10 * time.Second)
		is(false, "nothing is fetched after Close")
	})
}

// TestRefreshIsNotLimited: it is the program's own decision.
func TestRefreshIsNotLimited(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, _ string) {
		v := p.Verifier(t)
		for range 5 {
			require.NoError(t, v.Refresh(t.Context()))
		}
		require.Len(t, p.Requests(testkit.JWKSURL), 6)
		p.Serve(testkit.JWKSURL, testkit.Answer(500, ""))
		require.ErrorIs(t, v.Refresh(t.Context()), fleetkey.ErrUnavailable)
		p.Serve(testkit.JWKSURL, testkit.Slowly(time.Hour, nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, v.Refresh(ctx), context.DeadlineExceeded)
	})
}

// TestMaxStale: past it no token is accepted, not even one from the cache, until a fetch
// succeeds.
func TestMaxStale(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.MaxStale = time.Hour })
		parsed := func() error {
			_, err := jwt.Parse(testkit.AccessToken(key), v.Keyfunc)
			return err
		}
		time.Sleep(2 * time.Hour)
		require.NoError(t, v.Refresh(t.Context()))
		p.Serve(testkit.JWKSURL, testkit.Answer(500, ""))
		time.Sleep(30 * time.Minute)
		token := testkit.AccessToken(key)
		time.Sleep(30 * time.Minute)
		for range 2 {
			_, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
		}
		require.NoError(t, parsed())
		require.NoError(t, v.Status().Err)
		time.Sleep(time.Nanosecond)
		for range 2 {
			got, err := v.Verify(t.Context(), token)
			require.ErrorIs(t, err, fleetkey.ErrUnavailable)
			require.ErrorContains(t, err, "more than MaxStale 1h0m0s")
			require.Nil(t, got)
		}
		require.ErrorIs(t, parsed(), fleetkey.ErrUnavailable)
		require.ErrorIs(t, v.Status().Err, fleetkey.ErrUnavailable)
		require.EqualValues(t, 2, v.Status().Counters.Verified["unavailable"])

		p.Serve(testkit.JWKSURL, testkit.Page(jwks))
		time.Sleep(time.Minute)
		_, err := v.Verify(t.Context(), testkit.AccessToken(key))
		require.NoError(t, err)
		require.NoError(t, parsed())
	})
}

// TestKeyfunc: by kid and alg, and without a fetch.
func TestKeyfunc(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		twin, unknown := testkit.NewForger("RS256"), testkit.NewForger("ES256")
		twin.KID = key.KID
		p.Publish(key.JWK(), twin.JWK())
		v := p.Verifier(t)
		time.Sleep(10 * time.Second)
		ps256 := *twin
		ps256.Alg = "PS256"
		confused := jwstest.SignWith(jwt.SigningMethodHS256, []byte("x"), key.Header("alg", `"HS256"`), jwstest.Payload())
		for token, want := range map[string]error{
			testkit.AccessToken(key): nil, testkit.AccessToken(twin): nil, testkit.AccessToken(unknown): fleetkey.ErrUnknownKey,
			key.Forge(key.Header("kid", "1"), jwstest.Payload()): fleetkey.ErrUnknownKey,
			testkit.AccessToken(&ps256):                          fleetkey.ErrWrongAlgorithm, confused: fleetkey.ErrWrongAlgorithm,
		} {
			_, err := jwt.Parse(token, v.Keyfunc)
			require.ErrorIs(t, err, want)
			require.Equal(t, want != nil, errors.Is(err, jwt.ErrTokenUnverifiable))
		}
		require.Len(t, p.Requests(testkit.JWKSURL), 1)
	})
}

// TestLegacyClaims: scopes and client from the claims that older systems write.
func TestLegacyClaims(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		legacy, strict := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Legacy = true }), p.Verifier(t)
		for name, test := range map[string]struct {
			claims []string
			client string
			scope  string
		}{
			"scope and client_id":      {[]string{"scope", `"a b"`, "client_id", `"c"`, "scp", `"x"`, "azp", `"y"`, "appid", `"z"`}, "c", "a b"},
			"scp":                      {[]string{"scp", `"a b"`, "azp", `"y"`, "appid", `"z"`}, "y", "a b"},
			"scp in an array":          {[]string{"scp", `["a","b"]`, "appid", `"z"`}, "z", "a b"},
			"appid before azp":         {[]string{"appid", `"z"`, "azp", `"y"`}, "y", ""},
			"an azp that is no string": {[]string{"azp", `7`}, "", ""},
		} {
			token := testkit.AccessToken(key, test.claims...)
			got, err := legacy.Verify(t.Context(), token)
			require.NoError(t, err, name)
			require.Equal(t, test.client, got.ClientID(), name)
			require.Equal(t, test.scope, got.Scope(), name)
			got, err = strict.Verify(t.Context(), token)
			require.NoError(t, err, name)
			if name != "scope and client_id" {
				require.Empty(t, got.ClientID(), "only Legacy reads these")
				require.Empty(t, got.Scope())
			}
		}
	})
}
