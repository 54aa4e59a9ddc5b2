package simulation

import (
	"encoding/pem"
	"slices"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A content is what a bundle says.
type content struct {
	keys    []testkit.Key
	revoked []string
}

// content reads a bundle. mu must be held.
func (m *model) content(version fleetkey.Version, bundle []byte) content {
	if c, ok := m.contents[version]; ok {
		return c
	}
	keys, err := testkit.Keys(bundle)
	if err != nil {
		panic(err)
	}
	c := content{keys: keys}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "REVOKED KEY" {
			c.revoked = append(c.revoked, block.Headers["Kid"])
		}
	}
	m.contents[version] = c
	return c
}

// edit does something to the store behind the back of the fleet.
func (m *model) edit(do func()) {
	m.note(func(m *model) { m.editing = true })
	do()
	m.f.look()
	m.note(func(m *model) { m.editing = false })
}

// rollBack puts the store's last version back, if the announcement of a key was the last
// change.
func (m *model) rollBack(k *keyState) {
	m.mu.Lock()
	previous := m.previous
	had := func(v fleetkey.Version) bool {
		return slices.ContainsFunc(m.contents[v].keys, func(in testkit.Key) bool { return in.ID == k.id })
	}
	possible := previous != "" && had(m.version) && !had(previous)
	m.mu.Unlock()
	if possible {
		m.edit(func() { m.f.cell.RollBack(previous) })
	}
}

// swap puts the bundle of another fleet in the place of ours.
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
