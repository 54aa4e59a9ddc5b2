package scale

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// L7: tokens of almost the maximum length that are expensive for a careless reader cost
// little memory. bench/ measures the time.
func TestLoad_L7_CostOfTheDearestTokens(t *testing.T) {
	const room = 11_500 // bytes that one segment can decode to, with two small ones
	fill := func(bytes int, text string) string { return strings.Repeat(text, bytes/len(text)) }
	var members strings.Builder // with different names
	for i := 0; members.Len() < room; i++ {
		fmt.Fprintf(&members, `,"%x":0`, i)
	}
	for _, alg := range []string{"RS256", "ES256"} {
		cfg := testkit.Config()
		cfg.Algorithm = alg
		s := testkit.StartBy(t, func() time.Time { return jwstest.Noon }, fleetkeytest.NewStore(), cfg)
		k := s.SigningKey()
		f := jwstest.Forger{Private: k.Signer, Alg: alg, KID: k.KeyID}
		head := func(text string) string { return jwstest.B64(text) + ".e30.AAAA" }
		parts := strings.Split(f.Forge(f.Header(), jwstest.Payload()), ".")
		check := func(token string, want error, limit int) {
			name := token[:20] + "..." + token[len(token)-40:]
			require.LessOrEqual(t, len(token), fleetkey.MaxTokenSize, name)
			require.Greater(t, len(token), fleetkey.MaxTokenSize*9/10, name)
			testkit.Refuses(t, want, token, s)
			bytes := allocated(func() { _, _ = s.Verify(context.Background(), token) })
			assert.LessOrEqual(t, bytes, limit, "%s, %s, %v", alg, name, want)
		}
		// Anybody can make these up. Some carry the key's kid, none its signature.
		for token, want := range map[string]error{
			fill(fleetkey.MaxTokenSize, "."):                                                   fleetkey.ErrMalformed,
			head(fill(room, `{"alg":`)):                                                        fleetkey.ErrMalformed,
			head("{" + members.String()[1:] + "}"):                                             fleetkey.ErrMalformed,
			head(f.Header("kid", `"`+fill(room, `\u00e9`)+`"`)):                                fleetkey.ErrMalformed,
			parts[0] + "." + fill(4*room/3, "~") + "." + parts[2]:                              fleetkey.ErrMalformed, // not base64url
			parts[0] + "." + jwstest.B64(fill(room, "x")) + "." + parts[2]:                     fleetkey.ErrBadSignature,
			jwstest.B64(f.Header("kid", `"k"`)) + "." + jwstest.B64(fill(room, "x")) + ".AAAA": fleetkey.ErrUnknownKey,
		} {
			check(token, want, 64<<10)
		}
		// Those who can have these signed can also have good ones signed. Most of the cost is
		// the JSON decoder's, which keeps every name and nesting.
		for payload, want := range map[string]error{
			fill(room, "x"):                          fleetkey.ErrMalformed,
			jwstest.Payload("x", fill(room, `{"":`)): fleetkey.ErrMalformed,
			strings.TrimSuffix(jwstest.Payload(), "}") + members.String() + "}": fleetkey.ErrWrongAudience,
			"{" + fill(room, `"iss":"x",`) + `"iss":"x"}`:                       fleetkey.ErrMalformed, // one member many times
			jwstest.Payload("aud", `["x"`+fill(room, `,"x"`)+"]"):               fleetkey.ErrWrongAudience,
			jwstest.Payload("sub", `"`+fill(room, `\u00e9`)+`"`):                fleetkey.ErrWrongAudience,
			jwstest.Payload("exp", fill(room, "9")):                             fleetkey.ErrInvalidClaims,
		} {
			check(f.Forge(f.Header(), payload), want, 1<<20)
		}
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
