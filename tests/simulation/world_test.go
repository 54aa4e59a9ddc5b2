package simulation

import (
	"context"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A scenario is a fleet, its policy, and what happens to it. Times between events are
// means; zero means never.
type scenario struct {
	name      string
	seed      uint64
	instances int
	externals int
	span      time.Duration
	policy    fleetkey.Config
	clocks    time.Duration // how far clocks are off
	changes   []change      // of the policy, by rolling deployments

	tokenEvery   time.Duration
	burst        int // tokens around each activation
	restartEvery time.Duration
	cutEvery     time.Duration // of one instance
	outage       time.Duration // the longest outage of the whole store
	outageChance float64       // of an outage when a key is announced
	rotateEvery  time.Duration // by hand
	revokeEvery  time.Duration
	rollBack     float64 // chance that an announcement or a revocation is rolled back
	swapEvery    time.Duration
	sleepEvery   time.Duration // of one instance; some also sleep every night

	// Only a broken world sets these.
	cached time.Duration // for how long clients cache the JWKS; 0: JWKSMaxAge
	lag    time.Duration // how long every read returns the content before a change
	wants  string        // why tokens must be lost
}

// A change is a deployment of another policy, instance by instance. Until it ends, both
// policies are in use.
type change struct {
	at, takes time.Duration
	policy    fleetkey.Config
}

// leastEvery returns the shortest time between two keys that any policy allows.
func (sc *scenario) leastEvery() time.Duration {
	least := sc.policy.Rotation.Every
	for _, c := range sc.changes {
		if every := c.policy.Rotation.Every; least == 0 || every > 0 && every < least {
			least = every
		}
	}
	return least
}

// knownAfter returns how long it takes until everyone who reaches the store has read a
// change, with a margin for reads that fail, are slow or stale.
func (sc *scenario) knownAfter(kind string) time.Duration {
	d := sc.policy.RefreshEvery + staleFor + 3*time.Minute
	if kind == "external" {
		d += sc.policy.JWKSMaxAge
	}
	return d
}

// longestOutage returns how long the store may be unreachable: the rest of Announce.
func (sc *scenario) longestOutage() time.Duration {
	least := sc.policy.Rotation.Announce
	for _, c := range sc.changes {
		least = min(least, c.policy.Rotation.Announce)
	}
	return max(0, least-2*sc.policy.RefreshEvery-2*sc.policy.ClockSkew-sc.policy.JWKSMaxAge)
}

// signsFor returns how long an instance with rotation on signs without the store.
func signsFor(p fleetkey.Config) time.Duration {
	return p.Rotation.Announce + p.Rotation.Retain - p.MaxTokenTTL - 3*p.ClockSkew - time.Minute
}

// plan schedules the events that no other event causes.
func (f *fleet) plan() {
	sc := f.sc
	anyone := func() *instance { return f.instances[f.rng.IntN(len(f.instances))] }
	f.every(sc.tokenEvery, func() { f.issue(f.pick(), false) })
	f.every(sc.restartEvery, func() { f.restart(anyone(), f.upTo(min(6*time.Hour, sc.span/100))) })
	f.every(sc.cutEvery, func() { f.cutOff(anyone(), f.upTo(signsFor(sc.policy)*13/10)) })
	f.every(sc.rotateEvery, func() {
		f.operate(func(ctx context.Context, s *fleetkey.Signer) {
			f.model.note(func(m *model) { m.byHand++ })
			_ = s.Rotate(ctx) // may fail, as the store does
		})
	})
	f.every(sc.revokeEvery, func() { f.operate(f.revoke) })
	f.every(sc.swapEvery, f.swap)
	f.every(sc.sleepEvery, func() { f.sleep(anyone(), f.upTo(min(3*day, sc.span/60))) })
	for i := 4; sc.sleepEvery > 0 && i < len(f.instances); i += 5 {
		f.after(f.upTo(day), func() { f.sleepAtNight(f.instances[i]) })
	}
	for _, c := range sc.changes {
		f.after(c.at, func() { f.deploy(c) })
	}
}

// harass makes things go wrong around the first second in which a newly announced key signs.
func (f *fleet) harass(k *keyState) {
	sc, skew, refresh := f.sc, f.sc.clocks, f.sc.policy.RefreshEvery
	for i := range sc.burst {
		at := f.between(k.notBefore.Add(-2*skew-time.Second), k.notBefore.Add(2*skew+time.Second))
		if i%3 == 0 {
			at = f.between(k.notBefore, k.notBefore.Add(refresh*5/4))
		}
		f.at(at, func() { f.issue(f.pick(), true) })
	}
	if f.chance(sc.outageChance) {
		f.after(f.upTo(refresh/10), f.breakStore)
	}
	if sc.cutEvery > 0 && f.chance(0.5) {
		f.cutOffUnaware(k)
	}
	if f.chance(sc.rollBack) {
		at := f.between(time.Now(), time.Now().Add(time.Hour)) // a mistake that is soon noticed
		if f.chance(0.7) {
			at = f.between(k.notBefore.Add(-2*refresh), k.notBefore.Add(skew)) // or at the worst moment
		}
		f.at(at, func() { f.model.rollBack(k) })
	}
}

// breakStore makes the store fail for everyone, for as long as allowed. Two outages close
// together would be one longer outage.
func (f *fleet) breakStore() {
	now := time.Now()
	if now.Sub(time.Unix(0, f.outage.Load())) > 2*f.sc.policy.Rotation.Announce {
		f.outage.Store(now.Add(f.sc.outage - f.upTo(f.sc.outage/20)).UnixNano())
	}
}

func (f *fleet) cutOff(in *instance, d time.Duration) {
	if until := time.Now().Add(d).UnixNano(); until > in.cut.Load() {
		in.cut.Store(until)
	}
}

// cutOffUnaware cuts off the instance that read the store last without seeing a key, and
// makes it sign until the last moment that its policy allows.
func (f *fleet) cutOffUnaware(k *keyState) {
	var last *instance
	for _, in := range f.instances {
		if in.signer.Load() != nil && in.state(k.id).knows.IsZero() && (last == nil || in.state("").loaded.After(last.state("").loaded)) {
			last = in
		}
	}
	if last == nil {
		return
	}
	limit, skew := signsFor(f.sc.policy), f.sc.clocks
	f.cutOff(last, limit+2*time.Hour)
	begin := last.state("").loaded
	for range f.sc.burst {
		f.at(f.between(begin.Add(limit-3*skew), begin.Add(limit+skew)), func() { f.issue(last, true) })
	}
}

func (f *fleet) restart(in *instance, pause time.Duration) {
	f.down(in)
	f.after(pause, func() {
		if in.cancel == nil {
			f.up(in)
		}
	})
}

func (f *fleet) deploy(c change) {
	for i, in := range f.instances {
		f.after(c.takes*time.Duration(i)/time.Duration(len(f.instances)), func() {
			in.policy = c.policy
			f.restart(in, time.Minute)
		})
	}
}

// operate performs an operator's action on an instance.
func (f *fleet) operate(do func(context.Context, *fleetkey.Signer)) {
	s := f.pick().awake()
	if s == nil {
		return
	}
	f.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), byHand{}, true), 5*time.Minute)
		defer cancel()
		do(ctx, s)
	})
}

