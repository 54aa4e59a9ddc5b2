package fleetkey_test

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
)

// L7: what the dearest tokens cost that are as long as a token may be. Here it
// is bytes; bench/ has the time.

// A costly token has a shape that a careless reader pays for.
type costly struct {
	name, token string
	want        error
}

// fill repeats a text to so many bytes, or a few less.
func fill(bytes int, text string) string { return strings.Repeat(text, bytes/len(text)) }

// members are JSON members of so many bytes in all, each with another name.
func members(bytes int) string {
	var b strings.Builder
	for i := 0; b.Len() < bytes; i++ {
		fmt.Fprintf(&b, `,"%x":0`, i)
	}
	return b.String()[1:]
}

// madeUpAtLimit returns tokens that anybody can make up: some carry p's kid, and
// none a signature of it.
func madeUpAtLimit(p *party) []costly {
	const room = 11_900 // bytes that one segment of a token can decode to, beside two small ones
	parts := strings.Split(p.good(), ".")
	header := func(text string) string { return b64(text) + ".e30.AAAA" }
	kid := func(text string) string { return header(`{"alg":"` + p.alg + `","typ":"at+jwt","kid":"` + text + `"}`) }
	stranger := b64(p.header("kid", `"`+strings.Repeat("k", 128)+`"`))
	return []costly{
		{"dots", fill(fleetkey.MaxTokenSize, "."), fleetkey.ErrMalformed},
		{"one segment", fill(fleetkey.MaxTokenSize, "A"), fleetkey.ErrMalformed},
		{"three long segments", fill(5_400, "A") + "." + fill(5_400, "A") + "." + fill(5_400, "A"), fleetkey.ErrMalformed},
		{"header: no JSON", header(fill(room, "x")), fleetkey.ErrMalformed},
		{"header: blanks", header("{" + fill(room, " ") + "}"), fleetkey.ErrMalformed},
		{"header: nested arrays", header(`{"alg":` + fill(room-10, "[")), fleetkey.ErrMalformed},
		{"header: nested objects", header(fill(room, `{"alg":`)), fleetkey.ErrMalformed},
		{"header: many members", header("{" + members(room-10) + "}"), fleetkey.ErrMalformed},
		{"header: one member many times", header("{" + fill(room-20, `"alg":"x",`) + `"alg":"x"}`), fleetkey.ErrMalformed},
		{"header: long kid", kid(fill(room-60, "k")), fleetkey.ErrMalformed},
		{"header: long kid of escapes", kid(fill(room-60, `\u00e9`)), fleetkey.ErrMalformed},
		{"unknown kid, long payload", stranger + "." + b64(fill(room-200, "x")) + ".AAAA", fleetkey.ErrUnknownKey},
		{"unknown kid, long signature", stranger + ".e30." + b64(fill(room-200, "x")), fleetkey.ErrUnknownKey},
		{"payload: no base64url", parts[0] + "." + fill(4*room/3-600, "~") + "." + parts[2], fleetkey.ErrMalformed},
		{"wrong signature, long payload", parts[0] + "." + b64(fill(room-500, "x")) + "." + parts[2], fleetkey.ErrBadSignature},
		{"long signature", parts[0] + "." + parts[1] + "." + b64(fill(room-300, "x")), fleetkey.ErrBadSignature},
	}
}

// signedAtLimit returns tokens that a key of the fleet has signed, or one of
// another system that the fleet trusts.
func signedAtLimit(p *party) []costly {
	const room = 11_500
	sign := func(payload string) string { return p.sign(p.header(), payload) }
	open := strings.TrimSuffix(payload(), "}") + ","
	return []costly{
		{"no JSON", sign(fill(room, "x")), fleetkey.ErrMalformed},
		{"nested arrays", sign(open + `"x":` + fill(room, "[")), fleetkey.ErrMalformed},
		{"nested objects", sign(open + `"x":` + fill(room, `{"":`)), fleetkey.ErrMalformed},
		{"many members, wrong audience", sign(strings.TrimSuffix(payload("aud", `"x"`), "}") + "," + members(room) + "}"), fleetkey.ErrWrongAudience},
		{"one member many times", sign("{" + fill(room, `"iss":"x",`) + `"iss":"x"}`), fleetkey.ErrMalformed},
		{"audience of many", sign(payload("aud", `["x"`+fill(room, `,"x"`)+"]")), fleetkey.ErrWrongAudience},
		{"scope of many", sign(payload("aud", `"x"`, "scope", `["x"`+fill(room, `,"x"`)+"]")), fleetkey.ErrWrongAudience},
		{"long audience", sign(payload("aud", `"`+fill(room, "\u200b")+`"`)), fleetkey.ErrWrongAudience},
		{"audience of some, long", sign(payload("aud", `["`+fill(room/3, "\u200b")+`","`+fill(room/3, "\u200b")+`","`+fill(room/3, "\u200b")+`"]`)), fleetkey.ErrWrongAudience},
		{"long issuer", sign(payload("iss", `"`+fill(room, "\u200b")+`"`)), fleetkey.ErrWrongIssuer},
		{"long issuer of escapes", sign(payload("iss", `"`+fill(room, `\u0001`)+`"`)), fleetkey.ErrWrongIssuer},
		{"long subject of escapes", sign(payload("aud", `"x"`, "sub", `"`+fill(room, `\u00e9`)+`"`)), fleetkey.ErrWrongAudience},
		{"long number", sign(payload("exp", fill(room, "9"))), fleetkey.ErrInvalidClaims},
		{"long fraction", sign(payload("exp", "0."+fill(room, "9"))), fleetkey.ErrExpired},
	}
}

func TestLoad_L7_CostOfTheDearestTokens(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256"} {
		p := newParty(t, alg)
		check := func(rows []costly, limit int) {
			for _, row := range rows {
				require.LessOrEqual(t, len(row.token), fleetkey.MaxTokenSize, row.name)
				require.Greater(t, len(row.token), fleetkey.MaxTokenSize*9/10, row.name)
				checkRefused(t, p, hostile(row))
				bytes := allocated(func() { _, _ = p.Verify(context.Background(), row.token) })
				assert.LessOrEqual(t, bytes, limit, "%s, %s", alg, row.name)
				t.Logf("%s: %6d bytes: %s", alg, bytes, row.name)
			}
		}
		check(madeUpAtLimit(p), 64<<10)
		// Whoever can have these signed can also have good ones signed, and it is
		// the JSON decoder that takes most: it keeps every name and nesting.
		check(signedAtLimit(p), 1<<20)
	}
}

// allocated returns how many bytes a call of f allocates: the least of some, since
// others in the process allocate too.
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
