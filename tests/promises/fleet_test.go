package promises

import (
	"context"
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
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
	log          testkit.LogBuffer

	mu        sync.Mutex // guards what follows
	step      string
	verdict   string // the first broken promise
	contents  map[fleetkey.Version]*bundle
	versions  []fleetkey.Version
	keys      map[string]pair // whose private half was ever seen
	kids      []string
	published map[string]string // every kid of a JWKS, to its key
	disturbed string            // what has ended the time when tokens are valid everywhere
	tokens    []*token
	said      strings.Builder // errors and answers
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
		f.machines[i] = &machine{fleet: f, began: time.Now(), old: fleetkeytest.NewStore()}
		old := newPair("ES256", time.Now().Add(-30*day), time.Now().Add(3600*day))
		f.machines[i].own = old
		f.machines[i].old.Set([]byte(old.text))
		f.learn(&bundle{pairs: []pair{old}})
	}
	a, b, c := newKey("ES256"), newKey("EdDSA"), newKey("ES256")
	for _, begin := range []time.Time{time.Now().Add(-400 * day), time.Now().Add(-day)} {
		cert := newCertificate(a, begin, begin.Add(7300*day))
		f.formers = append(f.formers, former{a, fleetkey.Former{Certificate: cert}, namesOf(cert), testkit.Issuer})
	}
	f.formers = append(f.formers,
		former{b, fleetkey.Former{Key: b.Public(), KeyID: "legacy"}, []string{"legacy"}, testkit.Issuer},
		former{c, fleetkey.Former{Key: c.Public(), KeyID: "other", Issuer: oldIssuer}, []string{"other"}, oldIssuer},
		former{c, fleetkey.Former{Key: c.Public(), KeyID: "legacy"}, []string{"legacy"}, testkit.Issuer}, // two keys, one name
		former{f.machines[0].own.private, fleetkey.Former{Key: f.machines[0].own.private.Public(), KeyID: "brought"}, []string{"brought"}, testkit.Issuer})
	if h.First > 0 {
		first := newPair([]string{"ES256", "ES384", "EdDSA"}[h.First-1], time.Now().Add(-30*day), time.Now().Add(3600*day))
		f.put(first.text)
	}
	return f
}

// namesOf returns the kids that other systems derive from a certificate.
func namesOf(cert *x509.Certificate) []string {
	short, long := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
	upper := strings.ToUpper(hex.EncodeToString(short[:]))
	return []string{thumbprint(cert.PublicKey), base64.RawURLEncoding.EncodeToString(short[:]), base64.RawURLEncoding.EncodeToString(long[:]),
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
	b := read(text)
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
	for _, p := range b.pairs {
		if _, known := f.keys[p.kid]; !known {
			f.keys[p.kid] = p
			f.kids = append(f.kids, p.kid)
		}
	}
}

func (f *fleet) content() *bundle {
	data, _ := f.cell.Content()
	if data == nil {
		return &bundle{bad: "absent"}
	}
	return read(string(data))
}

func (f *fleet) policyIndex() int { return f.policyNumber }

func (f *fleet) disturb(why string) {
	if f.disturbed == "" {
		f.disturbed = why
	}
}

func (f *fleet) running() (all []*instance) {
	for _, m := range f.machines {
		if m.in != nil {
			all = append(all, m.in)
		}
	}
	return all
}

// A machine has clocks of its own, a way to the store, and a store of keys from before
// the fleet. It runs one instance at a time.
type machine struct {
	fleet *fleet
	fault atomic.Int32
	in    *instance
	old   *fleetkeytest.Store
	own   pair
	since time.Time // when it joined the fleet with its own key

	mu     sync.Mutex // guards what follows
	began  time.Time
	offset time.Duration // of the wall clock
	lost   time.Duration // by the monotonic clock, while suspended
	asleep time.Time
}

// Now implements clock.Clock.
func (m *machine) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.offset)
}

