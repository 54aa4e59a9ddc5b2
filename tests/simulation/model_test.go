package simulation

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A model knows what a fleet should do, and nothing about how. It sees the bytes in the
// store, every token that was signed and every verdict on one, all by the true time, and
// counts what should not have happened.
//
// A token is valid from the moment it was signed until its exp, by the true time, unless
// its key was revoked. It must be rejected once exp has passed by the leeway and the
// error of a clock.
type model struct {
	f       *fleet
	changed atomic.Int64 // when the store's content last changed

	mu                sync.Mutex // guards the fields below
	version, previous fleetkey.Version
	contents          map[fleetkey.Version]*testkit.Content
	keys              map[string]*keyState
	begun             time.Time // the newest NotBefore of a key that has begun
	urgent            time.Time // when the last key that signed at once appeared
	undone            time.Time // when the last rollback or exchange happened
	byHand            int       // Rotate calls, each of which may create one more key
	editing           bool      // an operator edits the store

	tokens, checks, firsts, announced, mostKeys int
	atOnce                                      int            // keys that signed at once: the first, and replacements
	stale                                       int            // refusals to sign that were justified
	wrong                                       map[string]int // what should not have happened
	beyond                                      map[string]int // rejected, but beyond what a fleet can know
}

// A keyState is what the model knows about a key.
type keyState struct {
	id        string
	notBefore time.Time
	published time.Time
	revoked   time.Time // removed from the store by Revoke, or by an instance that wrote the revocation back
	returned  time.Time // when a rollback or exchange made the store lose the revocation
	lost      time.Time // first removed from the store by a rollback or exchange
	urgent    bool      // nobody announced it: the first key, or one that replaces others at once
	used      bool
}

type token struct {
	raw      string
	key      *keyState
	at, exp  time.Time
	loaded   time.Time         // when its issuer last read the store
	rotation fleetkey.Rotation // of its issuer
}

// knowledge is what an instance can know about a key at a moment.
type knowledge struct {
	loaded, started, knows, cut, failed time.Time
	revoked                             map[string]time.Time
}

func (m *model) lastChange() time.Time { return time.Unix(0, m.changed.Load()) }

// note calls do with the model locked.
func (m *model) note(do func(*model)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do(m)
}

// content reads a bundle. mu must be held.
func (m *model) content(version fleetkey.Version, bundle []byte) *testkit.Content {
	if m.contents[version] == nil {
		m.contents[version] = testkit.Read(bundle)
	}
	return m.contents[version]
}

func (m *model) key(kid string) (k *keyState) {
	m.note(func(m *model) { k = m.keys[kid] })
	return k
}

// observe looks at the store after a write.
func (m *model) observe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	bundle, version := m.f.cell.Content() // with the lock held, so that nobody observes an older one later
	if version == m.version || version == "" {
		return
	}
	now := time.Now()
	m.changed.Store(now.UnixNano())
	before, next := m.contents[m.version], m.content(version, bundle)
	m.previous, m.version = m.version, version
	m.mostKeys = max(m.mostKeys, len(next.Kids()))
	replaces := before.Bad != "" || m.editing
	if before.Bad != "" {
		m.firsts++
	}
	for _, kid := range before.Kids() {
		switch r := m.keys[kid]; {
		case next.Holds(kid):
		case next.Revoked[kid]:
			r.revoked, replaces = now, true
		case m.editing:
			if m.undone = now; r.lost.IsZero() {
				r.lost = now
			}
		}
	}
	for kid, r := range m.keys {
		switch said := next.Revoked[kid]; {
		case m.editing && !said && !r.revoked.IsZero():
			r.returned = now
		case said && (r.revoked.IsZero() || r.returned.After(r.revoked)): // also one that the store had lost
			r.revoked = now
		}
	}
	m.begun = time.Time{}
	for _, k := range next.Pairs {
		if m.keys[k.ID] != nil && !k.NotBefore.After(now.Add(m.f.sc.clocks)) && k.NotBefore.After(m.begun) {
			m.begun = k.NotBefore
		}
	}
	for _, k := range next.Pairs {
		if m.keys[k.ID] == nil {
			m.newKey(k, replaces, now)
		}
	}
}

// newKey judges whether a new key was due. mu must be held.
func (m *model) newKey(k testkit.Pair, urgent bool, now time.Time) {
	r := &keyState{id: k.ID, notBefore: k.NotBefore, published: now, urgent: urgent}
	m.keys[k.ID] = r
	if urgent {
		m.urgent = now
		m.atOnce++
		return
	}
	m.announced++
	if k.NotBefore.Sub(m.begun) < m.f.sc.leastEvery() {
		if m.byHand--; m.byHand < 0 {
			m.byHand = 0
			m.wrong["a key that was not due"]++
		}
	}
	if now.Before(m.f.end) {
		m.f.after(0, func() { m.f.harass(r) })
	}
}

// issued records a token. Everyone must know a key by the time of its first token.
func (m *model) issued(in *instance, raw string, exp time.Time) *token {
	kid := testkit.KeyID(raw)
	m.mu.Lock()
	m.tokens++
	r := m.keys[kid]
	first := !r.used && !r.urgent && r.lost.IsZero() && r.revoked.IsZero()
	r.used = true
	m.mu.Unlock()
	tok := &token{raw: raw, key: r, at: time.Now(), exp: exp, loaded: in.state("").loaded, rotation: in.policy.Rotation}
	if !first {
		return tok
	}
	known, outage := time.Now().Add(-m.f.sc.policy.JWKSMaxAge), time.Unix(0, m.f.outage.Load())
	for _, in := range m.f.instances {
		s := in.state(kid)
		// Announce covers the longest outage, but no failure right after it.
		longer := outage.After(r.published) && s.failed.After(outage)
		if in.signer.Load() != nil && (s.knows.IsZero() || s.knows.After(known)) && s.started.Before(known) && s.cut.Before(r.published) && !longer {
			m.count(m.wrong, "published for too short a time")
		}
	}
	return tok
}

