package simulation

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A fleet is real Signers on one store, in the virtual time of a synctest bubble. Events are
// timers that run one at a time and make all random choices, except for the faults of the
// stores: each instance chooses those with a separate source.
type fleet struct {
	t         *testing.T
	sc        *scenario
	rng       *rand.Rand
	end       time.Time // of the simulated span
	cell      *fleetkeytest.Store
	model     *model
	instances []*instance
	externals []*external
	keySets   map[string]map[string]any // parsed JWKS by ETag, shared by the externals
	getJWKS   *http.Request
	acting    sync.Mutex     // held by an event, which owns rng, externals, keySets and each instance's cancel
	outage    atomic.Int64   // end of the current or last outage of the whole store
	running   sync.WaitGroup // events to come, and goroutines of the fleet
}

// An instance is one server of the fleet: a clock, a connection to the store and, while it is
// up, a Signer.
type instance struct {
	f      *fleet
	id     int
	store  *fleetkeytest.Store
	cut    atomic.Int64 // until then this instance alone cannot reach the store
	signer atomic.Pointer[fleetkey.Signer]
	clock  testkit.Clock
	offset time.Duration // of its wall clock; changes with a restart only
	policy fleetkey.Config
	cancel context.CancelFunc // ends the start; nil: down

	mu      sync.Mutex // guards the fields below
	rng     *rand.Rand
	started time.Time
	loaded  time.Time            // start of the last successful load
	version fleetkey.Version     // that it returned
	knows   map[string]time.Time // kid: since when
	revoked map[string]time.Time // kid: when this process first read that it is revoked
	failed  time.Time            // when the last load failed
}

// run simulates a scenario and returns what the model has seen. Events that were scheduled
// before the end still happen.
func (sc *scenario) run(t *testing.T) *model {
	f := &fleet{t: t, sc: sc, rng: rand.New(rand.NewPCG(sc.seed, 0)), end: time.Now().Add(sc.span), cell: fleetkeytest.NewStore(),
		keySets: map[string]map[string]any{}, getJWKS: httptest.NewRequest("GET", fleetkey.JWKSPath, nil)}
	f.model = &model{f: f, contents: map[fleetkey.Version]*testkit.Content{"": testkit.Read(nil)}, keys: map[string]*keyState{},
		beyond: map[string]int{}, wrong: map[string]int{}}
	f.acting.Lock()
	for i := range sc.instances {
		in := &instance{f: f, id: i, store: f.cell.Open(), rng: rand.New(rand.NewPCG(sc.seed, uint64(i)+1)), policy: sc.policy}
		in.store.SetHook(in.fault)
		f.instances = append(f.instances, in)
		f.up(in) // all at once
	}
	f.externals = newExternals(f)
	f.plan()
	f.acting.Unlock()
	f.running.Wait()
	for _, in := range f.instances {
		f.down(in)
	}
	return f.model
}

// up starts an instance, with a different clock than before.
func (f *fleet) up(in *instance) {
	skew := f.sc.clocks
	switch {
	case in.id < 2: // there is always a slowest and a fastest clock
		in.offset = skew * time.Duration(2*in.id-1)
	default:
		in.offset = time.Duration((2*f.rng.Float64() - 1) * float64(skew))
	}
	in.clock.Set(in.offset)
	cfg := in.policy
	in.mu.Lock()
	in.knows, in.revoked = map[string]time.Time{}, map[string]time.Time{}
	in.mu.Unlock()
	ctx, cancel := context.WithCancel(clock.With(context.Background(), &in.clock))
	in.cancel = cancel
	f.running.Go(func() {
		s, err := fleetkey.NewSigner(ctx, in, cfg)
		switch {
		case err == nil && ctx.Err() != nil: // stopped since
			_ = s.Close()
		case err == nil:
			in.mu.Lock()
			in.started = time.Now()
			in.mu.Unlock()
			in.signer.Store(s)
			if ctx.Err() != nil && in.signer.CompareAndSwap(s, nil) {
				_ = s.Close()
			}
		case ctx.Err() == nil:
			f.t.Errorf("an instance did not start: %v", err)
		}
	})
}

func (f *fleet) down(in *instance) {
	if in.cancel == nil {
		return
	}
	in.cancel()
	in.cancel = nil
	if s := in.signer.Swap(nil); s != nil {
		_ = s.Close()
	}
}

// byHand marks the context of an operator's change. The instance adopts what the change reads
// when the change ends. Such a read does not make the instance less stale.
type byHand struct{}

// Load implements fleetkey.KeyStore, observed by the model.
func (in *instance) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	begin := time.Now()
	data, version, err := in.store.Load(ctx)
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case err != nil:
		in.failed = time.Now()
		return nil, "", err
	case ctx.Value(byHand{}) == nil:
		in.loaded = begin
		in.learn(version, data)
	}
	return data, version, nil
}

// Save implements fleetkey.KeyStore, observed by the model.
func (in *instance) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	version, err := in.store.Save(ctx, bundle, prev)
	in.f.model.observe() // also after an error: the reply may have been lost
	if err == nil {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.learn(version, bundle)
	}
	return version, err
}

