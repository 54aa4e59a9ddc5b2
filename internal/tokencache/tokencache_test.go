package tokencache

import (
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	hour = noon.Add(time.Hour)
)

// remember adds a text as its own value, valid for an hour, and finds it seen times.
func remember(c *Cache[string], text string, seen int) {
	c.Add(text, text, 0, noon, hour, noon)
	for range seen {
		c.Find(text, noon)
	}
}

func holds(c *Cache[string], text string) bool {
	value, ok := c.Find(text, noon)
	return ok && value == text
}

// held returns the number of entries, and their size as counted by the cache.
func held[V any](c *Cache[V]) (entries, bytes int) {
	for i := range c.sets {
		for j := range c.sets[i].slots {
			if e := c.sets[i].slots[j].Load(); e != nil {
				entries, bytes = entries+1, bytes+int(e.size)
			}
		}
	}
	return entries, bytes
}

// TestExact looks up texts similar to a cached one, with the hash of the entry set to theirs.
// The text is part of a larger string, as in an Authorization header.
func TestExact(t *testing.T) {
	header := "Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl" + t.Name()
	text := header[7:]
	c := New[string](1)
	remember(c, text, 0)
	require.True(t, holds(c, text))
	e := c.sets[0].slots[(maphash.String(c.seed, text)>>32+ways-1)%ways].Load()
	require.Equal(t, text, e.text)
	require.NotSame(t, unsafe.StringData(text), unsafe.StringData(e.text), "must not keep the header in memory")
	require.Zero(t, testing.AllocsPerRun(100, func() { c.Find(text, noon) }))
	misses := func(near string) {
		t.Helper()
		e.hash = maphash.String(c.seed, near)
		require.False(t, holds(c, near))
	}
	for i := range len(text) {
		near := []byte(text)
		near[i] ^= 1
		misses(string(near))
		misses(text[:i])
	}
	misses(text + "A")
}

func TestTimes(t *testing.T) {
	c := New[string](1)
	remember(c, "token", 0)
	for at, want := range map[time.Time]bool{noon.Add(-1): false, noon: true, hour.Add(-1): true, hour: false} {
		value, ok := c.Find("token", at)
		require.Equal(t, want, ok, "%v", at)
		require.Equal(t, want, value == "token")
	}
}

func TestOff(t *testing.T) {
	for _, entries := range []int{0, -1} {
		c := New[string](entries)
		require.Nil(t, c)
		remember(c, "token", 0)
		require.False(t, holds(c, "token"))
	}
}

// TestFlood adds many more distinct texts than fit. Texts in use stay in the cache, regardless
// of the size of the others.
func TestFlood(t *testing.T) {
	const size, inUse, flood = 1_000, 100, 20_000
	for _, length := range []int{0, 1_000, 2 * share, maxSize / 2, maxSize - 1_000} {
		t.Run(fmt.Sprint(length, " bytes"), func(t *testing.T) {
			c := New[string](size)
			require.InDelta(t, size, len(c.sets)*ways, ways-1)
			for i := range inUse {
				remember(c, fmt.Sprint("honest ", i), 1)
			}
			for i := range flood {
				c.Add(fmt.Sprint("flood ", i), "", length, noon, hour, noon)
			}
			entries, bytes := held(c)
			assert.LessOrEqual(t, bytes, len(c.sets)*maxSize)
			if length < share-overhead {
				assert.Greater(t, entries, size*9/10, "the flood must fill the unused space")
			} else {
				assert.Greater(t, bytes, len(c.sets)*maxSize/2)
			}
			kept := 0
			for i := range inUse {
				if holds(c, fmt.Sprint("honest ", i)) {
					kept++
				}
			}
			assert.Greater(t, kept, inUse*9/10)
		})
	}
}

// TestForgetsWhatIsNoLongerUsed changes the working set of a full cache, as when other users
// log in. Even if the old texts were seen often, the new ones are cached after a few
// additions.
func TestForgetsWhatIsNoLongerUsed(t *testing.T) {
	for name, large := range map[string]string{"as large": "", "larger": strings.Repeat("x", maxSize/3)} {
		t.Run(name, func(t *testing.T) {
			c := New[string](ways)
			for i := range ways {
				remember(c, fmt.Sprint("yesterday ", i, strings.Repeat("y", share/2)), 10)
			}
			for range 4 {
				for i := range 2 {
					remember(c, fmt.Sprint("today ", i, large), 2)
				}
			}
			for i := range 2 {
				require.True(t, holds(c, fmt.Sprint("today ", i, large)))
			}
		})
	}
}

