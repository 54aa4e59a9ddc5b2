package promises

import (
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
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

// A fleet is the world of one history: machines, a store, operators and thieves.
type fleet struct {
	policy       fleetkey.Config // of the fleet; a history can deviate from it
	policyNumber int
	cell         *fleetkeytest.Store
	machines     [3]*machine
	formers      []former

	mu        sync.Mutex // guards what follows
	step      string
	verdict   string // the first broken promise
	contents  map[fleetkey.Version]*bundle
	versions  []fleetkey.Version
	keys      map[string]pair // whose private half was ever seen
	kids      []string
	published map[string]string // every kid of a JWKS, to its key
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
		keys: map[string]pair{}, published: map[string]string{}}
	for i := range f.machines {
		f.machines[i] = &machine{fleet: f, old: fleetkeytest.NewStore()}
		old, stolen := newPair("ES256", time.Now().Add(-30*day), time.Now().Add(3600*day)), newPair("ES256", time.Now().Add(-31*day), time.Now().Add(3600*day))
		f.machines[i].own = old
		f.machines[i].old.Set([]byte(old.Text + revokedBlock(stolen.ID)))
		f.learn(&bundle{Pairs: []pair{old, stolen}})
	}
	a, b, c := testkit.NewKey("ES256"), testkit.NewKey("EdDSA"), testkit.NewKey("ES256")
	for _, begin := range []time.Time{time.Now().Add(-400 * day), time.Now().Add(-day)} {
		cert := testkit.Certificate(a, begin, begin.Add(7300*day))
		f.formers = append(f.formers, former{a, fleetkey.Former{Certificate: cert}, namesOf(cert), testkit.Issuer})
	}
	f.formers = append(f.formers,
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

// breaks notes the first promise that was broken.
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
		if _, known := f.keys[p.ID]; !known {
			f.keys[p.ID] = p
			f.kids = append(f.kids, p.ID)
		}
	}
}

// stolen returns every private key that the store has ever held, oldest first. A load that
// a verification has caused may learn of more at the same time.
func (f *fleet) stolen() (all []pair) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, kid := range f.kids {
		all = append(all, f.keys[kid])
	}
	return all
}

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