// learn notes what an instance has read or saved. mu must be held.
func (in *instance) learn(version fleetkey.Version, bundle []byte) {
	if in.version == version && len(in.knows) > 0 {
		return
	}
	in.version = version
	in.f.model.note(func(m *model) {
		content := m.content(version, bundle)
		for _, kid := range content.Kids() {
			if in.knows[kid].IsZero() {
				in.knows[kid] = time.Now()
			}
		}
		in.revoked = maps.Clone(in.revoked) // others share the map
		for kid := range content.Revoked {
			if in.revoked[kid].IsZero() {
				in.revoked[kid] = time.Now()
			}
		}
	})
}

func (in *instance) state(kid string) knowledge {
	in.mu.Lock()
	defer in.mu.Unlock()
	return knowledge{in.loaded, in.started, in.knows[kid], time.Unix(0, in.cut.Load()), in.failed, in.revoked}
}

// reached reports whether an instance could reach the store at all times since then.
func (in *instance) reached(since time.Time) bool {
	at := since.UnixNano()
	return in.cut.Load() < at && in.f.outage.Load() < at
}

// fault is the store's hook: what happens to one call of this instance.
func (in *instance) fault(call fleetkeytest.Call) fleetkeytest.Fault {
	in.mu.Lock()
	defer in.mu.Unlock()
	now, r := time.Now(), in.rng.Float64()
	some := func(longest time.Duration) time.Duration { return time.Duration(in.rng.Float64() * float64(longest)) }
	if at := now.UnixNano(); at < in.cut.Load() || at < in.f.outage.Load() {
		if r < 0.3 { // no answer at all
			return fleetkeytest.Fault{Delay: time.Hour, Err: fleetkey.ErrUnavailable}
		}
		return fleetkeytest.Fault{Delay: some(5 * time.Second), Err: fleetkey.ErrUnavailable}
	}
	changed := now.Sub(in.f.model.lastChange())
	switch {
	case changed < in.f.sc.lag && in.f.end.Sub(now) < in.f.sc.span-day: // once all have started
		return fleetkeytest.Fault{Stale: 1}
	case r < 0.005: // throttled
		return fleetkeytest.Fault{Err: fmt.Errorf("%w: throttled", fleetkey.ErrUnavailable)}
	case r < 0.02:
		return fleetkeytest.Fault{Delay: some(5 * time.Second)}
	case r < 0.12 && call.Op == fleetkeytest.OpSave: // the reply is lost
		return fleetkeytest.Fault{Delay: some(time.Second), Err: fleetkey.ErrUnavailable, Stored: true}
	case r < 0.3 && call.Op == fleetkeytest.OpSave:
		return fleetkeytest.Fault{Delay: some(5 * time.Second)}
	case r < 0.3 && changed < staleFor && in.f.end.Sub(now) < in.f.sc.span-time.Minute: // an empty store ends a start
		return fleetkeytest.Fault{Stale: 1}
	}
	return fleetkeytest.Fault{}
}

// staleFor is how long after a change a read may still return the old content.
const staleFor = 30 * time.Second

// pick returns an instance that is up, often one with an extreme clock, or nil.
func (f *fleet) pick() *instance {
	var found *instance
	extreme := f.rng.IntN(3) - 1 // -1: the slowest of some, 1: the fastest, 0: any
	for range 6 {
		in := f.instances[f.rng.IntN(len(f.instances))]
		if in.awake() == nil {
			continue
		}
		if found == nil || time.Duration(extreme)*in.offset > time.Duration(extreme)*found.offset {
			found = in
		}
		if extreme == 0 {
			break
		}
	}
	return found
}

// between returns a uniformly random time in a span.
func (f *fleet) between(from, to time.Time) time.Time {
	return from.Add(time.Duration(f.rng.Float64() * float64(to.Sub(from))))
}

// after schedules an event, unless all tokens will have expired by then.
func (f *fleet) after(d time.Duration, do func()) {
	if time.Now().Add(d).After(f.end.Add(f.sc.policy.MaxTokenTTL + 2*time.Hour)) {
		return
	}
	f.running.Add(1)
	time.AfterFunc(d, func() {
		defer f.running.Done()
		f.acting.Lock()
		defer f.acting.Unlock()
		do()
	})
}

// at schedules an event at a time that may have passed.
func (f *fleet) at(at time.Time, do func()) { f.after(time.Until(at), do) }
func (f *fleet) chance(p float64) bool      { return f.rng.Float64() < p }
func (f *fleet) upTo(d time.Duration) time.Duration {
	return time.Duration(f.rng.Float64() * float64(d))
}

// every schedules an event again and again until the end, at random intervals
// of a mean length. Zero: never.
func (f *fleet) every(mean time.Duration, do func()) {
	if mean == 0 {
		return
	}
	at := time.Now().Add(time.Duration(f.rng.ExpFloat64() * float64(mean)))
	if at.Before(f.end) {
		f.at(at, func() { do(); f.every(mean, do) })
	}
}
