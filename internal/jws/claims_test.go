package jws_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// TestClaimsRoundTrip: written claims are read back unchanged, here and by encoding/json.
func TestClaimsRoundTrip(t *testing.T) {
	short := jws.Claims{Issuer: "i", Subject: "s", Audience: []string{"a"}, ExpiresAt: time.Unix(2, 0), IssuedAt: time.Unix(1, 0), ID: "j"}
	long := jws.Claims{Issuer: "i", Subject: "s", Audience: []string{"a", "b", "c"}, ExpiresAt: time.Unix(253402300799, 0), IssuedAt: time.Unix(0, 0),
		NotBefore: time.Unix(1, 0), ID: "j", ClientID: "c", Scope: "r w"}
	extra := map[string]any{"y": map[string]int{"b": 2, "a": 1}, "": 1.5, "x": nil}
	check := func(c jws.Claims, extra map[string]any, want string) {
		text, err := c.Append(nil, extra)
		require.NoError(t, err)
		require.Equal(t, want, string(text))
		c.Text = want
		got, err := jws.ReadClaims(text)
		require.NoError(t, err)
		require.Equal(t, &c, got)
	}
	check(short, nil, `{"iss":"i","sub":"s","aud":"a","exp":2,"iat":1,"jti":"j"}`)
	check(long, extra, `{"iss":"i","sub":"s","aud":["a","b","c"],"exp":253402300799,"iat":0,"nbf":1,"jti":"j","client_id":"c","scope":"r w","":1.5,"x":null,"y":{"a":1,"b":2}}`)

	// These are valid in JSON strings, but some encoders change them.
	for _, text := range []string{"<script>&amp;</script>", "\u2028\u2029", "\"\\\"", "\\u0041", "\x00\x01\x1f\x7f", "\t\r\n", "🔑👩‍👩‍👧", "é vs e\u0301", "\ufffd", "\ufeff", "\U0010ffff", "'", "%00", strings.Repeat("ü", 500)} {
		c := jws.Claims{Issuer: text, Subject: text, ClientID: text, Scope: text, ID: text, Audience: []string{text, api}, ExpiresAt: noon, IssuedAt: noon}
		written, err := c.Append(nil, map[string]any{"x" + text: text})
		require.NoError(t, err, "%q", text)
		got, err := jws.ReadClaims(written)
		require.NoError(t, err)
		assert.Equal(t, []string{text, text, text, text, text}, []string{got.Issuer, got.Subject, got.ClientID, got.Scope, got.ID})
		assert.Equal(t, c.Audience, got.Audience)
		var all map[string]any
		require.NoError(t, json.Unmarshal(written, &all))
		assert.Equal(t, text, all["x"+text])
		assert.Equal(t, text, all["sub"])
	}
}

// TestOtherClaims: scp is not one of our claims, so invalid values are ignored. For cnf, only
// its presence matters.
func TestOtherClaims(t *testing.T) {
	for payload, want := range map[string]jws.Claims{
		`{"scp":"read write"}`:             {FormerScope: "read write"},
		`{"scp":["read","write"]}`:         {FormerScope: "read write"},
		`{"scp":["read","write admin"]}`:   {},
		`{"scp":["read",1]}`:               {},
		`{"scp":{"x":[]},"scope":"admin"}`: {Scope: "admin"},
		`{"scp":[],"cnf":{"jkt":"x"}}`:     {Constrained: true},
		`{"cnf":null}`:                     {Constrained: true},
		`{"x":{"cnf":1,"scp":"admin"}}`:    {},
	} {
		got, err := jws.ReadClaims([]byte(payload))
		require.NoError(t, err)
		want.Text = payload
		assert.Equal(t, &want, got)
	}
}

func TestReadTimes(t *testing.T) {
	for text, want := range map[string]time.Time{"0": time.Unix(0, 0), "-0": time.Unix(0, 0), "1.25": time.Unix(1, 250_000_000), "1E3": time.Unix(1000, 0),
		"253402300799": time.Unix(253402300799, 0), "253402300798.5": time.Unix(253402300798, 500_000_000)} {
		got, err := jws.ReadClaims([]byte(`{"exp":` + text + `}`))
		require.NoError(t, err)
		assert.Equal(t, want, got.ExpiresAt, text)
	}
	for at, want := range map[time.Time]bool{time.Unix(0, 0): true, time.Unix(-1, 0): false, time.Unix(-1, 999_999_999): false,
		time.Unix(253402300799, 0): true, time.Unix(253402300799, 999_999_999): true, time.Unix(253402300800, 0): false, time.Unix(math.MaxInt64, 0): false} {
		assert.Equal(t, want, jws.InRange(at), "%v", at)
	}
}

func TestQuote(t *testing.T) {
	a := strings.Repeat("a", 100)
	for want, claims := range map[string][]string{
		``:                                 nil,
		`""`:                               {""},
		`"a\r\n\u00e9\x00"`:                {"a\r\né\x00"},
		`"` + a + `"`:                      {a},
		`"` + a + `"...`:                   {a + "b"},
		`"a" "b" "c"`:                      {"a", "b", "c"},
		`"a" "b" "c" and 1 more`:           {"a", "b", "c", "d"},
		`"a" "` + a + `"... "" and 2 more`: {"a", a + a, "", "x", "y"},
	} {
		assert.Equal(t, want, jws.Quote(claims...))
	}
}

// TestNames: what CheckType and CheckKeyID accept needs no escaping in a header.
func TestNames(t *testing.T) {
	const media = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+/"
	for _, typ := range []string{"", "JWT;v=1", "\xff", "é", "a b", "a,b", `a"b`, `a\b`, "a\nb", "ab\n", strings.Repeat("x", 128)} {
		err := jws.CheckType(typ)
		assert.ErrorIs(t, err, jws.ErrInvalidClaims, "%q", typ)
		assert.EqualError(t, err, fmt.Sprintf("claims are invalid: typ %q is not a media type", typ))
	}
	for _, kid := range []string{"", " a", "a ", `a"b`, `a\b`, "a\x1fb", "a\x7fb", "é", "\xff", "a\nb", strings.Repeat("k", 129)} {
		assert.EqualError(t, jws.CheckKeyID(kid), fmt.Sprintf("the kid (%d bytes) is not 1 to 128 printable ASCII characters without quotes and backslashes", len(kid)))
	}
	es256, err := jws.AlgorithmNamed("ES256")
	require.NoError(t, err)
	for _, typ := range []string{"a", "JWT", "application/logout+jwt", media, strings.Repeat("x", 127)} {
		for _, kid := range []string{"x", "2024-key", "a b: c", "~", "a !#[]}~", strings.Repeat("k", 128)} {
			require.NoError(t, errors.Join(jws.CheckType(typ), jws.CheckKeyID(kid)))
			header, err := jws.ParseHeader(jws.EncodeHeader(es256, kid, typ))
			require.NoError(t, err)
			assert.Equal(t, []string{"ES256", kid, typ}, []string{header.Algorithm, header.KeyID, header.Type})
		}
	}
}