// revoke revokes one of the keys, usually the signing key. A thief already has it, and tries
// tokens for days.
func (f *fleet) revoke(ctx context.Context, s *fleetkey.Signer) {
	status := s.Status()
	kid := status.SigningKeyID
	if n := time.Now().UnixNano() / 1000 % 10; n < 3 {
		kid = status.Keys[int(n)%len(status.Keys)].KeyID
	}
	bundle, version := f.cell.Content()
	stolen := testkit.Read(bundle).Find(kid)
	if err := s.Revoke(ctx, kid); err != nil || stolen == nil {
		return
	}
	f.after(0, func() {
		f.abuse(stolen)
		if f.chance(f.sc.rollBack) { // by somebody who does not know better
			f.after(f.upTo(12*time.Hour), func() { f.model.edit(func() { f.cell.RollBack(version) }) })
		}
	})
}

func (f *fleet) abuse(k *testkit.Pair) {
	for range f.sc.burst {
		f.after(f.upTo(2*day), func() {
			now := time.Now()
			exp := now.Add(10 * time.Minute).Truncate(time.Second)
			tok := &token{raw: testkit.Forge(k.Private, k.ID, "at+jwt", now, "exp", exp.Unix()), key: f.model.key(k.ID), at: now, exp: exp, loaded: now}
			f.verify(f.pick(), tok)
			f.externals[f.rng.IntN(len(f.externals))].verify(tok)
		})
	}
}

// edit changes the store directly, without an instance.
func (m *model) edit(do func()) {
	m.note(func(m *model) { m.editing = true })
	do()
	m.observe()
	m.note(func(m *model) { m.editing = false })
}

// rollBack restores the previous version of the store, if the last change announced the key.
func (m *model) rollBack(k *keyState) {
	m.mu.Lock()
	previous := m.previous
	possible := previous != "" && m.contents[m.version].Holds(k.id) && !m.contents[previous].Holds(k.id)
	m.mu.Unlock()
	if possible {
		m.edit(func() { m.f.cell.RollBack(previous) })
	}
}

// swap replaces our bundle with another fleet's.
func (f *fleet) swap() {
	bundle := testkit.ForeignBundle(f.t, f.sc.policy)
	f.model.edit(func() { f.cell.Set(bundle) })
}

// awake returns the Signer of an instance that is up and not suspended, or nil.
func (in *instance) awake() *fleetkey.Signer {
	if in == nil || in.clock.Suspended() {
		return nil
	}
	return in.signer.Load()
}

// sleep suspends an instance. Its first act afterwards is to sign and to verify.
func (f *fleet) sleep(in *instance, d time.Duration) {
	if in.awake() == nil {
		return
	}
	f.cutOff(in, d)
	in.clock.Suspend(d)
	f.after(d, func() { f.issue(in, true) })
}

// sleepAtNight suspends an instance every day.
func (f *fleet) sleepAtNight(in *instance) {
	f.sleep(in, 6*time.Hour+f.upTo(4*time.Hour))
	f.after(day, func() { f.sleepAtNight(in) })
}
