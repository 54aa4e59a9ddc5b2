package promises

import (
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const (
	day       = testkit.Day
	oldIssuer = "https://old.example"
)

type (
	bundle = testkit.Content
	pair   = testkit.Pair
)

// A fleet is the world of one history: machines, a store, operators and thieves.
type fleet struct {
	policy       fleetkey.Config // of the fleet; instances can deviate from it
	policyNumber int
	cell         *fleetkeytest.Store
	machines     [3]*machine
	formers      []former

	mu        sync.Mutex // guards the fields below
	step      string
	verdict   string // the first broken promise
	contents  map[fleetkey.Version]*bundle
	versions  []fleetkey.Version
	keys      []pair            // every key whose private half was seen, oldest first
	published map[string]string // every published kid, to its key
	tokens    []*token
}

// A former is a key of another system.
type former struct {
	private crypto.Signer
	cfg     fleetkey.Former
	names   []string
	issuer  string
}

func newFleet(h history) *fleet {
	f := &fleet{policy: policies[h.Policy], policyNumber: h.Policy, cell: fleetkeytest.NewStore(), contents: map[fleetkey.Version]*bundle{},
		published: map[string]string{}}
	for i := range f.machines {
		f.machines[i] = &machine{fleet: f, old: fleetkeytest.NewStore()}
		old, stolen := newPair("ES256", time.Now().Add(-30*day), time.Now().Add(3600*day)), newPair("ES256", time.Now().Add(-31*day), time.Now().Add(3600*day))
		f.machines[i].own = old
		f.machines[i].old.Set([]byte(old.Text + revokedBlock(stolen.ID)))
		f.learn(&bundle{Pairs: []pair{old, stolen}})
	}
	a, b, c := testkit.NewKey("ES256"), testkit.NewKey("EdDSA"), testkit.NewKey("ES256")
	expired := testkit.Certificate(a, time.Now().Add(-400*day), time.Now().Add(-day))
	renewed := testkit.Certificate(a, time.Now().Add(-day), time.Now().Add(3600*day))
	f.formers = append(f.formers,
		former{a, fleetkey.Former{Certificate: expired, Until: renewed.NotAfter}, namesOf(expired), testkit.Issuer},
		former{a, fleetkey.Former{Certificate: renewed}, namesOf(renewed), testkit.Issuer},
		former{b, fleetkey.Former{Key: b.Public(), KeyID: "legacy"}, []string{"legacy"}, testkit.Issuer},
		former{c, fleetkey.Former{Key: c.Public(), KeyID: "other", Issuer: oldIssuer}, []string{"other"}, oldIssuer},
		former{c, fleetkey.Former{Key: c.Public(), KeyID: "legacy"}, []string{"legacy"}, testkit.Issuer}, // two keys, one name
		former{f.machines[0].own.Private, fleetkey.Former{Key: f.machines[0].own.Private.Public(), KeyID: "brought"}, []string{"brought"}, testkit.Issuer})
	if h.First > 0 {
		first := newPair([]string{"ES256", "ES384", "EdDSA"}[h.First-1], time.Now().Add(-30*day), time.Now().Add(3600*day))
		f.put(first.Text)
	}
	return f
}

// namesOf returns the kids that other systems derive from a certificate.
func namesOf(cert *x509.Certificate) []string {
	short, long := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
	upper := strings.ToUpper(hex.EncodeToString(short[:]))
	return []string{testkit.Thumbprint(cert.PublicKey), base64.RawURLEncoding.EncodeToString(short[:]), base64.RawURLEncoding.EncodeToString(long[:]),
		upper, upper + "ES256", strings.ToLower(upper)}
}

// breaks records the first promise that was broken.
func (f *fleet) breaks(promise, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.verdict == "" {
		f.verdict = fmt.Sprintf("%s after %s: ", promise, f.step) + fmt.Sprintf(format, args...)
	}
}

// put changes the store by hand.
func (f *fleet) put(text string) {
	b := testkit.Read([]byte(text))
	f.saw(f.cell.Set([]byte(text)), b)
	f.learn(b)
}

func (f *fleet) saw(v fleetkey.Version, b *bundle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.contents[v] == nil {
		f.versions = append(f.versions, v)
	}
	f.contents[v] = b
}

// learn remembers private keys, as a thief would.
func (f *fleet) learn(b *bundle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range b.Pairs {
		if !slices.ContainsFunc(f.keys, func(k pair) bool { return k.ID == p.ID }) {
			f.keys = append(f.keys, p)
		}
	}
}

// stolen returns every private key that the store has ever held, oldest first. A load caused
// by a verification can add more at the same time.
func (f *fleet) stolen() []pair {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.keys)
}

// key returns the key with a kid, or nil.
func (f *fleet) key(kid string) *pair { return (&bundle{Pairs: f.stolen()}).Find(kid) }

func (f *fleet) content() *bundle {
	data, _ := f.cell.Content()
	if data == nil {
		return &bundle{Bad: "absent"}
	}
	return testkit.Read(data)
}

func (f *fleet) running() (all []*instance) {
	for _, m := range f.machines {
		if m.in != nil {
			all = append(all, m.in)
		}
	}
	return all
}

// bundle returns what a version holds.
func (f *fleet) bundle(v fleetkey.Version, data []byte) *bundle {
	f.mu.Lock()
	b := f.contents[v]
	f.mu.Unlock()
	if b == nil {
		b = testkit.Read(data)
		f.saw(v, b)
	}
	return b
}

// mentions reports whether a bundle mentions a kid, and stops whether it says that the key
// must not sign.
func mentions(b *bundle, kid string) bool { return b.Holds(kid) || b.Revoked[kid] }
func stops(b *bundle, kid string) bool    { return b.Revoked[kid] || !b.Retired[kid].IsZero() }

// without returns the bundle as it is used by an instance that knows more revocations. Keys
// older than a revoked key that has begun to sign do not sign again, and are not trusted for
// longer. A key that was revoked before it began has replaced none: then the bundle contains
// the current signing key.
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

// ends returns when the trust in each fleet key ends.
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

// signing returns the key that signs at a time, and whether it signs before its NotBefore.
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
