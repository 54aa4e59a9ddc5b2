package fleetkey_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
)

// A simulation is a fleet, its policy, and what happens to it. Times between
// events are means; zero means never.
type simulation struct {
	name      string
	seed      uint64
	instances int
	externals int
	span      time.Duration
	policy    fleetkey.Config
	clocks    time.Duration // how far clocks are off
	changes   []simChange   // of the policy, by rolling deployments

	tokenEvery   time.Duration
	burst        int // tokens around each activation
	restartEvery time.Duration
	cutEvery     time.Duration // of one instance
	floodEvery   time.Duration // of made-up kids
	outage       time.Duration // the longest outage of the whole store
	outageChance float64       // of one as a key is announced
	rotateEvery  time.Duration // by hand
	revokeEvery  time.Duration
	rollBack     float64 // chance that an announcement is rolled back
}

// A simChange is a deployment of another policy, instance by instance: for as long
// as it takes, both are at work.
type simChange struct {
	at, takes time.Duration
	policy    fleetkey.Config
}

func (sc *simulation) maxAge() time.Duration { return cmp.Or(sc.policy.JWKSMaxAge, 15*time.Minute) }

// leastEvery is the least time between two keys that any policy allows.
func (sc *simulation) leastEvery() time.Duration {
	least := sc.policy.Rotation.Every
	for _, c := range sc.changes {
		if every := c.policy.Rotation.Every; least == 0 || every > 0 && every < least {
			least = every
		}
	}
	return least
}

// knownAfter is when everyone who reaches the store has read a change of it,
// with a little for reads that fail, are slow or stale.
func (sc *simulation) knownAfter(kind string) time.Duration {
	d := sc.policy.RefreshEvery + staleFor + 3*time.Minute
	if kind == "external" {
		d += sc.maxAge()
	}
	return d
}

// longestOutage is how long nobody need reach the store, so that no token is
// lost: what Announce leaves.
func (sc *simulation) longestOutage() time.Duration {
	least := sc.policy.Rotation.Announce
	for _, c := range sc.changes {
		least = min(least, c.policy.Rotation.Announce)
	}
	return max(0, least-2*sc.policy.RefreshEvery-2*sc.policy.ClockSkew-sc.maxAge())
}

// staleAfter is when an instance that is cut off stops to sign.
func (sc *simulation) staleAfter() time.Duration {
	p := sc.policy
	return p.Rotation.Announce + p.Rotation.Retain - p.MaxTokenTTL - 2*p.ClockSkew
}

// signsFor is how long exactly an instance signs without the store; 0: for ever.
func signsFor(p fleetkey.Config) time.Duration {
	if p.Rotation.Every == 0 {
		return 0
	}
	return p.Rotation.Announce + p.Rotation.Retain - p.MaxTokenTTL - 3*p.ClockSkew - time.Minute
}

// mixed reports whether a token's issuer had gone without the store for longer than
// another policy allows, while both were at work: its own let it sign, and it could
// not know that others drop keys sooner.
func (m *simModel) mixed(tok *simToken) bool {
	sc, before := m.f.sc, m.f.sc.policy
	for _, c := range sc.changes {
		begun := m.f.end.Add(c.at - sc.span)
		deploying := tok.at.After(begun) && tok.loaded.Before(begun.Add(c.takes+time.Hour))
		for _, p := range []fleetkey.Config{before, c.policy} {
			if limit := signsFor(p); deploying && limit > 0 && limit != tok.limit && tok.at.Sub(tok.loaded) > limit {
				return true
			}
		}
		before = c.policy
	}
	return false
}

// plan schedules what happens without a cause.
func (f *simFleet) plan() {
	sc := f.sc
	any := func() *simInstance { return f.instances[f.rng.IntN(len(f.instances))] }
	f.every(sc.tokenEvery, func() { f.issue(f.pick(), false) })
	f.every(sc.restartEvery, func() { f.restart(any(), f.upTo(6*time.Hour)) })
	f.every(sc.cutEvery, func() { f.cutOff(any(), f.upTo(sc.staleAfter()*13/10)) })
	f.every(sc.floodEvery, func() { f.flood(f.pick(), 20) })
	f.every(sc.rotateEvery, func() { f.operate(func(ctx context.Context, s *fleetkey.Signer) { f.rotate(ctx, s) }) })
	f.every(sc.revokeEvery, func() { f.operate(f.revoke) })
	for _, c := range sc.changes {
		f.after(c.at, func() { f.deploy(c) })
	}
	for passed := year; passed <= sc.span; passed += year {
		f.after(passed, func() { f.t.Logf("%d years", passed/year) })
	}
}

// harass makes the most of a key that was announced just now: what can go wrong
// goes wrong around its first second as the signing key.
func (f *simFleet) harass(k *simKey) {
	sc, skew, refresh := f.sc, f.sc.clocks, f.sc.policy.RefreshEvery
	for i := range sc.burst {
		at := f.between(k.notBefore.Add(-2*skew-time.Second), k.notBefore.Add(2*skew+time.Second))
		if i%3 == 0 {
			at = f.between(k.notBefore, k.notBefore.Add(refresh*5/4))
		}
		f.at(at, func() { f.issue(f.pick(), true) })
	}
	if sc.floodEvery > 0 {
		for range 10 {
			f.at(f.between(k.notBefore.Add(-skew), k.notBefore.Add(skew)), func() { f.flood(f.pick(), 20) })
		}
	}
	if f.chance(sc.outageChance) {
		f.after(f.upTo(refresh/10), f.breakStore)
	}
	if sc.cutEvery > 0 && f.chance(0.5) {
		f.cutOffUnaware(k)
	}
	if f.chance(sc.rollBack) {
		at := f.between(time.Now(), time.Now().Add(time.Hour)) // a mistake soon noticed
		if f.chance(0.7) {
			at = f.between(k.notBefore.Add(-2*refresh), k.notBefore.Add(skew)) // or at the worst moment
		}
		f.at(at, func() { f.model.rollBack(k) })
	}
}

