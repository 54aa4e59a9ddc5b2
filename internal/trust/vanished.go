package trust

import (
	"slices"
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

// A replaced version is no longer current.
type replaced struct {
	version string
	at      time.Duration // by the monotonic clock
}

// lately returns the versions recently replaced by v and its predecessors, as seen from the
// version that comes next.
func (v *View) lately(next string, now time.Duration) []replaced {
	var recent []replaced
	for _, r := range v.replaced {
		if now-r.at < StaleRead && r.version != next {
			recent = append(recent, r)
		}
	}
	if v.Version != next && v.Version != "" {
		recent = append(recent, replaced{v.Version, now})
	}
	return recent
}

// IsStale reports whether a version that was read was just replaced, which means that it
// comes from a replica that lags behind. A rollback by an operator lasts longer.
func (v *View) IsStale(version string, now time.Duration) bool {
	return slices.ContainsFunc(v.replaced, func(r replaced) bool {
		return r.version == version && now-r.at < StaleRead
	})
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
