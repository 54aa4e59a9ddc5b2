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

// TestUnknownKeyOfAnIssuer: waiting for the keys ends with the context. After Close, Verify
// does not wait.
func TestUnknownKeyOfAnIssuer(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, jwks string) {
		v, token := p.Verifier(t), testkit.AccessToken(testkit.NewForger("ES256"))
		time.Sleep(10 * time.Second)
		p.Serve(testkit.JWKSURL, testkit.Slowly(2*time.Second, testkit.Page(jwks)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := v.Verify(ctx, token)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, fleetkey.ErrUnavailable, "the token may be valid")
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
		require.Equal(t, time.Second, time.Since(begin))
		time.Sleep(11 * time.Second)
		require.NoError(t, v.Close())
		_, err = v.Verify(t.Context(), token)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
		require.NotErrorIs(t, err, fleetkey.ErrUnavailable)
	})
}

// TestMaxStale: once the keys are older than MaxStale, every token is rejected, even a cached
// one, until a fetch succeeds.
func TestMaxStale(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.MaxStale = time.Hour })
		token := testkit.AccessToken(key, "exp", jwstest.Unix(time.Since(jwstest.Noon)+3*time.Hour))
		check := func(want error) {
			t.Helper()
			for range 2 {
				got, err := v.Verify(t.Context(), token)
				require.ErrorIs(t, err, want)
				require.Equal(t, want == nil, got != nil)
			}
			_, err := jwt.Parse(token, v.Keyfunc)
			require.ErrorIs(t, err, want)
			require.ErrorIs(t, v.Status().Err, want)
		}
		p.Serve(testkit.JWKSURL, testkit.Answer(500, ""))
		time.Sleep(time.Hour)
		check(nil)
		time.Sleep(time.Nanosecond)
		check(fleetkey.ErrUnavailable)
		require.ErrorContains(t, v.Status().Err, "more than MaxStale 1h0m0s")
		require.EqualValues(t, 2, v.Status().Counters.Verified["unavailable"])
		p.Serve(testkit.JWKSURL, testkit.Page(jwks))
		time.Sleep(time.Minute)
		check(nil)
	})
}

// TestKeyfunc: the key is found by kid and alg, without a fetch.
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

// TestLegacyClaims reads scope and client from the claims that older systems use.
func TestLegacyClaims(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		legacy, strict := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Legacy = true }), p.Verifier(t)
		for _, test := range []struct {
			claims         []string
			legacy, strict string // client and scope
		}{
			{[]string{"scope", `"a b"`, "client_id", `"c"`, "scp", `"x"`, "azp", `"y"`, "appid", `"z"`}, "c a b", "c a b"},
			{[]string{"scp", `["a","b"]`, "appid", `"z"`}, "z a b", " "},
			{[]string{"appid", `"z"`, "azp", `"y"`}, "y ", " "},
			{[]string{"azp", `7`}, " ", " "},
		} {
			for v, want := range map[*fleetkey.Verifier]string{legacy: test.legacy, strict: test.strict} {
				got, err := v.Verify(t.Context(), testkit.AccessToken(key, test.claims...))
				require.NoError(t, err)
				require.Equal(t, want, got.ClientID()+" "+got.Scope(), test.claims)
			}
		}
	})
}
