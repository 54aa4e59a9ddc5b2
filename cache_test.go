package fleetkey

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/clock"
)

// A testCell is a KeyStore of one process. (fleetkeytest cannot be imported by
// tests of this package's insides.)
type testCell struct {
	mu      sync.Mutex
	bundle  []byte
	version int
}

func (c *testCell) Load(context.Context) ([]byte, Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == 0 {
		return nil, "", ErrNotExist
	}
	return bytes.Clone(c.bundle), Version(fmt.Sprint(c.version)), nil
}

func (c *testCell) Save(_ context.Context, bundle []byte, prev Version) (Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == 0 && prev != "" || c.version != 0 && prev != Version(fmt.Sprint(c.version)) {
		return "", ErrConflict
	}
	c.bundle, c.version = bytes.Clone(bundle), c.version+1
	return Version(fmt.Sprint(c.version)), nil
}

func newTestSigner(t *testing.T, cfg Config) *Signer {
	t.Helper()
	return openTestSigner(t, &testCell{}, cfg)
}

func openTestSigner(t *testing.T, store KeyStore, cfg Config) *Signer {
	t.Helper()
	return openTestSignerBy(t, time.Now, store, cfg)
}

func openTestSignerBy(t *testing.T, now func() time.Time, store KeyStore, cfg Config) *Signer {
	t.Helper()
	cfg.Issuer, cfg.Logger = "https://id.example", slog.New(slog.DiscardHandler)
	setDefault(&cfg.Algorithm, "EdDSA")
	s, err := NewSigner(clock.With(t.Context(), clock.Wall(now)), store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func testIssue(t *testing.T, s *Signer, c Claims) string {
	t.Helper()
	setDefault(&c.Subject, "alice")
	token, err := s.Issue(t.Context(), c)
	require.NoError(t, err)
	return token
}

func testVerify(t *testing.T, s *Signer, token string) *Token {
	t.Helper()
	verified, err := s.Verify(t.Context(), token)
	require.NoError(t, err)
	return verified
}

// entries returns what a cache holds.
func (c *tokenCache) entries() (all []*cached) {
	for i := range c.sets {
		for j := range c.sets[i] {
			if e := c.sets[i][j].Load(); e != nil {
				all = append(all, e)
			}
		}
	}
	return all
}

func TestCacheHitIsTheSameToken(t *testing.T) {
	s := newTestSigner(t, Config{})
	token := testIssue(t, s, Claims{})
	first := testVerify(t, s, token)
	assert.Same(t, first, testVerify(t, s, token))
	assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = s.Verify(context.Background(), token) }))
}

// TestCacheIsExact asks a cache of one set for each neighbour of a token that it
// holds, and has every hash collide.
func TestCacheIsExact(t *testing.T) {
	s := newTestSigner(t, Config{CachedTokens: 1})
	token := testIssue(t, s, Claims{})
	testVerify(t, s, token)
	cache := s.current.Load().cache
	require.NotNil(t, cache.find(token))
	e := cache.entries()[0]
	misses := func(near string) {
		t.Helper()
		e.hash = maphash.String(cache.seed, near)
		require.Nil(t, cache.find(near))
		_, err := s.Verify(t.Context(), near)
		require.Error(t, err)
	}
	for i := range len(token) {
		near := []byte(token)
		near[i] ^= 1
		misses(string(near))
		misses(token[:i])
	}
	misses(token + "A")
	require.Len(t, cache.entries(), 1)
}

func TestCacheChecksTimesOnEachHit(t *testing.T) {
	begin := time.Now()
	var now time.Time
	for name, c := range map[string]struct {
		at   time.Duration
		want error
	}{
		"in its time":         {time.Minute, nil},
		"within the skew":     {time.Hour + 59*time.Second, nil},
		"expired":             {time.Hour + time.Minute + time.Second, ErrExpired},
		"clock set back":      {-3 * time.Minute, ErrNotYetValid},
		"key not trusted now": {50 * time.Minute, ErrUnknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			now = begin
			s := openTestSignerBy(t, func() time.Time { return now }, &testCell{}, Config{})
			token := testIssue(t, s, Claims{})
			if c.want == ErrUnknownKey { // a key that ends before its last token does
				for _, k := range s.current.Load().byKID {
					k.until = begin.Add(c.at)
				}
			}
			testVerify(t, s, token)
			require.NotNil(t, s.current.Load().cache.find(token))
			now = begin.Add(c.at)
			verified, err := s.Verify(t.Context(), token)
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.want != nil, verified == nil)
		})
	}
}

