// Package tokencache remembers what verified tokens say, since a server sees the same
// access token with every request of a session. It knows strings, values and times,
// and nothing about tokens or keys.
package tokencache

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"
)

// A Cache remembers a value for each text. A nil Cache remembers nothing.
//
// It is a hash table of small sets whose slots are atomic pointers, so that readers
// neither lock nor allocate. A value is found by its whole text, never by a digest
// alone. A new entry takes, in its set, the place of the one seen least. So a flood
// of texts that are seen once displaces itself and nothing else; one whose texts are
// seen again displaces those that are seen less than twice while it lasts.
//
// All methods may be called at the same time.
type Cache[V any] struct {
	seed maphash.Seed // secret, so that nobody can aim at one set
	sets [][ways]atomic.Pointer[entry[V]]
}

// An entry never changes, except for the count of how often it was seen again.
type entry[V any] struct {
	hash        uint64 // of text, to pass over most others without reading them
	text        string
	value       V
	from, until time.Time
	seen        atomic.Int32
}

const (
	ways = 8
	// maxSeen is where the count ends: after that a hit only reads, and what is no
	// longer used is forgotten soon.
	maxSeen = 3
	// maxText is the longest text, in bytes, that is remembered: it bounds the
	// memory of a cache by its number of entries.
	maxText = 4 << 10
)

// New returns a cache for about so many entries, or nil if entries is not positive.
func New[V any](entries int) *Cache[V] {
	if entries <= 0 {
		return nil
	}
	return &Cache[V]{seed: maphash.MakeSeed(), sets: make([][ways]atomic.Pointer[entry[V]], (entries+ways-1)/ways)}
}

// set returns the slots where a text may be, and its hash.
func (c *Cache[V]) set(text string) (*[ways]atomic.Pointer[entry[V]], uint64) {
	hash := maphash.String(c.seed, text)
	return &c.sets[hash%uint64(len(c.sets))], hash
}

// Find returns the value remembered for a text if it is valid now.
func (c *Cache[V]) Find(text string, now time.Time) (value V, ok bool) {
	if c == nil || len(text) > maxText {
		return value, false
	}
	set, hash := c.set(text)
	for i := range set {
		if e := set[i].Load(); e != nil && e.hash == hash && e.text == text {
			if n := e.seen.Load(); n < maxSeen { // a lost count does no harm
				e.seen.Store(n + 1)
			}
			if now.Before(e.from) || !now.Before(e.until) {
				return value, false
			}
			return e.value, true
		}
	}
	return value, false
}

// Add remembers a value that is valid from a time until another. Of two that meet in
// one slot one is forgotten.
func (c *Cache[V]) Add(text string, value V, from, until, now time.Time) {
	if c == nil || len(text) > maxText {
		return
	}
	set, hash := c.set(text)
	e := &entry[V]{hash: hash, text: strings.Clone(text), value: value, from: from, until: until} // text may be a part of a larger string
	var victim *atomic.Pointer[entry[V]]
	least := int32(maxSeen + 1)
	for i := range uint64(ways) {
		slot := &set[(hash>>32+i)%ways] // from anywhere, so that equals take turns
		old := slot.Load()
		if old == nil || !now.Before(old.until) || old.text == text {
			slot.Store(e)
			return
		}
		if n := old.seen.Load(); n < least {
			victim, least = slot, n
		}
	}
	if least > 0 { // all are in use: they have to earn their place again
		for i := range set {
			if old := set[i].Load(); old != nil {
				old.seen.Add(-1)
			}
		}
	}
	victim.Store(e)
}
