package trust

import (
	"maps"
	"time"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// StaleRead is how long after a change a store may still return the previous content.
const StaleRead = time.Minute

// A Moment is a reading of a machine's two clocks.
type Moment struct {
	Wall      time.Time
	Monotonic time.Duration
}

// lately returns the versions recently replaced by v and its predecessors, and when by the
// monotonic clock, as seen from the version that comes next.
func (v *View) lately(next string, now time.Duration) map[string]time.Duration {
	recent := map[string]time.Duration{}
	maps.Copy(recent, v.replaced)
	maps.DeleteFunc(recent, func(version string, at time.Duration) bool { return version == next || now-at >= StaleRead })
	if v.Version != next && v.Version != "" {
		recent[v.Version] = now
	}
	return recent
}

// IsStale reports whether a version that was read was just replaced, which means that it
// comes from a replica that lags behind. A rollback by an operator lasts longer.
func (v *View) IsStale(version string, now time.Duration) bool {
	at, found := v.replaced[version]
	return found && now-at < StaleRead
}

// keepVanished returns the fleet keys that old trusted, that set does not mention, and
// whose tokens stay valid until they expire: the bundle was exchanged, rolled back or
// truncated. To remove a key, revoke it.
func keepVanished(old *View, set *keyset.Set, now time.Time, p *keyset.Policy) []*Key {
	// Others may sign with a lost key until they have read the new set, too.
	slowest := 2*p.RefreshEvery + 2*p.ClockSkew
	signing, _ := old.Set.Signing(now)
	var kept []*Key
	for _, k := range old.Keys {
		ours := !k.Former && k.IssuedBefore.IsZero()
		// No clock of the fleet has let the key sign yet, so it has no tokens.
		unused := k.Source != nil && k.Source != signing && k.Source.Cert.NotBefore.After(now.Add(slowest))
		if !ours || unused || !k.Trusted(now) || set.Mentions(k.ID) {
			continue
		}
		copied := *k
		copied.Source, copied.Kept = nil, true
		if until := now.Add(p.MaxTokenTTL + slowest); !k.Kept && until.Before(k.Until) {
			copied.Until = until
		}
		kept = append(kept, &copied)
	}
	return kept
}
