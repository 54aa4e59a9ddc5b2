package promises

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"time"

	"github.com/fleetkey/fleetkey/tests/testkit"
)

type (
	bundle = testkit.Content
	pair   = testkit.Pair
)

// mentions reports whether a bundle says anything about a kid, and stops whether it says that
// the key must not sign.
func mentions(b *bundle, kid string) bool { return b.Holds(kid) || b.Revoked[kid] }
func stops(b *bundle, kid string) bool    { return b.Revoked[kid] || !b.Retired[kid].IsZero() }

// without returns the bundle as an instance uses it that knows of more revocations: what is
// older than a revoked key that has begun to sign neither signs again nor is trusted for longer.
// A key that was revoked before it began has taken over from none: then the bundle has the key
// that signs now.
func without(b *bundle, revoked map[string]bool, signs *pair, now time.Time, retain time.Duration) *bundle {
	next, until, lost := *b, ends(b, retain), false
	next.Pairs, next.Retired = nil, maps.Clone(b.Retired)
	for _, p := range b.Pairs {
		switch {
		case revoked[p.ID]:
			lost = lost || !p.NotBefore.After(now) && (signs == nil || b.Find(signs.ID) == nil)
		case lost:
			next.Retired[p.ID] = until[p.ID]
		default:
			next.Pairs = append(next.Pairs, p)
		}
	}
	return &next
}

// ends returns until when each fleet key is trusted.
func ends(b *bundle, retain time.Duration) map[string]time.Time {
	ends := maps.Clone(b.Retired)
	var next *pair
	for _, p := range b.Pairs {
		ends[p.ID] = p.NotAfter
		if next != nil && next.NotBefore.Add(retain).Before(p.NotAfter) {
			ends[p.ID] = next.NotBefore.Add(retain)
		}
		next = &p
	}
	return ends
}

// signing returns the key that signs at a time by a clock, and whether that is early.
func signing(b *bundle, now time.Time) (signs *pair, early bool) {
	for i, p := range b.Pairs {
		switch ahead := p.NotBefore.Sub(now); {
		case ahead <= 0 && now.Before(p.NotAfter):
			return &b.Pairs[i], false
		case ahead > 0 && ahead <= 365*testkit.Day:
			signs, early = &b.Pairs[i], true // the last one found begins first
		}
	}
	return signs, early
}

// newPair makes a key as an operator would.
func newPair(alg string, begin, end time.Time) pair {
	return testkit.Read(testkit.Bundle(testkit.NewKey(alg), begin, end)).Pairs[0]
}

func retiredBlock(p pair, until time.Time) string {
	h := map[string]string{"Kid": p.ID, "Until": until.UTC().Truncate(time.Second).Format(time.RFC3339)}
	digest := sha256.Sum256([]byte("Kid: " + h["Kid"] + "\nUntil: " + h["Until"] + "\nAlg: \n"))
	h["Sum"] = hex.EncodeToString(digest[:8])
	return string(pem.EncodeToMemory(&pem.Block{Type: "RETIRED KEY", Headers: h, Bytes: testkit.Must(x509.MarshalPKIXPublicKey(p.Private.Public()))}))
}

func revokedBlock(kid string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "REVOKED KEY", Headers: map[string]string{"Kid": kid},
		Bytes: testkit.Must(base64.RawURLEncoding.DecodeString(kid))}))
}
