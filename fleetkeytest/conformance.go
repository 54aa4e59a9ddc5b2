package fleetkeytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetkey/fleetkey"
)

// TestKeyStore checks that an implementation of [fleetkey.KeyStore] keeps the promises of
// that interface, with a subtest for each.
//
// Each call of open creates a new, empty store; it may use t.Cleanup and t.TempDir. open
// returns a function. Each call of that function opens the same store again, as one more
// instance of a fleet would. All these calls run in the subtest's goroutine, so they may call t.Fatal. Some subtests
// use two stores.
//
// The suite stores what fleetkey stores: PEM text of 1 to [fleetkey.MaxBundleSize] bytes,
// in printable ASCII with tabs and line ends. It does not test other bytes, since a secret
// is often a string. It accepts a store in which other instances see a Save up to 10 seconds
// late, because [fleetkey.Signer] tolerates that.
func TestKeyStore(t *testing.T, open func(t *testing.T) func() fleetkey.KeyStore) {
	for _, c := range []struct {
		name string
		test func(s *suite)
	}{
		{"Create", testCreate},
		{"Replace", testReplace},
		{"PrevOnAbsent", testPrevOnAbsent},
		{"Content", testContent},
		{"TooLarge", testTooLarge},
		{"CallerOwnsSlices", testCallerOwnsSlices},
		{"Race", testRace},
		{"LoadsDuringSaves", testLoadsDuringSaves},
		{"EndedContext", testEndedContext},
		{"ContextEndsDuringSaves", testContextEndsDuringSaves},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A store that hangs should fail its subtest, not the whole run.
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			c.test(&suite{T: t, ctx: ctx, newCell: open, open: open(t)})
		})
	}
}

func testCreate(s *suite) {
	store, b := s.open(), bundle("first", 2000)
	s.requireAbsent(store)
	s.requireAbsent(s.open())
	v := s.mustSave(store, b, "")
	s.requireHolds(store, b, v)
	s.requireHolds(s.open(), b, v)
	s.requireConflict(store, bundle("second", 2000), "")
	s.requireConflict(s.open(), bundle("third", 2000), "")
	s.requireConflict(s.open(), b, "") // equal content is a conflict too
	s.requireHolds(s.open(), b, v)
}

// testReplace also restores earlier content (A, B, A), and saves by earlier versions.
func testReplace(s *suite) {
	a, b, c := bundle("a", 2000), bundle("b", 4000), bundle("c", 4000)
	seen := map[fleetkey.Version][]byte{}
	var v fleetkey.Version
	for i, content := range [][]byte{a, b, a, c, b} {
		store := s.open()
		v = s.mustSave(store, content, v)
		if old, ok := seen[v]; ok && !bytes.Equal(old, content) {
			s.Fatalf("save %d: version %q was given to another content before", i+1, v)
		}
		seen[v] = content
		s.requireHolds(store, content, v)
		s.requireHolds(s.open(), content, v)
	}
	for stale := range seen {
		if stale != v {
			s.requireConflict(s.open(), bundle("late", 2000), stale)
		}
	}
	s.requireConflict(s.open(), bundle("later", 2000), "")
	s.requireHolds(s.open(), b, v)
}

// testPrevOnAbsent uses a version of another cell, since a made-up one might have the wrong
// form.
func testPrevOnAbsent(s *suite) {
	other := s.newCell(s.T)()
	v := s.mustSave(other, bundle("other", 2000), "")
	s.requireConflict(s.open(), bundle("here", 2000), v)
	s.requireAbsent(s.open())
}

func testContent(s *suite) {
	ascii := []byte("\t\n\r\n")
	for c := byte(' '); c <= '~'; c++ {
		ascii = append(ascii, c)
	}
	pemText := bundle("content", 5000)
	var v fleetkey.Version
	for _, c := range []struct {
		name    string
		content []byte
	}{
		{"one byte", []byte("x")},
		{"all printable ASCII, tab, CR and LF", ascii},
		{"PEM", pemText},
		{"PEM with CRLF", bytes.ReplaceAll(pemText, []byte("\n"), []byte("\r\n"))},
		{"blank lines and spaces at both ends", slices.Concat([]byte(" \n\n"), pemText, []byte("\n\t \n\n"))},
		{"no line end at the end", bytes.TrimRight(pemText, "\n")},
		{"the largest", bundle("largest", fleetkey.MaxBundleSize)},
		{"small after large", bundle("small", 300)},
	} {
		s.Log("content:", c.name)
		v = s.mustSave(s.open(), c.content, v)
		s.requireHolds(s.open(), c.content, v)
	}
}

// testTooLarge saves a bundle over the limit, which a store may accept or reject. If it
// rejects the bundle, it must neither print it nor store part of it.
func testTooLarge(s *suite) {
	b := bundle("too large", fleetkey.MaxBundleSize+1)
	v, err := s.open().Save(s.ctx, b, "")
	if err == nil {
		s.requireHolds(s.open(), b, v)
		return
	}
	s.requireNoLeak(err, b)
	s.requireAbsent(s.open())
}

