package fleetkey_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
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

// TestRememberedTokens: a token that was accepted is refused once its time has
// come, or while the clock has not come to it.
func TestRememberedTokens(t *testing.T) {
	now := noon
	p := openPartyBy(t, func() time.Time { return now }, fleetkeytest.NewStore(), testConfig())
	token := p.Forge(p.Header(), payload("nbf", unix(0), "exp", unix(time.Minute)))
	for _, tc := range []struct {
		after time.Duration
		want  error
	}{
		{0, nil}, {0, nil}, {time.Minute + skew - 1, nil}, {time.Minute + skew, fleetkey.ErrExpired}, {0, nil}, {-2 * skew, nil}, {-2*skew - 1, fleetkey.ErrNotYetValid}, {0, nil},
	} {
		now = noon.Add(tc.after)
		got, err := p.Verify(t.Context(), token)
		require.ErrorIs(t, err, tc.want, "%v", tc.after)
		require.Equal(t, tc.want == nil, got != nil)
	}
}

// TestForeignKeys: the certificate of another system, whose tokens are to stay
// valid, verifies tokens of before RFC 9068; our own stay as strict as they are.
func TestForeignKeys(t *testing.T) {
	own, old := newParty(t, "ES256"), newParty(t, "EdDSA")
	p := openParty(t, own.store, testConfig(func(c *fleetkey.Config) {
		c.Former = []fleetkey.Former{{Certificate: old.SigningKey().Certificate, Issuer: "https://old.example"}}
	}))
	assert.Equal(t, own.KID, p.SigningKey().KeyID)

	former := payload("iss", `"https://old.example"`, "iat", "", "sub", "")
	testkit.Accepts(t, old.Forge(old.Header("typ", ""), former), p.Signer)
	testkit.Refuses(t, fleetkey.ErrWrongType, own.Forge(own.Header("typ", ""), payload()), p.Signer)
	testkit.Refuses(t, fleetkey.ErrWrongIssuer, own.Forge(own.Header(), payload("iss", `"https://old.example"`)), p.Signer)
	testkit.Refuses(t, fleetkey.ErrWrongAlgorithm, own.Forge(old.Header("alg", `"ES256"`), payload()), p.Signer)
	testkit.Refuses(t, fleetkey.ErrBadSignature, own.Forge(old.Header("alg", `"EdDSA"`), payload()), p.Signer)
}

// TestErrorsOfVerify: one error is that of fleetkey, of the class above it, and of
// golang-jwt, and names where it comes from.
func TestErrorsOfVerify(t *testing.T) {
	p := newParty(t, "ES256")
	_, err := p.Verify(t.Context(), p.Forge(p.Header(), payload("exp", "1")))
	require.ErrorIs(t, err, fleetkey.ErrExpired)
	require.ErrorIs(t, err, fleetkey.ErrInvalidClaims)
	require.ErrorIs(t, err, jwt.ErrTokenExpired)
	require.EqualError(t, err, "fleetkey: token is expired since "+time.Unix(1, 0).Format(time.RFC3339))
}

// TestVerifyTrustsByTheSchedule moves the clock over a rotation and asks each
// time which key signs and whose tokens are accepted.
func TestVerifyTrustsByTheSchedule(t *testing.T) {
	a, b := newParty(t, "ES256"), newParty(t, "ES256")
	store := fleetkeytest.NewStore()
	store.Set(append(testkit.Bundle(t, a.Private, noon.AddDate(-1, 0, 0), noon.AddDate(9, 0, 0)),
		testkit.Bundle(t, b.Private, noon.Add(time.Hour), noon.AddDate(10, 0, 0))...))
	now := noon
	p := openPartyBy(t, func() time.Time { return now }, store, testConfig(func(c *fleetkey.Config) { c.Rotation.Retain = 3 * time.Hour }))
	for _, tc := range []struct {
		after   time.Duration
		signs   *party
		trusted []*party
	}{
		{0, a, []*party{a, b}},
		{time.Hour - time.Second, a, []*party{a, b}},
		{time.Hour, b, []*party{a, b}},
		{4*time.Hour - time.Second, b, []*party{a, b}},
		{4 * time.Hour, b, []*party{b}},
	} {
		now = noon.Add(tc.after)
		assert.Equal(t, tc.signs.KID, p.SigningKey().KeyID, "%v", tc.after)
		assert.Equal(t, tc.signs.KID, p.Status().SigningKeyID, "%v", tc.after)
		assert.Len(t, p.PublicKeys(), len(tc.trusted), "%v", tc.after)
		claims := payload("iat", unix(tc.after), "exp", unix(tc.after+time.Minute))
		for _, k := range []*party{a, b} {
			token, err := p.Verify(t.Context(), k.Forge(k.Header(), claims))
			parsed, keyfuncErr := jwstest.Strict("ES256", now).Parse(k.Forge(k.Header(), claims), p.Keyfunc)
			if k == a && len(tc.trusted) == 1 {
				require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
				require.Nil(t, token)
				require.ErrorIs(t, keyfuncErr, fleetkey.ErrUnknownKey)
				continue
			}
			require.NoError(t, err, "%v", tc.after)
			require.NoError(t, keyfuncErr, "%v", tc.after)
			require.True(t, parsed.Valid)
		}
	}
}

