package promises

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// An instance is a running Signer, and what it can know according to the model.
type instance struct {
	machine  *machine
	cfg      fleetkey.Config
	signer   *fleetkey.Signer
	started  atomic.Bool
	operated atomic.Int32 // running operations by hand
	way      *fleetkeytest.Store
	formers  []int // of fleet.formers, in its configuration
	mounted  bool  // its store is read-only

	mu      sync.Mutex // guards the fields below
	revoked map[string]bool
	set     *bundle              // that it uses
	version fleetkey.Version     // that it read last
	until   map[string]time.Time // by kid, how long its tokens must be accepted
	seen    map[string]bool      // kids that any bundle has mentioned
	moved   map[fleetkey.Version]time.Duration
	loaded  moment // start of the last successful load
	doubt   bool   // it is unclear whether the instance uses what it read last
}

// A moment is the reading of a machine's clocks.
type moment struct {
	wall      time.Time
	monotonic time.Duration
}

// A token is one that an instance has issued.
type token struct {
	raw, kid string
	exp      time.Time
	iat      time.Time // by the issuer's clock
	ttl      time.Duration
	old      bool
}

// read notes what an instance has read or, if begun is zero, saved.
func (in *instance) read(b *bundle, v fleetkey.Version, begun moment) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if b.Bad != "" {
		return
	}
	for kid := range b.Revoked {
		in.revoked[kid] = true
	}
	for _, kid := range b.Kids() {
		in.seen[kid] = true
	}
	mono := in.machine.Monotonic()
	if begun.wall.IsZero() { // a save is not a load
		begun = in.loaded
	}
	in.loaded = begun
	if v == in.version {
		in.doubt = false
		in.prune()
		return
	}
	if at, ok := in.moved[v]; ok && mono-at < time.Minute+time.Second {
		in.doubt = true // a stale read, or a rollback that looks like one
		return
	}
	if in.version != "" {
		in.moved[in.version] = mono
	}
	in.version, in.doubt = v, false
	in.take(b)
}

// take applies P3: a set that cannot sign is rejected while the current one can, unless it
// stops the signing key.
func (in *instance) take(b *bundle) {
	now, retain := in.machine.Now(), in.cfg.Rotation.Retain
	var signs *pair
	if in.set != nil {
		in.set = without(in.set, in.revoked, nil, now, retain)
		signs, _ = signing(in.set, now)
	}
	next := without(b, in.revoked, signs, now, retain)
	if can, _ := signing(next, now); can == nil && signs != nil && !stops(b, signs.ID) {
		return
	}
	b = next
	until := ends(b, retain)
	for kid, end := range in.until { // a key that vanished is trusted while its tokens can live
		lives := now.Add(in.cfg.MaxTokenTTL)
		key := in.set.Find(kid) // a save that met a conflict may have used another certificate of it
		if key == nil {
			key = in.machine.fleet.key(kid)
		}
		if key == nil || mentions(b, kid) || !end.After(now) || key.NotBefore.After(now) {
			continue
		}
		if end.Before(lives) {
			lives = end
		}
		until[kid] = lives
	}
	in.set, in.until = b, until
}

// prune forgets keys that have expired by the clock: a clock that moves back need not revive them.
func (in *instance) prune() {
	now := in.machine.Now()
	maps.DeleteFunc(in.until, func(kid string, end time.Time) bool { return !end.After(now) && !mentions(in.set, kid) })
}

// jumped says that the clock was moved.
func (in *instance) jumped() {
	in.mu.Lock()
	defer in.mu.Unlock()
	maps.DeleteFunc(in.until, func(kid string, _ time.Time) bool { return !mentions(in.set, kid) })
}

func (in *instance) setDoubt() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.doubt = true
}

// trusts reports whether the instance must accept tokens of a kid.
func (in *instance) trusts(kid string, now time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return !in.doubt && !in.revoked[kid] && in.until[kid].After(now)
}

func (in *instance) knowsRevoked(kid string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.revoked[kid]
}

// mayBeStale reports whether the store was unreachable for so long that the instance may
// refuse to sign.
func (in *instance) mayBeStale(now time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.cfg
	limit := max(c.Rotation.Announce+c.Rotation.Retain-c.MaxTokenTTL-3*c.ClockSkew-time.Minute, 2*c.RefreshEvery)
	age := max(in.machine.Monotonic()-in.loaded.monotonic, now.Sub(in.loaded.wall))
	return c.Rotation.Every > 0 && age >= limit-time.Second
}

// judgeSave judges what an instance is about to write.
func (in *instance) judgeSave(next *bundle, prev fleetkey.Version) {
	f, now, cfg := in.machine.fleet, in.machine.Now(), in.cfg
	f.mu.Lock()
	before := f.contents[prev]
	f.mu.Unlock()
	in.mu.Lock()
	revoked := maps.Clone(in.revoked)
	in.mu.Unlock()
	if next.Bad != "" {
		f.breaks("readable", "saved a bundle that cannot be read: %s", next.Bad)
	}
	switch running := in.started.Load(); {
	case in.mounted:
		f.breaks("P6", "a write to a read-only store")
		return
	case prev == "" && running:
		f.breaks("never created again", "a running instance creates a bundle")
		return
	case prev == "" && cfg.MustExist:
		f.breaks("never created", "an instance creates a bundle although MustExist is set")
		return
	case prev == "":
		if k, _ := signing(next, now); k == nil || cfg.Adopt == nil && k.NotBefore.After(now.Add(-time.Hour)) {
			f.breaks("P4", "the first key is not backdated")
		}
		return
	case !running:
		f.breaks("P5a", "an instance that starts writes over a bundle")
	case before == nil || before.Bad != "":
		f.breaks("readable", "an instance writes over what it cannot read")
		return
	}
	for kid := range before.Revoked {
		if !next.Revoked[kid] {
			f.breaks("P2", "the revocation of %s was dropped", kid)
		}
	}
	for kid := range revoked {
		if !next.Revoked[kid] {
			f.breaks("P2", "a write leaves out the revocation of %s, which the store has lost", kid)
		}
	}
	algs, fresh := map[string]bool{}, 0
	for _, p := range before.Pairs {
		algs[p.Alg] = true
	}
	for _, p := range next.Pairs {
		if before.Find(p.ID) != nil {
			continue
		}
		fresh++
		if cfg.Algorithm == "" && len(algs) > 0 && !algs[p.Alg] || cfg.Algorithm != "" && p.Alg != cfg.Algorithm {
			f.breaks("P7", "a key of %v gets a successor for %s", algs, p.Alg)
		}
	}
	if fresh > 1 {
		f.breaks("P5", "one write makes %d keys", fresh)
	}
	signed, early := signing(before, now)
	if k, _ := signing(next, now); k != nil && signed != nil && !early && k.NotBefore.Before(signed.NotBefore) && before.Find(k.ID) != nil {
		f.breaks("P4", "a write lets the retired key %s sign again", k.ID)
	}
	// A trusted key stays trusted for as long as tokens can live.
	after, lives := ends(next, cfg.Rotation.Retain), now.Add(cfg.MaxTokenTTL)
	for kid, end := range ends(before, cfg.Rotation.Retain) {
		if end.After(lives) {
			end = lives
		}
		if key := f.key(kid); end.After(now) && (key == nil || !key.NotBefore.After(now)) && !next.Revoked[kid] && !revoked[kid] && after[kid].Before(end) {
			f.breaks("P4", "a write shortens the trust in %s from %v to %v, now %v", kid, end, after[kid], now)
		}
	}
}
