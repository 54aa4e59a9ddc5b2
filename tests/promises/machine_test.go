package promises

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A machine has its own clocks, a connection to the store, and a store with its keys from
// before the fleet. It runs one instance at a time.
type machine struct {
	testkit.Clock
	fleet *fleet
	fault atomic.Int32
	in    *instance
	old   *fleetkeytest.Store
	own   pair
	since time.Time // when it joined the fleet with its own key
}

func (m *machine) suspend(d time.Duration) {
	fault := m.fault.Swap(unavailable)
	m.Suspend(d)
	time.Sleep(d)
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

// heals reports whether a call that is repeated gets past the fault.
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

// start runs an instance with a configuration. It returns the error of a failed start.
func (m *machine) start(cfg fleetkey.Config, mounted bool) error {
	f := m.fleet
	cfg.Issuer, cfg.Logger = testkit.Issuer, slog.New(slog.DiscardHandler)
	in := &instance{machine: m, cfg: cfg, mounted: mounted, revoked: map[string]bool{}, seen: map[string]bool{},
		until: map[string]time.Time{}, moved: map[fleetkey.Version]time.Duration{}}
	way := f.cell.Open()
	way.SetHook(m.hook)
	ctx, cancel := context.WithTimeout(clock.With(context.Background(), m), 3*time.Minute)
	defer cancel()
	joined := m.Now()
	s, err := fleetkey.NewSigner(ctx, &port{way, in}, cfg)
	if err != nil {
		return err
	}
	in.started.Store(true)
	in.signer, in.way, m.in = s, way, in
	if cfg.Adopt != nil && m.since.IsZero() {
		m.since = joined
	}
	return nil
}

func (m *machine) stop() {
	if m.in != nil {
		_ = m.in.signer.Close()
		m.in = nil
	}
}

// A port is an instance's connection to the store. It reports to the model what passes.
type port struct {
	*fleetkeytest.Store
	in *instance
}

// ReadOnly reports whether only others write the store.
func (p *port) ReadOnly() bool { return p.in.mounted }

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
	f, b := p.in.machine.fleet, testkit.Read(data)
	p.in.judgeSave(b, prev)
	f.learn(b)
	v, err := p.Store.Save(ctx, data, prev)
	if err == nil {
		f.saw(v, b)
		p.in.read(b, v, moment{})
	}
	return v, err
}
