package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
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
	token := p.sign(p.header(), payload("nbf", unix(0), "exp", unix(time.Minute)))
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

func TestVerifyEveryAlgorithm(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			p := newParty(t, alg)
			issued, err := p.Issue(t.Context(), fleetkey.Claims{Subject: "bob"})
			require.NoError(t, err)
			for _, token := range []string{issued, p.good()} {
				_, err := p.Verify(t.Context(), token)
				require.NoError(t, err)
			}
			k := p.SigningKey()
			assert.Equal(t, alg, k.Algorithm)
			assert.Equal(t, p.private.Public(), k.Signer.Public())
			require.Len(t, p.PublicKeys(), 1)
			assert.Equal(t, p.private.Public(), p.PublicKeys()[0].Key)
			assert.Equal(t, k.Certificate, p.PublicKeys()[0].Certificate)
		})
	}
}

// TestForeignKeys: the certificate of another system, whose tokens are to stay
// valid, verifies tokens of before RFC 9068; its tokens are no less strictly
// checked otherwise.
func TestForeignKeys(t *testing.T) {
	own, old := newParty(t, "ES256"), newParty(t, "EdDSA")
	bundle, _ := own.store.Content()
	store := fleetkeytest.NewStore()
	store.Set([]byte(string(bundle) + bundleOf(t, old.private.Public(), nil, noon.AddDate(-6, 0, 0), noon.Add(time.Hour))))
	p := openParty(t, store, testConfig(func(c *fleetkey.Config) { c.FormerIssuers = []string{"https://old.example"} }))
	assert.Equal(t, own.kid, p.SigningKey().KeyID)

	for name, token := range map[string]string{
		"plain":             old.good(),
		"x5t":               old.sign(old.header("x5t", `"AAAA"`), payload()),
		"x5t#S256":          old.sign(old.header("x5t#S256", `"AAAA"`), payload()),
		"typ JWT":           old.sign(old.header("typ", `"JWT"`), payload()),
		"no typ":            old.sign(old.header("typ", ""), payload()),
		"no iat, no sub":    old.sign(old.header(), payload("iat", "", "sub", "")),
		"a long life":       old.sign(old.header(), payload("exp", unix(10*longest))),
		"the former issuer": old.sign(old.header(), payload("iss", `"https://old.example"`)),
	} {
		_, err := p.Verify(t.Context(), token)
		assert.NoError(t, err, name)
	}
	for _, row := range []hostile{
		{"x5t no text", old.sign(old.header("x5t", "1"), payload()), fleetkey.ErrMalformed},
		{"x5c", old.sign(old.header("x5c", `["AAAA"]`), payload()), fleetkey.ErrMalformed},
		{"typ twice", old.sign(`{"typ":"JWT",`+old.header()[1:], payload()), fleetkey.ErrMalformed},
		{"typ of a logout token", old.sign(old.header("typ", `"logout+jwt"`), payload()), fleetkey.ErrWrongType},
		{"typ application/jwt", old.sign(old.header("typ", `"application/jwt"`), payload()), fleetkey.ErrWrongType},
		{"alg of ours", own.sign(old.header("alg", `"ES256"`), payload()), fleetkey.ErrWrongAlgorithm},
		{"signed by us", own.sign(old.header(), payload()), fleetkey.ErrBadSignature},
		{"no exp", old.sign(old.header(), payload("exp", "")), fleetkey.ErrMissingClaim},
		{"no iss", old.sign(old.header(), payload("iss", "")), fleetkey.ErrMissingClaim},
		{"no aud", old.sign(old.header(), payload("aud", "")), fleetkey.ErrMissingClaim},
		{"expired", old.sign(old.header(), payload("exp", unix(-skew))), fleetkey.ErrExpired},
		{"another issuer", old.sign(old.header(), payload("iss", `"https://old.example/"`)), fleetkey.ErrWrongIssuer},
		{"an ID token, for its client", old.sign(old.header("typ", `"JWT"`), payload("aud", `"web-client"`)), fleetkey.ErrWrongAudience},
		// What goes for foreign keys does not go for our own.
		{"ours without typ", own.sign(own.header("typ", ""), payload()), fleetkey.ErrWrongType},
		{"ours with typ JWT", own.sign(own.header("typ", `"JWT"`), payload()), fleetkey.ErrWrongType},
		{"ours with x5t", own.sign(own.header("x5t", `"AAAA"`), payload()), fleetkey.ErrMalformed},
		{"ours of the former issuer", own.sign(own.header(), payload("iss", `"https://old.example"`)), fleetkey.ErrWrongIssuer},
		{"ours without iat", own.sign(own.header(), payload("iat", "")), fleetkey.ErrMissingClaim},
		{"ours with a long life", own.sign(own.header(), payload("exp", unix(10*longest))), fleetkey.ErrInvalidClaims},
	} {
		t.Run(row.name, func(t *testing.T) { checkRefused(t, p, row) })
	}
}