func TestEveryAlgorithm(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		p := newParty(t, alg)
		issued := testkit.Issue(t, p.Signer)
		testkit.Accepts(t, issued, p.Signer)
		testkit.Accepts(t, p.good(), p.Signer)
		k := p.SigningKey()
		assert.Equal(t, alg, k.Algorithm)
		assert.Equal(t, p.Private.Public(), k.Signer.Public())
		assert.Equal(t, []fleetkey.PublicKey{{KeyID: p.KID, Algorithm: alg, Key: p.Private.Public(), Certificate: k.Certificate}}, p.PublicKeys())

		parsed, err := jwstest.Strict(alg, noon).Parse(issued, p.Keyfunc)
		require.NoError(t, err, alg)
		assert.Equal(t, map[string]any{"alg": alg, "kid": p.KID, "typ": "at+jwt"}, parsed.Header)
	}
}

func TestKeyfunc(t *testing.T) {
	p := newParty(t, "ES256")
	_, err := jwt.Parse(newParty(t, "ES256").good(), p.Keyfunc)
	require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
	require.ErrorIs(t, err, jwt.ErrTokenUnverifiable)
	confused := jwstest.SignWith(jwt.SigningMethodHS256, []byte("x"), p.Header("alg", `"HS256"`), payload())
	_, err = jwt.Parse(confused, p.Keyfunc)
	require.ErrorIs(t, err, fleetkey.ErrWrongAlgorithm)
	_, err = jwt.Parse(p.Forge(p.Header("kid", "1"), payload()), p.Keyfunc)
	require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
}

func verify(t *testing.T, s *fleetkey.Signer, token string) *fleetkey.Token {
	t.Helper()
	verified, err := s.Verify(t.Context(), token)
	require.NoError(t, err)
	return verified
}

// TestVerifyRemembers: a token that was verified is found again, at no cost, until the
// keys change.
func TestVerifyRemembers(t *testing.T) {
	store := fleetkeytest.NewStore()
	operator, s := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), testkit.Config())
	token := testkit.Issue(t, operator)
	first := verify(t, s, token)
	require.Same(t, first, verify(t, s, token))
	require.EqualValues(t, 1, s.Status().Counters.CacheHits)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = s.Verify(context.Background(), token) }))

	require.NoError(t, operator.Revoke(t.Context(), first.KeyID()))
	require.NoError(t, s.Refresh(t.Context()))
	testkit.Refuses(t, fleetkey.ErrUnknownKey, token, s)

	cfg := testkit.Config()
	cfg.CachedTokens = -1
	off := testkit.Start(t, store.Open(), cfg)
	token = testkit.Issue(t, off)
	require.NotSame(t, verify(t, off, token), verify(t, off, token))
}

// TestRememberedTokenEndsWithItsKey has a key end before a token that it has signed.
func TestRememberedTokenEndsWithItsKey(t *testing.T) {
	now, end := noon, noon.Add(time.Minute)
	old := newParty(t, "ES256")
	p := openPartyBy(t, func() time.Time { return now }, fleetkeytest.NewStore(), testConfig(func(c *fleetkey.Config) {
		c.Former = []fleetkey.Former{{Certificate: old.SigningKey().Certificate, Until: end}}
	}))
	token := old.Forge(old.Header(), payload("exp", unix(time.Hour)))
	for range 2 {
		verify(t, p.Signer, token)
	}
	require.EqualValues(t, 1, p.Status().Counters.CacheHits)
	now = end
	testkit.Refuses(t, fleetkey.ErrUnknownKey, token, p.Signer)
}