// refused records that an instance did not sign. That is justified if it has not read the
// store for so long that its tokens might be rejected.
func (m *model) refused(in *instance, err error) {
	limit := signsFor(in.policy) - 3*in.policy.ClockSkew
	if in.policy.Rotation.Every > 0 && time.Since(in.state("").loaded) > limit && errors.Is(err, fleetkey.ErrStale) {
		m.note(func(m *model) { m.stale++ })
		return
	}
	m.count(m.wrong, "not signed: "+cause(err))
}

// checked records a verdict on a token. who is the knowledge of the instance from which the
// verifier got its keys, at that moment.
func (m *model) checked(kind string, tok *token, begin time.Time, who knowledge, source *instance, err error) {
	sc, k := m.f.sc, tok.key
	m.mu.Lock()
	m.checks++
	revoked, returned, lost, urgent, undone := k.revoked, k.returned, k.lost, m.urgent, m.undone
	m.mu.Unlock()
	gone, outage := !revoked.IsZero() && !time.Now().Before(revoked), time.Unix(0, m.f.outage.Load())
	switch {
	case err == nil && !begin.Before(tok.exp.Add(sc.policy.ClockSkew+sc.clocks)):
		m.count(m.wrong, kind+": accepted after exp")
	case err == nil && !who.revoked[k.id].IsZero() && who.revoked[k.id].Before(begin): // regardless of later changes of the store
		m.count(m.wrong, kind+": accepted though known to be revoked")
	case err == nil && gone && returned.Before(revoked) && (who.loaded.After(revoked.Add(staleFor)) || source.reached(revoked) && begin.Sub(revoked) > sc.knownAfter(kind)):
		m.count(m.wrong, kind+": accepted though revoked")
	case err == nil || gone || !time.Now().Before(tok.exp):
	case !errors.Is(err, fleetkey.ErrUnknownKey) && !errors.Is(err, errNotCached):
		m.count(m.wrong, kind+": "+cause(err))
	case before(tok.loaded, urgent) && tok.at.Sub(urgent) > sc.policy.Rotation.Retain-sc.policy.MaxTokenTTL-3*sc.policy.ClockSkew:
		m.count(m.beyond, "issuer cut off while a key was replaced at once, for longer than Retain allows")
	case m.mixed(tok):
		m.count(m.beyond, "issuer cut off for longer than another policy of the fleet allows")
	case before(who.loaded, undone) && who.cut.After(undone):
		m.count(m.beyond, "verifier cut off while keys were rolled back or exchanged")
	case !who.knows.IsZero() && lost.IsZero():
		m.count(m.wrong, kind+": "+cause(err))
	case k.urgent && (before(who.loaded, k.published) || begin.Sub(k.published) < sc.knownAfter(kind)):
		m.count(m.beyond, "signed with a key that nobody could announce, not known yet")
	case who.cut.After(k.published) && before(who.loaded, k.published) && begin.Sub(who.loaded) > sc.longestOutage():
		m.count(m.beyond, "verifier cut off for longer than Announce allows")
	case !lost.IsZero() && tok.at.Sub(lost) > sc.knownAfter("instance") && before(tok.loaded, lost):
		m.count(m.beyond, "issuer cut off while its key was rolled back or exchanged")
	case !lost.IsZero() && who.started.After(lost):
		m.count(m.beyond, "verifier started after the key was rolled back or exchanged")
	case !lost.IsZero() && who.knows.IsZero() && (who.cut.After(k.published) || outage.After(k.published) || lost.Sub(k.published) < sc.knownAfter(kind)):
		m.count(m.beyond, "key rolled back or exchanged before the verifier could read it")
	default:
		m.count(m.wrong, kind+": "+cause(err))
	}
}

// mixed reports whether a token's issuer had gone without the store for longer than another
// policy allows, while both were in use. Its own policy let it sign, and it could not know
// that others drop keys sooner. This includes a policy without rotation: its Retain ends the
// trust in the keys from earlier rotations.
func (m *model) mixed(tok *token) bool {
	sc, before := m.f.sc, m.f.sc.policy
	for _, c := range sc.changes {
		begun := m.f.end.Add(c.at - sc.span)
		deploying := tok.at.After(begun) && tok.loaded.Before(begun.Add(c.takes+time.Hour))
		for _, p := range []fleetkey.Config{before, c.policy} {
			if deploying && p.Rotation != tok.rotation && tok.at.Sub(tok.loaded) > signsFor(p) {
				return true
			}
		}
		before = c.policy
	}
	return false
}

// before reports whether a load may have missed a change of the store.
func before(load, change time.Time) bool {
	return !change.IsZero() && load.Before(change.Add(staleFor))
}

func (m *model) count(n map[string]int, reason string) { m.note(func(*model) { n[reason]++ }) }

// cause returns the sentinel that an error matches.
func cause(err error) string {
	for _, sentinel := range []error{fleetkey.ErrUnknownKey, fleetkey.ErrExpired, fleetkey.ErrNotYetValid, fleetkey.ErrBadSignature,
		fleetkey.ErrNoSigningKey, fleetkey.ErrKeyExpired, fleetkey.ErrStale, errNotCached, fleetkey.ErrInvalidClaims} {
		if errors.Is(err, sentinel) {
			return sentinel.Error()
		}
	}
	return err.Error()
}