func TestCacheDiesWithTheSnapshot(t *testing.T) {
	var cell testCell
	operator, s := openTestSigner(t, &cell, Config{}), openTestSigner(t, &cell, Config{})
	token := testIssue(t, operator, Claims{})
	verified := testVerify(t, s, token)
	require.Same(t, verified, testVerify(t, s, token))

	require.NoError(t, operator.Revoke(t.Context(), verified.KeyID()))
	require.NoError(t, s.Refresh(t.Context()))
	_, err := s.Verify(t.Context(), token)
	require.ErrorIs(t, err, ErrUnknownKey)
}

func TestCacheKeepsOut(t *testing.T) {
	now := time.Now()
	var cell testCell
	s := openTestSignerBy(t, func() time.Time { return now }, &cell, Config{})
	other := openTestSigner(t, &cell, Config{Audience: []string{"https://other.example"}})
	good := testIssue(t, s, Claims{})
	wrongSignature := []byte(good)
	wrongSignature[len(good)-20] = "AB"[good[len(good)-20]%2] // 'A' and 'B' are odd and even: another letter
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"wrong signature": {string(wrongSignature), ErrBadSignature},
		"wrong audience":  {testIssue(t, other, Claims{}), ErrWrongAudience},
		"expired": {testIssue(t, s, Claims{IssuedAt: now.Add(-2 * time.Hour),
			ExpiresAt: now.Add(-time.Hour)}), ErrExpired},
		"not yet valid": {testIssue(t, s, Claims{NotBefore: now.Add(10 * time.Minute)}), ErrNotYetValid},
		"no token":      {"a.b.c", ErrMalformed},
		"over 4 KiB":    {testIssue(t, s, Claims{Extra: map[string]any{"pad": strings.Repeat("x", maxCached)}}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				_, err := s.Verify(t.Context(), c.token)
				require.ErrorIs(t, err, c.want)
			}
			require.Empty(t, s.current.Load().cache.entries())
		})
	}
}

func TestCacheOff(t *testing.T) {
	s := newTestSigner(t, Config{CachedTokens: -1})
	token := testIssue(t, s, Claims{})
	require.NotSame(t, testVerify(t, s, token), testVerify(t, s, token))
	require.Nil(t, s.current.Load().cache)
}

// TestCacheFlood sends distinct valid tokens, many times what the cache has room
// for. The ones in use stay, and the memory with them.
func TestCacheFlood(t *testing.T) {
	const size, inUse, flood = 1_000, 100, 50_000
	now, key := time.Now(), &trustedKey{}
	valid := &Token{claims: claimSet{expires: now.Add(time.Hour)}}
	c := newTokenCache(size)
	honest := func(i int) string { return fmt.Sprintf("honest %d", i) }
	for i := range inUse {
		c.add(honest(i), valid, key, now)
		require.NotNil(t, c.find(honest(i)))
	}
	for i := range flood {
		c.add(fmt.Sprintf("flood %d", i), valid, key, now)
	}
	held := 0
	for i := range inUse {
		if c.find(honest(i)) != nil {
			held++
		}
	}
	assert.GreaterOrEqual(t, held, inUse-cacheWays, "one set may be full of tokens in use")
	assert.LessOrEqual(t, len(c.entries()), size)
	assert.Greater(t, len(c.entries()), size*9/10, "the flood fills what nobody uses")
}

// TestCacheFloodSeenTwice sends each token of the flood twice, so that they count
// as in use as well. Those that come again twice while the flood goes through the
// cache once are still found.
func TestCacheFloodSeenTwice(t *testing.T) {
	const size, inUse, flood, between = 1_000, 20, 50_000, 500
	now, key := time.Now(), &trustedKey{}
	valid := &Token{claims: claimSet{expires: now.Add(time.Hour)}}
	c := newTokenCache(size)
	found, asked := 0, 0
	for i := range flood {
		text := fmt.Sprintf("flood %d", i)
		c.add(text, valid, key, now)
		c.find(text)
		if i%(between/inUse) == 0 {
			honest := fmt.Sprintf("honest %d", asked%inUse)
			asked++
			if c.find(honest) == nil {
				c.add(honest, valid, key, now)
				c.find(honest)
			} else {
				found++
			}
		}
	}
	assert.Greater(t, float64(found)/float64(asked), 0.95)
	assert.LessOrEqual(t, len(c.entries()), size)
}