// TestNotRemembered: what Verify rejects, or what is too large, it looks at each time.
func TestNotRemembered(t *testing.T) {
	store := fleetkeytest.NewStore()
	cfg := testkit.Config()
	cfg.Audience = []string{"https://other.example"}
	s, other := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), cfg)
	sign := func(c fleetkey.Claims) string {
		c.Subject, c.ClientID = "alice", "web"
		token, err := s.Issue(t.Context(), c)
		require.NoError(t, err)
		return token
	}
	good, now := testkit.Issue(t, s), time.Now()
	wrong := []byte(good)
	wrong[len(good)-20] = "AB"[good[len(good)-20]%2] // 'A' and 'B' are odd and even: another letter
	for name, test := range map[string]struct {
		token string
		want  error
	}{
		"wrong signature": {string(wrong), fleetkey.ErrBadSignature},
		"wrong audience":  {testkit.Issue(t, other), fleetkey.ErrWrongAudience},
		"expired":         {sign(fleetkey.Claims{IssuedAt: now.Add(-2 * time.Hour), ExpiresAt: now.Add(-time.Hour)}), fleetkey.ErrExpired},
		"not yet valid":   {sign(fleetkey.Claims{NotBefore: now.Add(10 * time.Minute)}), fleetkey.ErrNotYetValid},
		"no token":        {"a.b.c", fleetkey.ErrMalformed},
		"too large":       {sign(fleetkey.Claims{Extra: map[string]any{"pad": strings.Repeat("x", 8_000)}}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				_, err := s.Verify(t.Context(), test.token)
				require.ErrorIs(t, err, test.want)
			}
			require.Zero(t, s.Status().Counters.CacheHits)
		})
	}
}

// TestRememberedTokensTakeLittle verifies tokens that take far more memory than their
// length: lists of audiences, and names full of escapes.
func TestRememberedTokensTakeLittle(t *testing.T) { // T7
	const size = 400
	for name, claims := range map[string]fleetkey.Claims{
		"usual":           {},
		"200 audiences":   {Audience: make([]string, 200)},
		"881 audiences":   {Audience: make([]string, 881)},
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
			claims.Subject, claims.ClientID = "alice", cmp.Or(claims.ClientID, "web")
			before := heapInUse()
			for range 3 * size / 2 {
				token, err := s.Issue(t.Context(), claims)
				require.NoError(t, err)
				verify(t, s, token)
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

// TestVerifierLogs: an outage of the issuer is in the log when it begins, once an hour, and
// when it ends, and nothing claims good keys where there have never been any.
func TestVerifierLogs(t *testing.T) {
	for name, first := range map[string]bool{"from the start": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := fleetkeytest.NewIssuer(t)
				reach := issuer.HTTPClient.Transport
				var down atomic.Bool
				down.Store(first)
				issuer.HTTPClient.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
					if down.Load() {
						return nil, errors.New("no route to host")
					}
					return reach.RoundTrip(r)
				})
				var log testkit.LogBuffer
				v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{
					Issuer: issuer.URL, HTTPClient: issuer.HTTPClient, Audience: []string{api}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				require.NoError(t, err)
				defer v.Close()
				begins, fails := "fetched the issuer's keys", "cannot refresh the signing keys; continuing with the last good ones"
				if first {
					fails = "cannot fetch the issuer's keys yet; retrying"
					begins = fails
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, 1, strings.Count(log.String(), "\n"))
				require.Contains(t, log.String(), begins)

				down.Store(true)
				read := len(log.String())
				time.Sleep(5*time.Hour + 30*time.Minute)
				synctest.Wait()
				outage := log.String()[read:]
				require.Contains(t, []int{5, 6}, strings.Count(outage, "\n"))
				require.Equal(t, strings.Count(outage, "\n"), strings.Count(outage, fails))

				down.Store(false)
				read = len(log.String())
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				require.Contains(t, log.String()[read:], "refreshed the signing keys after earlier failures")
			})
		})
	}
}

// TestMaxStaleAfterSleep: a machine that wakes has had no timer, and its keys are old only
// until the first token.
func TestMaxStaleAfterSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, now := fleetkeytest.NewIssuer(t, func(o *fleetkeytest.IssuerOptions) { o.Config.TokenTTL = 3 * time.Hour }), time.Now()
		v, err := fleetkey.NewVerifier(testkit.By(func() time.Time { return now }), fleetkey.VerifierConfig{Issuer: issuer.URL, HTTPClient: issuer.HTTPClient,
			Audience: []string{api}, MaxStale: time.Hour, RefreshEvery: 30 * time.Minute, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer v.Close()
		token := issuer.Token(fleetkey.Claims{ClientID: "web", Audience: []string{api}})
		now = now.Add(50 * time.Minute)
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err)
		now = now.Add(11 * time.Minute)
		_, err = v.Verify(t.Context(), token)
		require.ErrorIs(t, err, fleetkey.ErrUnavailable, "the last fetch was just now, by the other clock")
		time.Sleep(10 * time.Second)
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err)
	})
}

// TestMaxStaleBeforeTheFirstKeys: keys that were never there have no age, and a token that
// is none is refused as such.
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
		require.Len(t, v.Status().Warnings(), 0, "Err says it")
		_, err = v.Verify(t.Context(), "junk")
		require.ErrorIs(t, err, fleetkey.ErrMalformed)
		require.NotErrorIs(t, err, fleetkey.ErrUnavailable)
	})
}
