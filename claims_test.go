package fleetkey_test

import (
	"encoding/json"
	"maps"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file tests which claims Issue and Sign write, and which they reject.

func TestIssueFillsIn(t *testing.T) {
	p := newParty(t, "ES256", func(c *fleetkey.Config) { c.TokenTTL = 5 * time.Minute })
	at := func(d time.Duration) float64 { return float64(noon.Add(d).Unix()) }
	for name, tc := range map[string]struct {
		claims fleetkey.Claims
		want   map[string]any // without jti
	}{
		"a client's own token": {fleetkey.Claims{ClientID: "batch", Audience: []string{api}},
			map[string]any{"iss": testkit.Issuer, "sub": "batch", "client_id": "batch", "aud": api, "iat": at(0), "exp": at(5 * time.Minute)}},
		"everything": {
			fleetkey.Claims{Issuer: testkit.Issuer, Subject: "alice", Audience: []string{"a", "b"}, ClientID: "web", Scope: "read write",
				IssuedAt: noon.Add(-time.Second), NotBefore: noon.Add(time.Second), ExpiresAt: noon.Add(time.Minute),
				Extra: map[string]any{"tenant": "t1", "roles": []string{"x"}, "n": 1.5, "null": nil, "": true, "issuer": "is another name"}},
			map[string]any{"iss": testkit.Issuer, "sub": "alice", "client_id": "web", "aud": []any{"a", "b"}, "scope": "read write",
				"iat": at(-time.Second), "nbf": at(time.Second), "exp": at(time.Minute),
				"tenant": "t1", "roles": []any{"x"}, "n": 1.5, "null": nil, "": true, "issuer": "is another name"}},
		"fractions are cut off": {fleetkey.Claims{Subject: "a", ClientID: "web", Audience: []string{api}, IssuedAt: noon.Add(999 * time.Millisecond), ExpiresAt: noon.Add(1999 * time.Millisecond)},
			map[string]any{"iss": testkit.Issuer, "sub": "a", "client_id": "web", "aud": api, "iat": at(0), "exp": at(time.Second)}},
	} {
		t.Run(name, func(t *testing.T) {
			given := tc.claims
			given.Extra = maps.Clone(given.Extra)
			token, err := p.Issue(t.Context(), tc.claims)
			require.NoError(t, err)
			require.Equal(t, given, tc.claims, "Issue must not change the caller's claims")
			assert.Equal(t, map[string]any{"alg": "ES256", "kid": p.KID, "typ": "at+jwt"}, inside(t, token, 0))
			got := inside(t, token, 1)
			assert.Len(t, got["jti"], 26, "130 random bits in base 32")
			delete(got, "jti")
			assert.Equal(t, tc.want, got)
		})
	}

	one, two := inside(t, testkit.Issue(t, p.Signer), 1), inside(t, testkit.Issue(t, p.Signer), 1)
	assert.NotEqual(t, one["jti"], two["jti"])
}

func TestIssueRefuses(t *testing.T) {
	p := newParty(t, "ES256")
	for name, tc := range map[string]struct {
		claims fleetkey.Claims
		want   string
	}{
		"no client (T4)":          {fleetkey.Claims{Subject: "a"}, "ClientID is empty"}, // RFC 9068 section 2.2
		"another issuer":          {fleetkey.Claims{Subject: "a", ClientID: "web", Issuer: testkit.Issuer + "/"}, `issuer "https://issuer.example/" is not Config.Issuer`},
		"empty audience":          {fleetkey.Claims{Subject: "a", ClientID: "web", Audience: []string{api, ""}}, "the audience contains an empty name"},
		"under a second":          {fleetkey.Claims{Subject: "a", ClientID: "web", ExpiresAt: noon.Add(999 * time.Millisecond)}, "ExpiresAt is not after IssuedAt"},
		"too long by its begin":   {fleetkey.Claims{Subject: "a", ClientID: "web", IssuedAt: noon.Add(-time.Minute), ExpiresAt: noon.Add(longest)}, "the lifetime is longer than Config.MaxTokenTTL 1h0m0s"},
		"too far ahead":           {fleetkey.Claims{Subject: "a", ClientID: "web", IssuedAt: noon.Add(time.Minute), ExpiresAt: noon.Add(longest + time.Minute)}, "the lifetime is longer than"},
		"nbf before 1970":         {fleetkey.Claims{Subject: "a", ClientID: "web", NotBefore: time.Unix(-1, 0)}, "not between 1970 and 9999"},
		"issued in the future":    {fleetkey.Claims{Subject: "a", ClientID: "web", IssuedAt: noon.Add(2*skew + time.Second), ExpiresAt: noon.Add(longest)}, "IssuedAt is in the future"},
		"issued before 1970":      {fleetkey.Claims{Subject: "a", ClientID: "web", IssuedAt: time.Unix(-1, 0)}, "not between 1970 and 9999"},
		"ends in no time at all":  {fleetkey.Claims{Subject: "a", ClientID: "web", ExpiresAt: time.Unix(math.MaxInt64, 0)}, "not between 1970 and 9999"},
		"bad UTF-8 in sub":        {fleetkey.Claims{Subject: "a\xff", ClientID: "web"}, "invalid UTF-8"},
		"valid never":             {fleetkey.Claims{Subject: "a", ClientID: "web", NotBefore: noon.Add(longest)}, "ExpiresAt is not after IssuedAt and NotBefore"},
		"raw text, no JSON":       {fleetkey.Claims{Subject: "a", ClientID: "web", Extra: map[string]any{"x": json.RawMessage(`1,"sub":"root"`)}}, `claim "x"`},
		"registered, in Extra":    {fleetkey.Claims{Subject: "a", ClientID: "web", Extra: map[string]any{"\u017fub": "x"}}, "Extra contains the registered claim"},
		"a scope, in Extra":       {fleetkey.Claims{Subject: "a", ClientID: "web", Extra: map[string]any{"scope": "x"}}, "Extra contains the registered claim"},
		"longer than Verify's 16": {fleetkey.Claims{Subject: "a", ClientID: "web", Extra: map[string]any{"x": strings.Repeat("x", fleetkey.MaxTokenSize)}}, "at most 16384 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := p.Issue(t.Context(), tc.claims)
			require.Empty(t, token)
			require.ErrorIs(t, err, fleetkey.ErrInvalidClaims)
			require.ErrorIs(t, err, jwt.ErrTokenInvalidClaims)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// TestWhatIssueGrantsVerifyAccepts tries lifetimes and times with fractions of a second,
// since the times in a token are whole seconds.
func TestWhatIssueGrantsVerifyAccepts(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 1500 * time.Millisecond, 1999999999, time.Hour, time.Hour + 1} {
		for _, fraction := range []time.Duration{0, 1, 300 * time.Millisecond, 600 * time.Millisecond, time.Second - 1} {
			now := noon.Add(fraction)
			cfg := testConfig(func(c *fleetkey.Config) { c.TokenTTL, c.MaxTokenTTL = ttl, ttl })
			p := openPartyBy(t, func() time.Time { return now }, fleetkeytest.NewStore(), cfg)
			for _, claims := range []fleetkey.Claims{{ClientID: "a"}, {ClientID: "a", ExpiresAt: now.Add(ttl)}, {ClientID: "a", IssuedAt: now.Add(-ttl / 2)}} {
				token, err := p.Issue(t.Context(), claims)
				if err != nil { // rounding to seconds makes the lifetime exceed the limit
					require.ErrorIs(t, err, fleetkey.ErrInvalidClaims)
					require.True(t, !claims.ExpiresAt.IsZero() && ttl%time.Second != 0, "%v", err)
					continue
				}
				_, err = p.Verify(t.Context(), token)
				require.NoError(t, err, "lifetime %v, issued %v after the second: %v", ttl, fraction, inside(t, token, 1))
			}
		}
	}
}

// TestSign signs any claims under any typ. They are encoded as by encoding/json.
func TestSign(t *testing.T) { // T3
	p := newParty(t, "ES256")
	type idToken struct {
		Issuer   string    `json:"iss"`
		Expires  int64     `json:"exp,omitempty"`
		Methods  []string  `json:"amr"`
		Verified bool      `json:"email_verified,omitempty"`
		AuthTime time.Time `json:"auth_time,omitzero"`
	}
	token, err := p.Sign(t.Context(), "JWT", idToken{Issuer: testkit.Issuer, Methods: []string{"pwd", "otp"}})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"alg": "ES256", "kid": p.KID, "typ": "JWT"}, inside(t, token, 0))
	assert.Equal(t, map[string]any{"iss": testkit.Issuer, "amr": []any{"pwd", "otp"}}, inside(t, token, 1))
	testkit.Refuses(t, fleetkey.ErrWrongType, token, p.Signer)

	exp := func(v any) map[string]any { return map[string]any{"exp": v} }
	for name, claims := range map[string]any{
		"exp at the limit": exp(noon.Add(longest).Unix()), "exp past": exp(1), "raw": jsontext.Value(` { "a" : 1 } `), "raw of encoding/json": json.RawMessage(`{"a":1}`),
		"registered claims of golang-jwt": jwt.RegisteredClaims{Issuer: testkit.Issuer, ExpiresAt: jwt.NewNumericDate(noon)},
	} {
		token, err := p.Sign(t.Context(), "application/logout+jwt", claims)
		require.NoError(t, err, name)
		assert.Equal(t, "application/logout+jwt", inside(t, token, 0)["typ"])
		_, err = jwt.NewParser(jwt.WithTimeFunc(func() time.Time { return noon.Add(-time.Hour * 1e6) })).Parse(token, p.Keyfunc)
		require.NoError(t, err, name)
	}
	_, err = p.Sign(t.Context(), `JWT","alg":"none`, idToken{})
	require.ErrorIs(t, err, fleetkey.ErrInvalidClaims)
	for name, claims := range map[string]any{
		"nothing": nil, "list": []string{"x"}, "null pointer": (*struct{})(nil), "bytes": []byte(`{}`), "null": jsontext.Value("null"), "channel": make(chan int),
		"exp over the limit": exp(noon.Add(longest).Unix() + 1), "exp over by a fraction": exp(float64(noon.Add(longest).Unix()) + 0.5), "exp 1e300": exp(1e300),
		"exp text": exp("1"), "exp null": exp(nil), "exp a time": exp(noon), "exp 1e999": jsontext.Value(`{"exp":1e999}`),
		"two exps": jsontext.Value(`{"exp":1,"exp":9999999999}`), "any name twice": json.RawMessage(`{"a":1,"a":2}`), "no JSON": jsontext.Value(`{`),
		"T2 a name that folds": map[string]any{"sub": "alice", "\u017fub": "root"}, "a name in another case": map[string]any{"Exp": 1},
		"over 16 KiB": map[string]any{"x": strings.Repeat("x", 13000)},
	} {
		token, err := p.Sign(t.Context(), "JWT", claims)
		assert.ErrorIs(t, err, fleetkey.ErrInvalidClaims, name)
		assert.Empty(t, token, name)
	}
}

// FuzzIssue: Verify and golang-jwt accept every token that Issue signs. It has the requested
// claims and no others.
func FuzzIssue(f *testing.F) {
	p := fixedParty(f)
	for _, hostile := range []string{"", "alice", `"`, `\`, "\x00", "\n", "</script>", "\u2028", "\xff", "é", "\ud7ff😀", `","admin":true,"x":"`, strings.Repeat("x", 13000)} {
		f.Add(hostile, "web", "read write", "id", "name", hostile)
		f.Add("alice", hostile, hostile, hostile, hostile, "value")
	}
	for _, name := range []string{"sub", "Sub", "\u017fub", "exp", "SCOPE", "client_id", "email", "ａud"} {
		f.Add("alice", "web", "read", "id", name, "root")
	}
	f.Fuzz(func(t *testing.T, subject, client, scope, id, name, value string) {
		token, err := p.Issue(t.Context(), fleetkey.Claims{Subject: subject, ClientID: client, Scope: scope, ID: id, Extra: map[string]any{name: value}})
		if err != nil {
			require.Empty(t, token)
			return
		}
		for _, text := range []string{subject, client, scope, id, name, value} {
			require.True(t, utf8.ValidString(text))
		}
		verified, err := p.Verify(t.Context(), token)
		require.NoError(t, err)
		_, err = jwstest.Strict("ES256", noon).Parse(token, p.Keyfunc)
		require.NoError(t, err)
		want := map[string]any{"iss": testkit.Issuer, "sub": subject, "aud": []any{api, otherAPI}, "exp": float64(noon.Add(time.Hour).Unix()), "iat": float64(noon.Unix()), "jti": id, "client_id": client, "scope": scope, name: value}
		if subject == "" {
			want["sub"] = client
		}
		if id == "" {
			require.Len(t, verified.ID(), 26)
			want["jti"] = verified.ID()
		}
		for _, name := range []string{"client_id", "scope"} {
			if want[name] == "" {
				delete(want, name)
			}
		}
		require.Equal(t, want, inside(t, token, 1))
		require.Equal(t, []any{want["sub"], client, scope, want["jti"]}, []any{verified.Subject(), verified.ClientID(), verified.Scope(), verified.ID()})
		require.True(t, noon.Equal(verified.IssuedAt()) && noon.Add(time.Hour).Equal(verified.ExpiresAt()))
	})
}