// TestWhoGoes tests which entries of a full set are evicted for a new one.
func TestWhoGoes(t *testing.T) {
	type old struct {
		size, seen int
		expired    bool
	}
	inUse := old{share - 200, 2, false}
	for name, test := range map[string]struct {
		olds []old
		size int
		kept int // number of olds that stay; if want, the first one goes
		want bool
	}{
		"the expired one, however often it was seen": {[]old{{0, 3, true}, inUse, inUse, inUse, inUse, inUse, inUse}, 0, 6, true},
		"the one seen least":                         {[]old{{0, 0, false}, inUse, inUse, inUse, inUse, inUse, inUse}, 0, 6, true},
		"the one seen least of those in use":         {[]old{{0, 1, false}, inUse, inUse, inUse, inUse, inUse, inUse}, 0, 6, true},
		"a large one, for a small one":               {[]old{{maxSize - 500, 0, false}}, 500, 0, true},
		"one in use, for a large one":                {[]old{{maxSize / 2, 1, false}, {maxSize / 4, 2, false}}, maxSize / 2, 1, true},
		"one that nobody uses and one in use, for a large one": {
			[]old{{maxSize / 4, 0, false}, {maxSize / 4, 1, false}, {maxSize / 4, 3, false}}, maxSize * 7 / 10, 1, true},
		"all that nobody uses, for the largest": {[]old{{0, 0, false}, {0, 0, false}, {0, 0, false}, {0, 0, false}}, maxSize - len("new") - overhead, 0, true},
		"the expired and the unused, for a large one": {
			[]old{{maxSize / 2, 3, true}, {maxSize / 4, 0, false}, {maxSize/2 - 400, 1, false}}, maxSize / 2, 1, true},
		"nobody, where two in use would have to": {[]old{inUse, inUse, inUse, inUse, inUse, inUse, inUse}, maxSize / 2, 7, false},
		"nobody, for what is too large":          {[]old{{0, 0, false}}, maxSize, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := New[string](1)
			for i, o := range test.olds {
				until := hour
				if o.expired {
					until = noon.Add(-1)
				}
				text := fmt.Sprint("old ", i)
				c.Add(text, text, o.size, noon.Add(-time.Hour), until, noon.Add(-time.Minute))
				for range o.seen {
					c.Find(text, noon)
				}
			}
			c.Add("new", "new", test.size, noon, hour, noon)
			require.Equal(t, test.want, holds(c, "new"))
			kept := 0
			for i := range test.olds {
				if holds(c, fmt.Sprint("old ", i)) {
					kept++
					require.False(t, i == 0 && test.want, "the wrong entry was evicted")
				}
			}
			require.Equal(t, test.kept, kept)
			_, bytes := held(c)
			require.LessOrEqual(t, bytes, maxSize)
		})
	}
}

func TestAddAgain(t *testing.T) {
	c := New[string](1)
	c.Add("token", "old", 0, noon, hour, noon)
	c.Add("token", "new", 0, noon, hour, noon)
	value, _ := c.Find("token", noon)
	require.Equal(t, "new", value)
	entries, _ := held(c)
	require.Equal(t, 1, entries)
}

// TestMemory: the sizes that the cache counts with are the real ones.
func TestMemory(t *testing.T) {
	require.EqualValues(t, 64, unsafe.Sizeof(set[*int]{}), "a cache line")
	require.LessOrEqual(t, int(unsafe.Sizeof(entry[*int]{})), overhead)
}

// TestConcurrently uses more texts than fit, from many goroutines.
func TestConcurrently(t *testing.T) {
	c := New[string](2 * ways)
	var done sync.WaitGroup
	for w := range 8 {
		done.Go(func() {
			for i := range 2_000 {
				text := fmt.Sprint("text ", (i*7+w)%40)
				if value, ok := c.Find(text, noon); ok {
					assert.Equal(t, text, value)
				} else {
					c.Add(text, text, i%share, noon, hour, noon)
				}
			}
		})
	}
	done.Wait()
	_, bytes := held(c)
	require.LessOrEqual(t, bytes, 2*maxSize)
}
