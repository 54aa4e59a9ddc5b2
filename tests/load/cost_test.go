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

// fill repeats a text up to a number of bytes.
func fill(bytes int, text string) string { return strings.Repeat(text, bytes/len(text)) }

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
func madeUpAtLimit(k fleetkey.SigningKey) map[string]error {
	const room = 11_900 // bytes that one segment can decode to, beside two small ones
	parts := strings.Split(sign(k, payload()), ".")
	head := func(text string) string { return b64(text) + ".e30.AAAA" }
	stranger := b64(strings.Replace(header(k), k.KeyID, strings.Repeat("k", 128), 1))
	escapes := `{"alg":"` + k.Algorithm + `","typ":"at+jwt","kid":"` + fill(room-60, `\u00e9`) + `"}`
	return map[string]error{
		fill(fleetkey.MaxTokenSize, "."):                           fleetkey.ErrMalformed,
		head(fill(room, `{"alg":`)):                                fleetkey.ErrMalformed,
		head("{" + members(room-10) + "}"):                         fleetkey.ErrMalformed,
		head(escapes):                                              fleetkey.ErrMalformed,
		stranger + "." + b64(fill(room-200, "x")) + ".AAAA":        fleetkey.ErrUnknownKey,
		parts[0] + "." + fill(4*room/3-600, "~") + "." + parts[2]:  fleetkey.ErrMalformed, // not base64url
		parts[0] + "." + b64(fill(room-500, "x")) + "." + parts[2]: fleetkey.ErrBadSignature,
	}
}

// signedAtLimit returns tokens that a key of the fleet has signed, or a key of
// another system that the fleet trusts.
func signedAtLimit(k fleetkey.SigningKey) map[string]error {
	const room = 11_500
	open := func(payload string) string { return strings.TrimSuffix(payload, "}") + "," }
	signed := map[string]error{}
	for payload, want := range map[string]error{
		fill(room, "x"): fleetkey.ErrMalformed,
		open(payload()) + `"x":` + fill(room, `{"":`):              fleetkey.ErrMalformed,
		open(payload("aud", `"x"`)) + members(room) + "}":          fleetkey.ErrWrongAudience,
		"{" + fill(room, `"iss":"x",`) + `"iss":"x"}`:              fleetkey.ErrMalformed, // one member many times
		payload("aud", `["x"`+fill(room, `,"x"`)+"]"):              fleetkey.ErrWrongAudience,
		payload("iss", `"`+fill(room, "\u200b")+`"`):               fleetkey.ErrWrongIssuer,
		payload("aud", `"x"`, "sub", `"`+fill(room, `\u00e9`)+`"`): fleetkey.ErrWrongAudience,
		payload("exp", fill(room, "9")):                            fleetkey.ErrInvalidClaims,
	} {
		signed[sign(k, payload)] = want
	}
	return signed
}

// L7: tokens almost as long as a token may be, and expensive to read for a careless reader.
// They cost few bytes. bench/ measures the time.
func TestLoad_L7_CostOfTheDearestTokens(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256"} {
		s := fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: testkit.Issuer, Algorithm: alg})
		check := func(tokens map[string]error, limit int) {
			for token, want := range tokens {
				name := token[:20] + "..." + token[len(token)-40:]
				require.LessOrEqual(t, len(token), fleetkey.MaxTokenSize, name)
				require.Greater(t, len(token), fleetkey.MaxTokenSize*9/10, name)
				testkit.Refuses(t, want, token, s)
				bytes := allocated(func() { _, _ = s.Verify(context.Background(), token) })
				assert.LessOrEqual(t, bytes, limit, "%s, %s, %v", alg, name, want)
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