// TestCacheForgetsWhatIsNoLongerUsed changes the working set of a full cache: its
// tokens, however often they were seen, are used no more but far from expiry, as
// after a shift or a deployment. Those that have taken over are found from the
// third time on.
func TestCacheForgetsWhatIsNoLongerUsed(t *testing.T) {
	const size, inUse, calls = 1_000, 250, 2 // calls of each session in a row
	now, key := time.Now(), &trustedKey{}
	valid := &Token{claims: claimSet{expires: now.Add(time.Hour)}}
	c := newTokenCache(size)
	use := func(text string) (found bool) {
		if found = c.find(text) != nil; !found {
			c.add(text, valid, key, now)
		}
		return found
	}
	for range 2 * maxSeen {
		for i := range size {
			use(fmt.Sprintf("yesterday %d", i))
		}
	}
	found := 0
	for range 5 {
		found = 0
		for i := range inUse {
			text := fmt.Sprintf("today %d", i)
			if use(text) {
				found++
			}
			for range calls - 1 {
				use(text)
			}
		}
	}
	assert.Greater(t, found, inUse*9/10, "of %d in use", inUse)
}

// TestCachePrefersTheLiving puts a new token in the place of an expired one,
// however often that was seen.
func TestCachePrefersTheLiving(t *testing.T) {
	now, key := time.Now(), &trustedKey{}
	for dead := range cacheWays {
		c := newTokenCache(cacheWays) // one set
		for i := range cacheWays {
			expires := now.Add(time.Hour)
			if i == dead {
				expires = now.Add(-time.Second)
			}
			text := fmt.Sprint("token ", i)
			c.add(text, &Token{claims: claimSet{expires: expires}}, key, now)
			require.NotNil(t, c.find(text))
		}
		c.add("new", &Token{claims: claimSet{expires: now.Add(time.Hour)}}, key, now)
		require.NotNil(t, c.find("new"))
		require.Nil(t, c.find(fmt.Sprint("token ", dead)))
		require.Len(t, c.entries(), cacheWays)
	}
}

// TestCacheKeepsNoHeaderAlive verifies a token that is part of a larger string,
// as it is in an Authorization header.
func TestCacheKeepsNoHeaderAlive(t *testing.T) {
	s := newTestSigner(t, Config{})
	header := "Bearer " + testIssue(t, s, Claims{Scope: "read"}) + strings.Repeat(" ", 1000)
	token := header[len("Bearer ") : strings.LastIndex(header, ".")+87] // a signature has 86 characters
	verified := testVerify(t, s, token)
	e := s.current.Load().cache.find(token)
	require.NotNil(t, e)
	for _, text := range []string{e.text, verified.claims.text, verified.Subject(), verified.Scope(), verified.ID(), verified.Issuer(), verified.Audience()[0]} {
		within := uintptr(unsafe.Pointer(unsafe.StringData(text))) - uintptr(unsafe.Pointer(unsafe.StringData(header)))
		require.GreaterOrEqual(t, within, uintptr(len(header)), "%q lies in the caller's string", text)
	}
}

// TestCacheConcurrently verifies more tokens than the cache has room for from
// many goroutines, while the key set is exchanged below.
func TestCacheConcurrently(t *testing.T) {
	s := newTestSigner(t, Config{CachedTokens: 16})
	tokens := make([]string, 40)
	for i := range tokens {
		tokens[i] = testIssue(t, s, Claims{Subject: fmt.Sprint("subject ", i)})
	}
	var done sync.WaitGroup
	for w := range 8 {
		done.Go(func() {
			for i := range 400 {
				n := (i*7 + w) % len(tokens)
				verified, err := s.Verify(context.Background(), tokens[n])
				if !assert.NoError(t, err) || !assert.Equal(t, fmt.Sprint("subject ", n), verified.Subject()) {
					return
				}
				if w == 0 && i%50 == 0 {
					snap := s.current.Load()
					assert.NoError(t, s.adopt(snap.set, snap.version))
				}
			}
		})
	}
	done.Wait()
	assert.LessOrEqual(t, len(s.current.Load().cache.entries()), 16)
}