// breakStore makes the store fail for everyone, for as long as it may. Outages
// that follow closely would be one that is longer.
func (f *simFleet) breakStore() {
	now := time.Now()
	if now.Sub(time.Unix(0, f.outage.Load())) > 2*f.sc.policy.Rotation.Announce {
		f.outage.Store(now.Add(f.sc.outage - f.upTo(f.sc.outage/20)).UnixNano())
	}
}

func (f *simFleet) cutOff(in *simInstance, d time.Duration) {
	if until := time.Now().Add(d).UnixNano(); until > in.cut.Load() {
		in.cut.Store(until)
	}
}

// cutOffUnaware cuts off the instance that has read the store last and yet has
// not seen a key, and has it sign up to the last moment that it dares to.
func (f *simFleet) cutOffUnaware(k *simKey) {
	var last *simInstance
	for _, in := range f.instances {
		if in.signer.Load() != nil && in.state(k.kid).knows.IsZero() && (last == nil || in.lastLoad().After(last.lastLoad())) {
			last = in
		}
	}
	if last == nil {
		return
	}
	limit := f.sc.staleAfter()
	f.cutOff(last, limit+time.Hour)
	begin, skew := last.lastLoad(), f.sc.clocks
	for range f.sc.burst {
		f.at(f.between(begin.Add(limit-4*skew), begin.Add(limit+time.Minute)), func() { f.issue(last, true) })
	}
}

func (f *simFleet) restart(in *simInstance, pause time.Duration) {
	f.down(in)
	f.after(pause, func() {
		if in.cancel == nil {
			f.up(in)
		}
	})
}

func (f *simFleet) deploy(c simChange) {
	for i, in := range f.instances {
		f.after(c.takes*time.Duration(i)/time.Duration(len(f.instances)), func() {
			in.policy = c.policy
			f.restart(in, time.Minute)
		})
	}
}

// operate does something by hand on an instance.
func (f *simFleet) operate(do func(context.Context, *fleetkey.Signer)) {
	in := f.pick()
	if in == nil {
		return
	}
	s := in.signer.Load()
	f.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		do(ctx, s)
	})
}

func (f *simFleet) rotate(ctx context.Context, s *fleetkey.Signer) {
	f.model.allowOne()
	_ = s.Rotate(ctx) // may fail, as the store does
}

// revoke revokes one of the keys, mostly the one that signs.
func (f *simFleet) revoke(ctx context.Context, s *fleetkey.Signer) {
	status := s.Status()
	kid := status.SigningKeyID
	if n := time.Now().UnixNano() / 1000 % 10; n < 3 {
		kid = status.Keys[int(n)%len(status.Keys)].KeyID
	}
	bundle, _ := f.cell.Content()
	f.model.ask(kid, true)
	err := s.Revoke(ctx, kid)
	f.model.observe()
	if err != nil {
		f.model.ask(kid, false)
		return
	}
	f.later <- func() { f.abuse(bundle, kid) }
}

// abuse has a thief sign tokens with a revoked key, and tries them for days.
func (f *simFleet) abuse(bundle []byte, kid string) {
	private := fleetkey.PrivateKey(f.t, bundle, kid)
	if private == nil {
		return
	}
	method := jwt.SigningMethod(jwt.SigningMethodES256)
	if _, ok := private.(ed25519.PrivateKey); ok {
		method = jwt.SigningMethodEdDSA
	}
	for range f.sc.burst {
		f.after(f.upTo(2*day), func() {
			exp := time.Now().Add(10 * time.Minute).Truncate(time.Second)
			t := jwt.NewWithClaims(method, jwt.MapClaims{"iss": simIssuer, "aud": simIssuer, "sub": "mallory", "iat": time.Now().Unix(), "exp": exp.Unix()})
			t.Header["kid"], t.Header["typ"] = kid, "at+jwt"
			raw, err := t.SignedString(private)
			if err != nil {
				f.model.fault("the thief cannot sign: %v", err)
				return
			}
			tok := f.model.stolen(raw, kid, exp)
			f.verify(f.pick(), tok)
			f.externals[f.rng.IntN(len(f.externals))].verify(tok)
		})
	}
}

// stolen returns a token that a thief has signed.
func (m *simModel) stolen(raw, kid string, exp time.Time) *simToken {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &simToken{raw: raw, key: m.keys[kid], at: time.Now(), exp: exp, loaded: time.Now()}
}

// allowOne says that an operator may have made a key that was not due.
func (m *simModel) allowOne() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byHand++
}

// ask says that a key is being revoked, or that it has failed.
func (m *simModel) ask(kid string, asked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[kid] = asked
}

// rollBack puts the store's last version back, if the announcement of a key was
// the last change. To roll back a revocation would trust a stolen key again.
func (m *simModel) rollBack(k *simKey) {
	m.mu.Lock()
	previous := m.previous
	had := func(v fleetkey.Version) bool {
		for _, in := range m.contents[v] {
			if in.kid == k.kid {
				return true
			}
		}
		return false
	}
	possible := previous != "" && had(m.version) && !had(previous)
	for _, in := range m.contents[previous] {
		possible = possible && m.keys[in.kid].revoked.IsZero()
	}
	m.rolling = possible
	m.mu.Unlock()
	if !possible {
		return
	}
	m.f.cell.RollBack(previous)
	m.observe()
	m.mu.Lock()
	m.rolling = false
	m.rolledBack++
	m.mu.Unlock()
}