// Monotonic implements clock.Clock.
func (m *machine) Monotonic() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := time.Now()
	if !m.asleep.IsZero() {
		until = m.asleep
	}
	return until.Sub(m.began) - m.lost
}

func (m *machine) set(offset time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offset = offset
}

func (m *machine) suspend(d time.Duration) {
	fault := m.fault.Swap(unavailable)
	m.mu.Lock()
	m.asleep = time.Now()
	m.mu.Unlock()
	time.Sleep(d)
	m.mu.Lock()
	m.asleep, m.lost = time.Time{}, m.lost+d
	m.mu.Unlock()
	m.fault.Store(fault)
}

// The ways in which a store can fail for a machine.
const (
	healthy = iota
	slow
	flaky
	lostReplies
	unavailable
	lagging
	readOnly
	faults
)

// heals reports whether a call that tries again gets through a fault.
func (m *machine) heals() bool { return m.fault.Load() <= lostReplies }

func (m *machine) hook(c fleetkeytest.Call) (fault fleetkeytest.Fault) {
	save := c.Op == fleetkeytest.OpSave
	switch m.fault.Load() {
	case slow:
		fault.Delay = 3 * time.Second
	case flaky:
		if c.N%2 == 1 {
			fault.Err = fleetkey.ErrUnavailable
		}
	case lostReplies:
		fault = testkit.LoseReply(c)
	case unavailable:
		fault.Err = fleetkey.ErrUnavailable
	case lagging:
		fault.Stale = 1
	case readOnly:
		if save {
			fault.Err = fleetkey.ErrAccessDenied
		}
	}
	return fault
}

// start runs an instance with a configuration. It reports a failure to start.
func (m *machine) start(cfg fleetkey.Config) error {
	f := m.fleet
	cfg.Issuer, cfg.Logger = testkit.Issuer, slog.New(slog.NewTextHandler(&f.log, nil))
	in := &instance{machine: m, cfg: cfg, revoked: map[string]bool{}, seen: map[string]bool{},
		until: map[string]time.Time{}, moved: map[fleetkey.Version]time.Duration{}}
	way := f.cell.Open()
	way.SetHook(m.hook)
	ctx, cancel := context.WithTimeout(clock.With(context.Background(), m), 3*time.Minute)
	defer cancel()
	in.joined = m.Now()
	s, err := fleetkey.NewSigner(ctx, &port{way, in}, cfg)
	if err != nil {
		return err
	}
	in.started.Store(true)
	in.signer, in.way, m.in = s, way, in
	if cfg.Adopt != nil && m.since.IsZero() {
		m.since = in.joined
	}
	return nil
}

func (m *machine) stop() {
	if m.in != nil {
		_ = m.in.signer.Close()
		m.in = nil
	}
}

// A port is an instance's way to the store. It tells the model what goes through.
type port struct {
	*fleetkeytest.Store
	in *instance
}

// Load implements fleetkey.KeyStore.
func (p *port) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	var begun moment // of a load by the refresher, which counts for ErrStale
	if p.in.operated.Load() == 0 {
		begun = moment{p.in.machine.Now(), p.in.machine.Monotonic()}
	}
	data, v, err := p.Store.Load(ctx)
	if err == nil {
		b := p.in.machine.fleet.bundle(v, data)
		p.in.read(b, v, begun)
	}
	return data, v, err
}

// Save implements fleetkey.KeyStore.
func (p *port) Save(ctx context.Context, data []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	f, b := p.in.machine.fleet, read(string(data))
	p.in.judgeSave(b, prev)
	f.learn(b)
	v, err := p.Store.Save(ctx, data, prev)
	if err == nil {
		f.saw(v, b)
		p.in.read(b, v, moment{})
	}
	return v, err
}

// bundle returns what a version holds.
func (f *fleet) bundle(v fleetkey.Version, data []byte) *bundle {
	f.mu.Lock()
	b := f.contents[v]
	f.mu.Unlock()
	if b == nil {
		b = read(string(data))
		f.saw(v, b)
	}
	return b
}
