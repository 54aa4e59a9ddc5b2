package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRememberedTokens: a cached token is rejected once it or its key has expired, and while
// the clock, having been set back, is before its nbf.
func TestRememberedTokens(t *testing.T) {
	now, old := noon, newParty(t, "ES256")
	p := openPartyBy(t, func() time.Time { return now }, fleetkeytest.NewStore(), testConfig(func(c *fleetkey.Config) {
		c.Former = []fleetkey.Former{{Certificate: old.SigningKey().Certificate, Until: noon.Add(5 * time.Minute)}}
	}))
	short := old.Forge(old.Header(), payload("nbf", unix(0), "exp", unix(time.Minute)))
	long := old.Forge(old.Header(), payload("exp", unix(time.Hour)))
	for _, tc := range []struct {
		token string
		after time.Duration
		want  error
	}{
		{short, 0, nil}, {short, 0, nil}, {short, time.Minute + skew - 1, nil}, {short, time.Minute + skew, fleetkey.ErrExpired},
		{short, -2 * skew, nil}, {short, -2*skew - 1, fleetkey.ErrNotYetValid}, {short, 0, nil},
		{long, 0, nil}, {long, 5*time.Minute - 1, nil}, {long, 5 * time.Minute, fleetkey.ErrUnknownKey},
	} {
		now = noon.Add(tc.after)
		got, err := p.Verify(t.Context(), tc.token)
		require.ErrorIs(t, err, tc.want, "%v", tc.after)
		require.Equal(t, tc.want == nil, got != nil)
	}
	require.EqualValues(t, 5, p.Status().Counters.CacheHits)
	_, err := jwt.Parse(long, p.Keyfunc)
	require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
}

func verify(t *testing.T, s *fleetkey.Signer, token string) *fleetkey.Token {
	t.Helper()
	verified, err := s.Verify(t.Context(), token)
	require.NoError(t, err)
	return verified
}

// TestVerifyRemembers: a verified token is found in the cache, without allocations, until the
// keys change. Rejected tokens are not cached.
func TestVerifyRemembers(t *testing.T) {
	store := fleetkeytest.NewStore()
	operator, s := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), testkit.Config())
	token := testkit.Issue(t, operator)
	first := verify(t, s, token)
	require.Same(t, first, verify(t, s, token))
	require.EqualValues(t, 1, s.Status().Counters.CacheHits)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = s.Verify(context.Background(), token) }))

	wrong := token[:len(token)-20] + string("AB"[token[len(token)-20]%2]) + token[len(token)-19:]
	for range 2 {
		testkit.Refuses(t, fleetkey.ErrBadSignature, wrong, s)
		testkit.Refuses(t, fleetkey.ErrNotYetValid, must(operator.Issue(t.Context(), fleetkey.Claims{ClientID: "web",
			NotBefore: time.Now().Add(10 * time.Minute)})), s)
	}
	require.EqualValues(t, 102, s.Status().Counters.CacheHits)

	require.NoError(t, operator.Revoke(t.Context(), first.KeyID()))
	require.NoError(t, s.Refresh(t.Context()))
	testkit.Refuses(t, fleetkey.ErrUnknownKey, token, s)

	cfg := testkit.Config()
	cfg.CachedTokens = -1
	off := testkit.Start(t, store.Open(), cfg)
	token = testkit.Issue(t, off)
	require.NotSame(t, verify(t, off, token), verify(t, off, token))
}

// TestRememberedTokensTakeLittle limits the memory for tokens whose claims take far more than
// the token's length: long lists of audiences, and strings full of escapes.
func TestRememberedTokensTakeLittle(t *testing.T) { // T7
	const size = 400
	for name, claims := range map[string]fleetkey.Claims{
		"881 audiences":   {ClientID: "web", Audience: make([]string, 881)},
		"full of escapes": {ClientID: strings.Repeat(`"`, 1000)},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testkit.Config()
			cfg.CachedTokens = size
			s := testkit.Start(t, fleetkeytest.NewStore(), cfg)
			for i := range claims.Audience {
				claims.Audience[i] = fmt.Sprint(i)
			}
			if claims.Audience != nil {
				claims.Audience[0] = testkit.Issuer
			}
			before := heapInUse()
			for range 3 * size / 2 {
				verify(t, s, must(s.Issue(t.Context(), claims)))
			}
			grown := heapInUse() - before
			assert.LessOrEqual(t, grown, size*1536*5/4, "%d bytes", grown)
			runtime.KeepAlive(s)
		})
	}
}

func heapInUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestVerifierLogs: an outage of the issuer is logged when it begins, once an hour, and when
// it ends. Before the first keys, no message says that earlier keys stay in use.
func TestVerifierLogs(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, jwks string) {
		var log testkit.LogBuffer
		logged := func(d time.Duration, answer http.HandlerFunc) string {
			read := len(log.String())
			p.Serve(testkit.JWKSURL, answer)
			time.Sleep(d)
			synctest.Wait()
			return log.String()[read:]
		}
		p.Serve(testkit.JWKSURL, nil)
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		require.Equal(t, 1, strings.Count(log.String(), "cannot fetch the issuer's keys yet; retrying"))
		for _, fails := range []string{"cannot fetch the issuer's keys yet; retrying", "continuing with the last good ones"} {
			outage := logged(5*time.Hour+30*time.Minute, nil)
			require.InDelta(t, 5.5, strings.Count(outage, "\n"), 1, "lines")
			require.Equal(t, strings.Count(outage, "\n"), strings.Count(outage, fails))
			require.Contains(t, logged(10*time.Minute, testkit.Page(jwks)), "refreshed the signing keys after earlier failures")
		}
		require.Contains(t, log.String(), "fetched the issuer's keys")
		require.NoError(t, v.Status().Err)
	})
}

// TestMaxStaleAfterSleep: timers do not run while a machine is suspended. The first token
// after that loads the keys instead of being rejected as stale.
func TestMaxStaleAfterSleep(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		now := time.Now()
		v, err := fleetkey.NewVerifier(testkit.By(func() time.Time { return now }), p.Config(func(c *fleetkey.VerifierConfig) {
			c.MaxStale, c.RefreshEvery = time.Hour, 30*time.Minute
		}))
		require.NoError(t, err)
		defer v.Close()
		token := testkit.AccessToken(key, "exp", jwstest.Unix(time.Since(jwstest.Noon)+3*time.Hour))
		verify := func() error { _, err := v.Verify(t.Context(), token); return err }
		now = now.Add(50 * time.Minute)
		require.NoError(t, verify())
		now = now.Add(11 * time.Minute)
		require.ErrorIs(t, verify(), fleetkey.ErrUnavailable, "by the monotonic clock, the last fetch was just now")
		time.Sleep(10 * time.Second)
		require.NoError(t, verify())
	})
}

// TestMaxStaleBeforeTheFirstKeys: keys that were never loaded have no age, and a malformed
// token is rejected as malformed.
func TestMaxStaleBeforeTheFirstKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := fleetkeytest.NewIssuer(t)
		down := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") })}
		v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer.URL, HTTPClient: down,
			Audience: []string{api}, MaxStale: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer v.Close()
		_, err = v.Verify(t.Context(), issuer.Token(fleetkey.Claims{ClientID: "web", Audience: []string{api}}))
		require.ErrorIs(t, err, fleetkey.ErrUnavailable)
		require.ErrorContains(t, err, "no route to host")
		_, err = v.Keyfunc(&jwt.Token{Header: map[string]any{"kid": "x"}, Method: jwt.SigningMethodES256})
		require.ErrorIs(t, err, fleetkey.ErrUnavailable)
		require.Len(t, v.Status().Warnings(), 0, "Err already says it")
		_, err = v.Verify(t.Context(), "junk")
		require.ErrorIs(t, err, fleetkey.ErrMalformed)
		require.NotErrorIs(t, err, fleetkey.ErrUnavailable)
	})
}
