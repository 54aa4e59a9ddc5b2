package load

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A costly token is almost as long as a token may be, and expensive to read for a
// careless reader.
type costly struct {
	name, token string
	want        error
}

// fill repeats a text up to a number of bytes.
func fill(bytes int, text string) string { return strings.Repeat(text, bytes/len(text)) }

// quoted is fill as a JSON string.
func quoted(bytes int, text string) string { return `"` + fill(bytes, text) + `"` }

// members returns JSON members of so many bytes in total, with different names.
func members(bytes int) string {
	var b strings.Builder
	for i := 0; b.Len() < bytes; i++ {
		fmt.Fprintf(&b, `,"%x":0`, i)
	}
	return b.String()[1:]
}

// madeUpAtLimit returns tokens that anybody can make up. Some carry the key's kid,
// none its signature.
func madeUpAtLimit(k fleetkey.SigningKey) []costly {
	const room = 11_900 // bytes that one segment can decode to, beside two small ones
	parts := strings.Split(sign(k, payload()), ".")
	head := func(text string) string { return b64(text) + ".e30.AAAA" }
	kid := func(text string) string {
		return head(`{"alg":"` + k.Algorithm + `","typ":"at+jwt","kid":"` + text + `"}`)
	}
	stranger := b64(strings.Replace(header(k), k.KeyID, strings.Repeat("k", 128), 1))
	return []costly{
		{"dots", fill(fleetkey.MaxTokenSize, "."), fleetkey.ErrMalformed},
		{"header: nested objects", head(fill(room, `{"alg":`)), fleetkey.ErrMalformed},
		{"header: many members", head("{" + members(room-10) + "}"), fleetkey.ErrMalformed},
		{"header: long kid of escapes", kid(fill(room-60, `\u00e9`)), fleetkey.ErrMalformed},
		{"unknown kid, long payload", stranger + "." + b64(fill(room-200, "x")) + ".AAAA", fleetkey.ErrUnknownKey},
		{"payload: not base64url", parts[0] + "." + fill(4*room/3-600, "~") + "." + parts[2], fleetkey.ErrMalformed},
		{"wrong signature, long payload", parts[0] + "." + b64(fill(room-500, "x")) + "." + parts[2], fleetkey.ErrBadSignature},
	}
}

// signedAtLimit returns tokens that a key of the fleet has signed, or a key of
// another system that the fleet trusts.
func signedAtLimit(k fleetkey.SigningKey) []costly {
	const room = 11_500
	signed := func(payload string) string { return sign(k, payload) }
	open := func(payload string) string { return strings.TrimSuffix(payload, "}") + "," }
	return []costly{
		{"not JSON", signed(fill(room, "x")), fleetkey.ErrMalformed},
		{"nested objects", signed(open(payload()) + `"x":` + fill(room, `{"":`)), fleetkey.ErrMalformed},
		{"many members, wrong audience", signed(open(payload("aud", `"x"`)) + members(room) + "}"), fleetkey.ErrWrongAudience},
		{"one member many times", signed("{" + fill(room, `"iss":"x",`) + `"iss":"x"}`), fleetkey.ErrMalformed},
		{"audience of many", signed(payload("aud", `["x"`+fill(room, `,"x"`)+"]")), fleetkey.ErrWrongAudience},
		{"long issuer", signed(payload("iss", quoted(room, "\u200b"))), fleetkey.ErrWrongIssuer},
		{"long subject of escapes", signed(payload("aud", `"x"`, "sub", quoted(room, `\u00e9`))), fleetkey.ErrWrongAudience},
		{"long number", signed(payload("exp", fill(room, "9"))), fleetkey.ErrInvalidClaims},
	}
}

// L7: the most expensive tokens, in bytes. bench/ measures the time.
func TestLoad_L7_CostOfTheDearestTokens(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256"} {
		s := fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: testkit.Issuer, Algorithm: alg})
		check := func(rows []costly, limit int) {
			for _, row := range rows {
				require.LessOrEqual(t, len(row.token), fleetkey.MaxTokenSize, row.name)
				require.Greater(t, len(row.token), fleetkey.MaxTokenSize*9/10, row.name)
				testkit.Refuses(t, row.want, row.token, s)
				bytes := allocated(func() { _, _ = s.Verify(context.Background(), row.token) })
				assert.LessOrEqual(t, bytes, limit, "%s, %s", alg, row.name)
			}
		}
		check(madeUpAtLimit(s.SigningKey()), 64<<10)
		// Those who can have these signed can also have good ones signed. Most of it
		// is the JSON decoder, which keeps every name and nesting.
		check(signedAtLimit(s.SigningKey()), 1<<20)
	}
}

// allocated returns how many bytes a call of f allocates: the minimum of a few
// calls, since the rest of the process allocates too.
func allocated(f func()) int {
	least := math.MaxInt
	var before, after runtime.MemStats
	for range 5 {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, int(after.TotalAlloc-before.TotalAlloc))
	}
	return least
}
