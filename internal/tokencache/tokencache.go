// Package tokencache caches the content of verified tokens, since a server sees the same
// access token with every request of a session. It deals in strings, values and times, and
// knows nothing about tokens or keys.
package tokencache

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Cache maps texts to values. A nil Cache is always empty.
//
// It is a hash table of small sets whose slots are atomic pointers, so readers neither lock
// nor allocate. A value is found by its whole text, never by a digest alone. A new entry
// replaces the least-used entry of its set, or several if it needs their room. So a flood
// of texts that are seen once displaces only itself; one whose texts are seen again
// displaces entries that are seen less than twice while it lasts.
//
// All methods are safe for concurrent use.
type Cache[V any] struct {
	seed maphash.Seed // secret, so that nobody can target one set
	sets []set[V]
}

// A set is one cache line.
type set[V any] struct {
	writer sync.Mutex
	slots  [ways]slot[V]
}

type slot[V any] struct{ atomic.Pointer[entry[V]] }

// An entry is immutable, except for the number of times it was seen again.
type entry[V any] struct {
	hash        uint64 // of text, to skip most others without reading them
	text        string
	value       V
	from, until time.Time
	size        int32 // in bytes
	seen        atomic.Int32
}

const (
	ways = 7
	// maxSeen is where the count stops. Beyond that, a hit writes nothing. The limit is low, so
	// that entries no longer used are evicted soon.
	maxSeen = 3
	// share is the average number of bytes that a cache may hold per entry.
	share = 1536
	// maxSize is the maximum total size of the entries of a set, in bytes. It limits the
	// memory of a cache.
	maxSize = ways * share
	// overhead is the size of an entry, in bytes, without its text and value.
	overhead = 96
)

// New returns a cache for about the given number of entries of up to 1.5 KB each, or for
// fewer larger ones. It returns nil if entries is not positive.
func New[V any](entries int) *Cache[V] {
	if entries <= 0 {
		return nil
	}
	return &Cache[V]{seed: maphash.MakeSeed(), sets: make([]set[V], (entries+ways-1)/ways)}
}

// set returns the set for a text, and the hash of the text.
func (c *Cache[V]) set(text string) (*set[V], uint64) {
	hash := maphash.String(c.seed, text)
	return &c.sets[hash%uint64(len(c.sets))], hash
}

// Find returns the value of a text if it is valid now.
func (c *Cache[V]) Find(text string, now time.Time) (value V, ok bool) {
	if c == nil || len(text) > maxSize {
		return value, false
	}
	set, hash := c.set(text)
	for i := range set.slots {
		if e := set.slots[i].Load(); e != nil && e.hash == hash && e.text == text {
			if n := e.seen.Load(); n < maxSeen { // a lost count is harmless
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

// Add adds a value that takes size bytes and is valid from a time until another. A value of
// more than seven shares is not cached. If two are added to a set at the same time, one is not.
func (c *Cache[V]) Add(text string, value V, size int, from, until, now time.Time) {
	size += len(text) + overhead
	if c == nil || size > maxSize {
		return
	}
	set, hash := c.set(text)
	if !set.writer.TryLock() { // never wait for a cache
		return
	}
	defer set.writer.Unlock()
	if slot := set.makeRoom(text, hash, int32(size), now); slot != nil {
		slot.Store(&entry[V]{hash: hash, text: strings.Clone(text), value: value, from: from, until: until, size: int32(size)}) // text may be part of a larger string
	}
}

// makeRoom returns an empty slot in a set with room for size bytes. It returns nil if more
// than one entry in use would be evicted.
func (s *set[V]) makeRoom(text string, hash uint64, size int32, now time.Time) *slot[V] {
	type living struct {
		*slot[V]
		*entry[V]
		seen int32 // at the time of the comparison
	}
	var (
		free *slot[V]
		room = maxSize - size
		old  []living
	)
	for i := range uint64(ways) {
		slot := &s.slots[(hash>>32+i)%ways] // from a random start, so that ties are broken at random
		if e := slot.Load(); e != nil && now.Before(e.until) && e.text != text {
			room -= e.size
			old = append(old, living{slot, e, e.seen.Load()})
			continue
		}
		slot.Store(nil)
		free = slot
	}
	slices.SortStableFunc(old, func(a, b living) int { return int(a.seen - b.seen) })
	gone := 0
	for ; free == nil || room < 0; gone++ {
		free, room = old[gone].slot, room+old[gone].size
	}
	if gone > 0 && old[gone-1].seen > 0 { // entries in use must be seen again to keep their place
		for _, l := range old {
			if l.seen > 0 {
				l.entry.seen.Add(-1)
			}
		}
		if gone > 1 && old[gone-2].seen > 0 {
			return nil
		}
	}
	for _, l := range old[:gone] {
		l.Store(nil)
	}
	return free
}
