package trust

import (
	"slices"
	"time"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// StaleRead is how long after a change a store may still show what was before.
const StaleRead = time.Minute

// A Moment is the reading of a machine's two clocks.
type Moment struct {
	Wall      time.Time
	Monotonic time.Duration
}

// A replaced version is one whose place another has taken.
type replaced struct {
	version string
	at      time.Duration // by the monotonic clock
}

// lately returns the versions that v and those before it have moved on from, as seen
// by the version that comes next.
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

// IsStale reports whether a version that was read is one that this instance has just
// moved on from: a replica of the store has not heard of the newest yet. What an
// operator rolls back lasts longer.
func (v *View) IsStale(version string, now time.Duration) bool {
	return slices.ContainsFunc(v.replaced, func(r replaced) bool {
		return r.version == version && now-r.at < StaleRead
	})
}

// keepVanished returns the keys that old trusted, that set lacks, and whose tokens
// nevertheless stay good for as long as they can live. That is the case when the loss
// looks like an accident: the whole bundle was exchanged for a foreign one, or rolled
// back to an older one, after which another instance may have announced a key. A key
// is gone at once if it was revoked, or taken out of a set that still has a newer one
// of before.
func keepVanished(old *View, set *keyset.Set, now time.Time, p *keyset.Policy) []*Key {
	known := func(k *keyset.Key) bool { return old.Set.Find(k.ID) != nil }
	foreign, revoked := !slices.ContainsFunc(set.Keys, known), set.Revoked()
	// Others may sign with a lost key until they have read that, too.
	slowest := 2*p.RefreshEvery + 2*p.ClockSkew
	var kept []*Key
	for _, k := range old.Keys {
		rolledBack := k.Source.Private != nil && !slices.ContainsFunc(set.Keys, func(other *keyset.Key) bool {
			ours := other.Private != nil || other.IsRetired()
			return ours && known(other) && other.Cert.NotBefore.After(k.Cert.NotBefore)
		})
		// No clock of the fleet has let it sign yet, so there are no tokens.
		unused := k.Cert.NotBefore.After(now.Add(slowest))
		if set.Find(k.ID) != nil || !k.Trusted(now) || unused || slices.Contains(revoked, k.ID) {
			continue
		}
		switch {
		case k.Kept:
			kept = append(kept, k)
		case foreign || rolledBack:
			kept = append(kept, k.keep(now.Add(p.MaxTokenTTL+slowest)))
		}
	}
	return kept
}

// keep returns a copy that only verifies, until a time or the end of k's trust.
func (k *Key) keep(until time.Time) *Key {
	kept, source := *k, *k.Source
	source.Private = nil
	kept.Source, kept.Kept = &source, true
	if until.Before(k.Until) {
		kept.Until = until
	}
	return &kept
}
