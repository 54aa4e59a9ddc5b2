package fleetkey_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
)

// A simModel knows what a fleet should do, and nothing of how it does it: it sees
// the bytes in the store, every token that was signed and every verdict on one,
// all by the true time, and counts what should not have happened.
//
// A token is valid from the moment it was signed until its exp, by the true
// time, unless its key was revoked. It must be refused once exp has passed by
// the leeway and the error of a clock.
type simModel struct {
	f       *simFleet
	changed atomic.Int64 // when the store's content last changed

	mu       sync.Mutex // guards what follows
	version  fleetkey.Version
	previous fleetkey.Version
	contents map[fleetkey.Version][]keyInStore
	keys     map[string]*simKey
	begun    time.Time // the newest NotBefore of a key that has begun
	urgent   time.Time // when the last key came that signed at once
	undone   time.Time // when the last rollback was
	asked    map[string]bool
	byHand   int // Rotate calls, each of which may make one key more
	rolling  bool

	tokens, checks, firsts, announced, rolledBack, mostKeys int
	atOnce                                                  int            // keys that signed at once: the first, and replacements
	wrong, late, revoked                                    int            // rejected wrongly, accepted wrongly
	stale, unready, storm                                   int            // refusals to sign: right, wrong; keys too many
	beyond                                                  map[string]int // rejected, but beyond what a fleet can know
	reasons                                                 map[string]int // of what was wrong
	faults                                                  []string
}

// A simKey is what the model knows of a key.
type simKey struct {
	kid       string
	notBefore time.Time
	published time.Time
	revoked   time.Time // out of the store by Revoke
	lost      time.Time // out of the store by a rollback
	urgent    bool      // the first key, or one that replaces a revoked one
	used      bool
}

// A simToken is one that was signed.
type simToken struct {
	raw     string
	key     *simKey
	at, exp time.Time
	loaded  time.Time     // when its issuer last read the store
	limit   time.Duration // how long its issuer may go without; 0: for ever
}

func newModel(f *simFleet) *simModel {
	return &simModel{f: f, contents: map[fleetkey.Version][]keyInStore{}, keys: map[string]*simKey{},
		asked: map[string]bool{}, beyond: map[string]int{}, reasons: map[string]int{}}
}

func (m *simModel) lastChange() time.Time { return time.Unix(0, m.changed.Load()) }

// fault notes what must not happen in any scenario.
func (m *simModel) fault(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.faults) < 10 {
		m.faults = append(m.faults, time.Now().UTC().Format(time.DateTime)+": "+fmt.Sprintf(format, args...))
	}
}

// content returns the keys of a bundle.
func (m *simModel) content(version fleetkey.Version, bundle []byte) []keyInStore {
	if keys, ok := m.contents[version]; ok {
		return keys
	}
	keys, err := keysInStore(bundle)
	if err != nil {
		panic(err)
	}
	m.contents[version] = keys
	return keys
}

// kidsOf returns the kids of a bundle that an instance has read.
func (m *simModel) kidsOf(version fleetkey.Version, bundle []byte) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var kids []string
	for _, k := range m.content(version, bundle) {
		kids = append(kids, k.kid)
	}
	return kids
}

// observe looks at the store after a write.
func (m *simModel) observe() {
	bundle, version := m.f.cell.Content()
	m.mu.Lock()
	defer m.mu.Unlock()
	if version == m.version || version == "" {
		return
	}
	now := time.Now()
	m.changed.Store(now.UnixNano())
	before, after := m.contents[m.version], m.content(version, bundle)
	m.previous, m.version = m.version, version
	m.mostKeys = max(m.mostKeys, len(after))
	replaces := len(before) == 0
	if replaces {
		m.firsts++
	}
	present := map[string]bool{}
	for _, k := range after {
		present[k.kid] = true
	}
	for _, k := range before {
		if r := m.keys[k.kid]; !present[k.kid] && m.asked[k.kid] {
			r.revoked, replaces = now, true
		} else if !present[k.kid] && m.rolling {
			r.lost, m.undone = now, now
		}
	}
	m.begun = time.Time{}
	for _, k := range after {
		if m.keys[k.kid] != nil && k.signs() && !k.notBefore.After(now.Add(m.f.sc.clocks)) && k.notBefore.After(m.begun) {
			m.begun = k.notBefore
		}
	}
	for _, k := range after {
		if m.keys[k.kid] == nil {
			m.newKey(k, replaces, now)
		}
	}
}

// newKey judges whether a new key was due. The caller holds mu.
func (m *simModel) newKey(k keyInStore, urgent bool, now time.Time) {
	r := &simKey{kid: k.kid, notBefore: k.notBefore, published: now, urgent: urgent}
	m.keys[k.kid] = r
	if urgent {
		m.urgent = now
		m.atOnce++
		return
	}
	m.announced++
	if k.notBefore.Sub(m.begun) < m.f.sc.leastEvery() {
		if m.byHand--; m.byHand < 0 {
			m.byHand = 0
			m.storm++
		}
	}
	m.f.later <- func() { m.f.harass(r) }
}

