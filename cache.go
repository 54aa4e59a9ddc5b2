package fleetkey

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"
)

// A tokenCache remembers tokens that have been verified, since a server sees the
// same access token with every request of a session. It belongs to one snapshot:
// a changed key set starts an empty one.
//
// It is a hash table of small sets whose slots are atomic pointers, so that
// readers neither lock nor allocate. A token is found by its whole text, never
// by a digest alone. Only valid tokens get in, so made-up ones cannot fill it;
// and each new one takes, in its set, the place of the one seen least. A flood of
// valid tokens that are seen once displaces itself and nothing else. One whose
// tokens are seen again displaces those that are seen less than twice while it
// goes through the cache.
type tokenCache struct {
	seed maphash.Seed // secret, so that nobody can aim at one set
	sets [][cacheWays]atomic.Pointer[cached]
}

// A cached token never changes, but for the count of how often it was seen again.
type cached struct {
	hash  uint64 // of text, to pass over most others without reading them
	text  string
	token *Token
	key   *trustedKey
	seen  atomic.Int32
}

const (
	cacheWays = 8
	// maxSeen is where the count ends: from then on a hit only reads, and what
	// is no longer used is forgotten soon.
	maxSeen = 3
	// maxCached is the longest token, in bytes, that is remembered: it bounds
	// the memory of a cache by its number of entries.
	maxCached = 4 << 10
)

// newTokenCache returns a cache for about so many tokens, or nil for none.
func newTokenCache(tokens int) *tokenCache {
	if tokens <= 0 {
		return nil
	}
	return &tokenCache{seed: maphash.MakeSeed(), sets: make([][cacheWays]atomic.Pointer[cached], (tokens+cacheWays-1)/cacheWays)}
}

// set returns the slots where a token may be, and its hash.
func (c *tokenCache) set(text string) (*[cacheWays]atomic.Pointer[cached], uint64) {
	hash := maphash.String(c.seed, text)
	return &c.sets[hash%uint64(len(c.sets))], hash
}

// find returns the remembered token, or nil. Its times have to be checked.
func (c *tokenCache) find(text string) *cached {
	if c == nil || len(text) > maxCached {
		return nil
	}
	set, hash := c.set(text)
	for i := range set {
		if e := set[i].Load(); e != nil && e.hash == hash && e.text == text {
			if n := e.seen.Load(); n < maxSeen { // a lost count does no harm
				e.seen.Store(n + 1)
			}
			return e
		}
	}
	return nil
}

// add remembers a token. Of two that meet in one slot one is forgotten, which
// costs a verification and nothing else.
func (c *tokenCache) add(text string, t *Token, k *trustedKey, now time.Time) {
	if c == nil || len(text) > maxCached {
		return
	}
	set, hash := c.set(text)
	e := &cached{hash: hash, text: strings.Clone(text), token: t, key: k} // text may be a part of a larger string
	var victim *atomic.Pointer[cached]
	least := int32(maxSeen + 1)
	for i := range uint64(cacheWays) {
		slot := &set[(hash>>32+i)%cacheWays] // from anywhere, so that equals take turns
		old := slot.Load()
		if old == nil || !now.Before(old.token.claims.expires) || old.text == text {
			slot.Store(e)
			return
		}
		if n := old.seen.Load(); n < least {
			victim, least = slot, n
		}
	}
	if least > 0 { // all are in use: they have to earn it anew
		for i := range set {
			if old := set[i].Load(); old != nil {
				old.seen.Add(-1)
			}
		}
	}
	victim.Store(e)
}
