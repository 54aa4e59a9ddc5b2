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
// and a flood of valid ones displaces, in each set, those that have not been
// seen twice before it touches any other.
type tokenCache struct {
	seed maphash.Seed // secret, so that nobody can aim at one set
	sets [][cacheWays]atomic.Pointer[cached]
}

// A cached token never changes, but for the mark that it was seen again.
type cached struct {
	text  string
	token *Token
	key   *trustedKey
	again atomic.Bool
}

const (
	cacheWays = 8
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

func (c *tokenCache) set(text string) *[cacheWays]atomic.Pointer[cached] {
	return &c.sets[maphash.String(c.seed, text)%uint64(len(c.sets))]
}

// find returns the remembered token, or nil. Its times have to be checked.
func (c *tokenCache) find(text string) *cached {
	if c == nil || len(text) > maxCached {
		return nil
	}
	set := c.set(text)
	for i := range set {
		if e := set[i].Load(); e != nil && e.text == text {
			if !e.again.Load() { // reading first keeps the cache line shared
				e.again.Store(true)
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
	set := c.set(text)
	e := &cached{text: strings.Clone(text), token: t, key: k} // text may be a part of a larger string
	var victim *atomic.Pointer[cached]
	for i := range set {
		old := set[i].Load()
		if old == nil || !now.Before(old.token.claims.expires) || old.text == text {
			set[i].Store(e)
			return
		}
		if victim == nil && !old.again.Load() {
			victim = &set[i]
		}
	}
	if victim == nil { // all were seen again: they have to earn it anew
		for i := range set {
			if old := set[i].Load(); old != nil {
				old.again.Store(false)
			}
		}
		victim = &set[maphash.String(c.seed, text)>>32%cacheWays]
	}
	victim.Store(e)
}