// TestVerifyTrustsByTheSchedule moves the clock over a rotation and asks each
// time which key signs and whose tokens are accepted.
func TestVerifyTrustsByTheSchedule(t *testing.T) {
	a, b := newParty(t, "ES256"), newParty(t, "ES256")
	store := fleetkeytest.NewStore()
	store.Set([]byte(bundleOf(t, a.private.Public(), a.private, noon.AddDate(-1, 0, 0), noon.AddDate(9, 0, 0)) +
		bundleOf(t, b.private.Public(), b.private, noon.Add(time.Hour), noon.AddDate(10, 0, 0))))
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
		assert.Equal(t, tc.signs.kid, p.SigningKey().KeyID, "%v", tc.after)
		assert.Equal(t, tc.signs.kid, p.Status().SigningKeyID, "%v", tc.after)
		assert.Len(t, p.PublicKeys(), len(tc.trusted), "%v", tc.after)
		claims := payload("iat", unix(tc.after), "exp", unix(tc.after+time.Minute))
		for _, k := range []*party{a, b} {
			token, err := p.Verify(t.Context(), k.sign(k.header(), claims))
			parsed, keyfuncErr := parser("ES256", now).Parse(k.sign(k.header(), claims), p.Keyfunc)
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

func TestKeyfunc(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		p := newParty(t, alg)
		token, err := p.Issue(t.Context(), fleetkey.Claims{Subject: "bob", Audience: []string{"urn:x", api}, Extra: map[string]any{"tenant": "t1"}})
		require.NoError(t, err)
		parsed, err := parser(alg, noon).Parse(token, p.Keyfunc)
		require.NoError(t, err, alg)
		assert.Equal(t, "t1", parsed.Claims.(jwt.MapClaims)["tenant"])
		assert.Equal(t, map[string]any{"alg": alg, "kid": p.kid, "typ": "at+jwt"}, parsed.Header)

		other := newParty(t, "ES256")
		_, err = parser("ES256", noon).Parse(other.good(), p.Keyfunc)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
		require.ErrorIs(t, err, jwt.ErrTokenUnverifiable)
		confused := signWith(jwt.SigningMethodHS256, []byte("x"), p.header("alg", `"HS256"`), payload())
		_, err = jwt.Parse(confused, p.Keyfunc)
		require.ErrorIs(t, err, fleetkey.ErrWrongAlgorithm)
		_, err = jwt.Parse(p.sign(p.header("kid", "1"), payload()), p.Keyfunc)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
	}
}

// A hostile token must be refused for one reason.
type hostile struct {
	name, token string
	want        error
}

// refusals are the reasons that Verify gives, and what else each must match.
var refusals = map[error][]error{
	fleetkey.ErrMalformed:      {jwt.ErrTokenMalformed},
	fleetkey.ErrWrongType:      {jwt.ErrTokenUnverifiable},
	fleetkey.ErrUnknownKey:     {jwt.ErrTokenUnverifiable},
	fleetkey.ErrWrongAlgorithm: {jwt.ErrTokenSignatureInvalid},
	fleetkey.ErrBadSignature:   {jwt.ErrTokenSignatureInvalid},
	fleetkey.ErrMissingClaim:   {jwt.ErrTokenRequiredClaimMissing, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrWrongIssuer:    {jwt.ErrTokenInvalidIssuer, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrWrongAudience:  {jwt.ErrTokenInvalidAudience, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrExpired:        {jwt.ErrTokenExpired, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrNotYetValid:    {jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrInvalidClaims:  {jwt.ErrTokenInvalidClaims},
}

func checkRefused(t *testing.T, p *party, row hostile) {
	_, _ = p.Verify(t.Context(), row.token) // nothing is remembered of it
	token, err := p.Verify(t.Context(), row.token)
	require.Nil(t, token)
	require.ErrorIs(t, err, row.want)
	wanted := append(slices.Clone(refusals[row.want]), row.want)
	for sentinel, more := range refusals {
		for _, one := range append(slices.Clone(more), sentinel) {
			assert.Equal(t, slices.Contains(wanted, one), errors.Is(err, one), "%v: matches %v?", err, one)
		}
	}
	for i, part := range append(strings.Split(row.token, "."), row.token) {
		if i > 0 && len(part) > 8 {
			assert.NotContains(t, err.Error(), part, "the error shows the token")
		}
	}
	assert.Less(t, len(err.Error()), 1000, "the error is as long as the token")
	assert.True(t, strings.HasPrefix(err.Error(), "fleetkey: ") && !strings.ContainsAny(err.Error(), "\r\n\x00"), "%q", err)
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
	testkit.Refuses(t, fleetkey.ErrUnknownKey, token, p.Signer)
}

// TestNotRemembered: what Verify rejects, or what is too large, it looks at each time.
func TestNotRemembered(t *testing.T) {
	store := fleetkeytest.NewStore()
	cfg := testkit.Config()
	cfg.Audience = []string{"https://other.example"}
	s, other := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), cfg)
	sign := func(c fleetkey.Claims) string {
		c.Subject = "alice"
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
