package fleetkey_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

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
	operator, s := start(t, store, config()), start(t, store.Open(), config())
	token := issue(t, operator)
	first := verify(t, s, token)
	require.Same(t, first, verify(t, s, token))
	require.EqualValues(t, 1, s.Status().Counters.CacheHits)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = s.Verify(context.Background(), token) }))

	require.NoError(t, operator.Revoke(t.Context(), first.KeyID()))
	require.NoError(t, s.Refresh(t.Context()))
	refuses(t, fleetkey.ErrUnknownKey, token, s)

	cfg := config()
	cfg.CachedTokens = -1
	off := start(t, store.Open(), cfg)
	token = issue(t, off)
	require.NotSame(t, verify(t, off, token), verify(t, off, token))
}

// TestRememberedTokenEndsWithItsKey has a key end before a token that it has signed.
func TestRememberedTokenEndsWithItsKey(t *testing.T) {
	now, end := noon, noon.Add(time.Minute)
	store, old := fleetkeytest.NewStore(), newParty(t, "ES256")
	p := openPartyBy(t, func() time.Time { return now }, store, testConfig())
	bundle, _ := store.Content()
	store.Set([]byte(string(bundle) + bundleOf(t, old.private.Public(), nil, noon.AddDate(-6, 0, 0), end)))
	require.NoError(t, p.Refresh(t.Context()))
	token := old.sign(old.header(), payload("exp", unix(time.Hour)))
	for range 2 {
		verify(t, p.Signer, token)
	}
	require.EqualValues(t, 1, p.Status().Counters.CacheHits)
	now = end
	refuses(t, fleetkey.ErrUnknownKey, token, p.Signer)
}

// TestNotRemembered: what Verify rejects, or what is too large, it looks at each time.
func TestNotRemembered(t *testing.T) {
	store := fleetkeytest.NewStore()
	cfg := config()
	cfg.Audience = []string{"https://other.example"}
	s, other := start(t, store, config()), start(t, store.Open(), cfg)
	sign := func(c fleetkey.Claims) string {
		c.Subject = "alice"
		token, err := s.Issue(t.Context(), c)
		require.NoError(t, err)
		return token
	}
	good, now := issue(t, s), time.Now()
	wrong := []byte(good)
	wrong[len(good)-20] = "AB"[good[len(good)-20]%2] // 'A' and 'B' are odd and even: another letter
	for name, test := range map[string]struct {
		token string
		want  error
	}{
		"wrong signature": {string(wrong), fleetkey.ErrBadSignature},
		"wrong audience":  {issue(t, other), fleetkey.ErrWrongAudience},
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
			cfg := config()
			cfg.CachedTokens = size
			s := start(t, fleetkeytest.NewStore(), cfg)
			for i := range claims.Audience {
				claims.Audience[i] = fmt.Sprint(i)
			}
			if claims.Audience != nil {
				claims.Audience[0] = issuer
			}
			claims.Subject = "alice"
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