// issued notes a token. The first one of a key is the moment by which everyone
// has to know the key.
func (m *simModel) issued(in *simInstance, raw string, exp time.Time) *simToken {
	kid := keyIDOf(raw)
	m.mu.Lock()
	m.tokens++
	r := m.keys[kid]
	first := !r.used && !r.urgent && r.lost.IsZero()
	r.used = true
	m.mu.Unlock()
	tok := &simToken{raw: raw, key: r, at: time.Now(), exp: exp, loaded: in.lastLoad(), limit: signsFor(in.policy)}
	if !first {
		return tok
	}
	known, outage := time.Now().Add(-m.f.sc.maxAge()), time.Unix(0, m.f.outage.Load())
	for _, in := range m.f.instances {
		s := in.state(kid)
		// Announce has room for the longest outage, but for no failure right after it.
		longer := outage.After(r.published) && s.failed.After(outage)
		if in.signer.Load() != nil && (s.knows.IsZero() || s.knows.After(known)) && s.started.Before(known) && s.cut.Before(r.published) && !longer {
			m.count(&m.wrong, "published for too short a time")
		}
	}
	return tok
}

func keyIDOf(raw string) string {
	header, _, _ := strings.Cut(raw, ".")
	data, err := base64.RawURLEncoding.DecodeString(header)
	var h struct{ Kid string }
	if err = errors.Join(err, json.Unmarshal(data, &h)); err != nil {
		panic(err)
	}
	return h.Kid
}

// refused notes that an instance did not sign. That is right when it has not
// read the store for so long that its tokens might be refused.
func (m *simModel) refused(in *simInstance, err error) {
	p := in.policy
	limit := p.Rotation.Announce + p.Rotation.Retain - p.MaxTokenTTL - 6*p.ClockSkew
	if p.Rotation.Every > 0 && time.Since(in.lastLoad()) > limit && errors.Is(err, fleetkey.ErrStale) {
		m.count(&m.stale, "")
		return
	}
	m.count(&m.unready, "not signed: "+cause(err))
}

// A simState is what an instance can know at a moment of a key.
type simState struct {
	loaded, started, knows, cut, failed time.Time
}

func (in *simInstance) state(kid string) simState {
	in.mu.Lock()
	defer in.mu.Unlock()
	return simState{in.loaded, in.started, in.knows[kid], time.Unix(0, in.cut.Load()), in.failed}
}

// checked notes a verdict on a token. who is where the verifier's keys come
// from, as of the moment when they came.
func (m *simModel) checked(kind string, tok *simToken, begin time.Time, who simState, reached bool, err error) {
	m.count(&m.checks, "")
	sc, k := m.f.sc, tok.key
	m.mu.Lock()
	revoked, lost, urgent, undone := k.revoked, k.lost, m.urgent, m.undone
	m.mu.Unlock()
	gone := !revoked.IsZero() && !time.Now().Before(revoked)
	switch {
	case err == nil && !begin.Before(tok.exp.Add(sc.policy.ClockSkew+sc.clocks)):
		m.count(&m.late, kind+": accepted after exp")
	case err == nil && gone && (who.loaded.After(revoked.Add(staleFor)) || reached && begin.Sub(revoked) > sc.knownAfter(kind)):
		m.count(&m.revoked, kind+": accepted though revoked")
	case err == nil || gone || !time.Now().Before(tok.exp):
	case !errors.Is(err, fleetkey.ErrUnknownKey) && !errors.Is(err, errUnknownToCache):
		m.count(&m.wrong, kind+": "+cause(err))
	case before(tok.loaded, urgent) && tok.at.Sub(urgent) > sc.policy.Rotation.Retain-sc.policy.MaxTokenTTL-3*sc.policy.ClockSkew:
		m.except("issuer cut off while a key was revoked, for longer than Retain allows")
	case m.mixed(tok):
		m.except("issuer cut off for longer than another policy of the fleet allows")
	case before(who.loaded, undone) && who.cut.After(undone):
		m.except("verifier cut off while a key was rolled back")
	case !who.knows.IsZero() && lost.IsZero():
		m.count(&m.wrong, kind+": "+cause(err))
	case k.urgent && (before(who.loaded, k.published) || begin.Sub(k.published) < sc.knownAfter(kind)):
		m.except("signed with the replacement of a revoked key, not known yet")
	case who.cut.After(k.published) && before(who.loaded, k.published) && begin.Sub(who.loaded) > sc.longestOutage():
		m.except("verifier cut off for longer than Announce allows")
	case !lost.IsZero() && tok.at.Sub(lost) > sc.knownAfter("instance") && before(tok.loaded, lost):
		m.except("issuer cut off while the key was rolled back")
	case !lost.IsZero() && who.started.After(lost):
		m.except("verifier started after the key was rolled back")
	default:
		m.count(&m.wrong, kind+": "+cause(err))
	}
}

// before reports whether a load may not have shown a change of the store.
func before(load, change time.Time) bool {
	return !change.IsZero() && load.Before(change.Add(staleFor))
}

func (m *simModel) revokedAt(k *simKey) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return k.revoked
}

func (m *simModel) count(n *int, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*n++
	if reason != "" {
		m.reasons[reason]++
	}
}

func (m *simModel) except(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beyond[reason]++
}

// cause returns the sentinel that an error matches.
func cause(err error) string {
	for _, sentinel := range []error{fleetkey.ErrUnknownKey, fleetkey.ErrExpired, fleetkey.ErrNotYetValid, fleetkey.ErrBadSignature,
		fleetkey.ErrNoSigningKey, fleetkey.ErrKeyExpired, fleetkey.ErrStale, errUnknownToCache} {
		if errors.Is(err, sentinel) {
			return sentinel.Error()
		}
	}
	return err.Error()
}