func testCallerOwnsSlices(s *suite) {
	store, b := s.open(), bundle("mine", 2000)
	given := bytes.Clone(b)
	v := s.mustSave(store, given, "")
	clear(given)
	got := s.requireHolds(store, b, v)
	clear(got)
	s.requireHolds(store, b, v)
	s.requireHolds(s.open(), b, v)
}

// testRace has all instances create the bundle at once, and then replace it at once.
func testRace(s *suite) {
	var winner []byte
	var v fleetkey.Version
	for range 6 {
		winner, v = s.race(v)
		s.requireHolds(s.open(), winner, v)
	}
}

// testLoadsDuringSaves loads continuously while one writer replaces long and short bundles:
// every Load must return one of them, whole, with its version.
func testLoadsDuringSaves(s *suite) {
	store, b := s.open(), bundle("0", 1000)
	v := s.mustSave(store, b, "")
	wrote := map[string]fleetkey.Version{string(b): v}

	type read struct {
		content string
		version fleetkey.Version
		err     error
	}
	reads, done, all := [4][]read{}, atomic.Bool{}, sync.WaitGroup{}
	for i := range reads {
		store := s.open()
		all.Go(func() {
			for last := false; !last; {
				last = done.Load() // one more, after the last save
				b, v, err := store.Load(s.ctx)
				reads[i] = append(reads[i], read{string(b), v, err})
				last = last || err != nil
			}
		})
	}
	var err error
	for i := 1; i <= 20 && err == nil; i++ {
		b = bundle(fmt.Sprint(i), 1000+(i%2)*60000)
		v, err = store.Save(s.ctx, b, v)
		wrote[string(b)] = v
	}
	done.Store(true)
	all.Wait()
	if err != nil {
		s.Fatalf("Save during Loads: %v", err)
	}
	for _, r := range slices.Concat(reads[:]...) {
		if v, ok := wrote[r.content]; r.err != nil || !ok || v != r.version {
			s.Errorf("Load during Saves: %d bytes (saved: %t), version %q, want %q, error %v", len(r.content), ok, r.version, v, r.err)
		}
	}
}

// testEndedContext calls with ended contexts. Such a call must change nothing and must not
// return ErrNotExist.
func testEndedContext(s *suite) {
	cancelled, cancel := context.WithCancel(s.ctx)
	cancel()
	expired, cancel := context.WithDeadline(s.ctx, time.Now().Add(-time.Second))
	defer cancel()
	both := func(prev fleetkey.Version, name string) {
		s.Helper()
		for _, ctx := range []context.Context{cancelled, expired} {
			store, b, start := s.open(), bundle(name, 2000), time.Now()
			_, _, loadErr := store.Load(ctx)
			_, saveErr := store.Save(ctx, b, prev)
			if took := time.Since(start); took > soon {
				s.Errorf("Load and Save with an ended context took %v", took)
			}
			s.requireNoLeak(saveErr, b)
			for op, err := range map[string]error{"Load": loadErr, "Save": saveErr} {
				if !errors.Is(err, ctx.Err()) {
					s.Errorf("%s with an ended context: error %v, want one that matches %q", op, err, ctx.Err())
				} else if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fleetkey.ErrConflict) {
					s.Errorf("%s with an ended context: error %v, which claims to know the content", op, err)
				}
			}
		}
	}
	both("", "never")
	s.requireAbsent(s.open())
	b := bundle("stays", 2000)
	v := s.mustSave(s.open(), b, "")
	both(v, "never either")
	s.requireHolds(s.open(), b, v)
}

// testContextEndsDuringSaves ends the context of racing Saves. Each may succeed, lose, or
// return the context's error, and the stored bundle must be whole.
func testContextEndsDuringSaves(s *suite) {
	before := bundle("before", 2000)
	v := s.mustSave(s.open(), before, "")
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	results := s.saveAll(ctx, v)
	all := []saved{<-results}
	cancel()
	ended := time.Now()
	for len(all) < instances {
		all = append(all, <-results)
	}
	if took := time.Since(ended); took > soon {
		s.Errorf("the last Save returned %v after its context had ended", took)
	}
	possible := map[string]bool{string(before): true}
	var won []saved
	for _, r := range all {
		switch {
		case r.err == nil:
			won = append(won, r)
		case errors.Is(r.err, context.Canceled):
			possible[string(r.content)] = true
		case !errors.Is(r.err, fleetkey.ErrConflict):
			s.Errorf("Save whose context ends: %v", r.err)
		}
		s.requireNoLeak(r.err, r.content)
	}
	switch len(won) {
	case 0:
		if b, _, err := s.open().Load(s.ctx); err != nil || !possible[string(b)] {
			s.Errorf("after Saves that were cancelled: Load gives %d bytes that nobody has saved, error %v", len(b), err)
		}
	case 1:
		s.requireHolds(s.open(), won[0].content, won[0].version)
	default:
		s.Errorf("%d Saves with the same prev succeeded", len(won))
	}
}
