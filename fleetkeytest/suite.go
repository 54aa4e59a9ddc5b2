package fleetkeytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file contains the helpers of the subtests of TestKeyStore: racing instances, checks,
// and bundles to save.

const (
	// settleTime is how long a store may hide a finished Save from others.
	settleTime = 10 * time.Second
	// soon is how soon a method must return after its context has ended. It is generous, so
	// that a correct store does not fail on a busy machine.
	soon = 5 * time.Second
	// instances is the number of racing instances.
	instances = 32
)

// A suite is one subtest on one cell.
type suite struct {
	*testing.T
	ctx     context.Context
	newCell func(*testing.T) func() fleetkey.KeyStore
	open    func() fleetkey.KeyStore
	races   int // so far
}

// A saved is the result of one Save in a race.
type saved struct {
	content []byte
	version fleetkey.Version
	err     error
}

// saveAll makes every instance save a different bundle at once.
func (s *suite) saveAll(ctx context.Context, prev fleetkey.Version) <-chan saved {
	results := make(chan saved, instances)
	start := make(chan struct{})
	s.races++ // numbers the bundles, which must not contain prev, as errors may name it
	for i := range instances {
		store, b := s.open(), bundle(fmt.Sprintf("instance %d in race %d", i, s.races), 3000+i)
		go func() {
			<-start
			v, err := store.Save(ctx, b, prev)
			results <- saved{b, v, err}
		}()
	}
	close(start)
	return results
}

// race requires that exactly one instance succeeds, and returns its bundle and version.
func (s *suite) race(prev fleetkey.Version) ([]byte, fleetkey.Version) {
	s.Helper()
	var winners []saved
	results := s.saveAll(s.ctx, prev)
	for range instances {
		r := <-results
		if r.err == nil {
			winners = append(winners, r)
		} else if !errors.Is(r.err, fleetkey.ErrConflict) {
			s.Errorf("Save that lost a race: error %v, want one that matches ErrConflict", r.err)
		}
		s.requireNoLeak(r.err, r.content)
	}
	if len(winners) != 1 || s.Failed() {
		s.Fatalf("%d of %d Saves with prev %q succeeded, want exactly 1", len(winners), instances, prev)
	}
	return winners[0].content, winners[0].version
}

func (s *suite) mustSave(store fleetkey.KeyStore, b []byte, prev fleetkey.Version) fleetkey.Version {
	s.Helper()
	v, err := store.Save(s.ctx, b, prev)
	s.requireNoLeak(err, b)
	if err != nil {
		s.Fatalf("Save with prev %q: %v", prev, err)
	}
	if v == "" {
		s.Fatal("Save returned the zero version")
	}
	return v
}

func (s *suite) requireConflict(store fleetkey.KeyStore, b []byte, prev fleetkey.Version) {
	s.Helper()
	_, err := store.Save(s.ctx, b, prev)
	if !errors.Is(err, fleetkey.ErrConflict) {
		s.Fatalf("Save with prev %q: error %v, want one that matches ErrConflict", prev, err)
	}
	s.requireNoLeak(err, b)
}

func (s *suite) requireAbsent(store fleetkey.KeyStore) {
	s.Helper()
	b, v, err := store.Load(s.ctx)
	if !errors.Is(err, fleetkey.ErrNotExist) || !errors.Is(err, fs.ErrNotExist) {
		s.Fatalf("Load of an absent bundle: %d bytes, version %q, error %v; want an error that matches ErrNotExist", len(b), v, err)
	}
}

// requireHolds waits until the store returns version v, requires its content to be want,
// and returns it.
func (s *suite) requireHolds(store fleetkey.KeyStore, want []byte, v fleetkey.Version) []byte {
	s.Helper()
	for deadline := time.Now().Add(settleTime); ; time.Sleep(20 * time.Millisecond) {
		b, got, err := store.Load(s.ctx)
		if err == nil && got == v {
			if !bytes.Equal(b, want) {
				s.Fatalf("Load of version %q: %d bytes, which are not the %d bytes saved", v, len(b), len(want))
			}
			return b
		}
		s.requireNoLeak(err, want)
		if late := err == nil || errors.Is(err, fs.ErrNotExist); !late || time.Now().After(deadline) {
			s.Fatalf("Load: version %q, error %v; want version %q", got, err, v)
		}
	}
}

// requireNoLeak requires that an error contains no part of the bundle in any common
// encoding.
func (s *suite) requireNoLeak(err error, b []byte) {
	s.Helper()
	if err == nil {
		return
	}
	text := fmt.Sprintf("%v\n%+v\n%#v", err, err, err)
	const piece = 24 // a multiple of 3, to align with base64
	for i := 0; i+piece <= len(b); i += piece {
		p := b[i : i+piece]
		decimal := strings.Trim(fmt.Sprint(p), "[]")
		for _, spelling := range []string{string(p), hex.EncodeToString(p), base64.StdEncoding.EncodeToString(p), decimal} {
			if strings.Contains(text, spelling) {
				s.Fatalf("an error holds a piece of the bundle (bytes %d to %d); its text is not shown", i, i+piece)
			}
		}
	}
}

// bundle returns PEM text of exactly size bytes that differs for each name: explanatory
// text, followed by a block of pseudorandom bytes. It does not contain a key.
func bundle(name string, size int) []byte {
	body := make([]byte, max(0, size-200)*48/65)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(body)
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: body})
	head := fmt.Sprintf("# %s: test data, not a key\n", name)
	fill := bytes.Repeat([]byte("#"), size-len(head)-len(block)-1)
	return slices.Concat([]byte(head), fill, []byte("\n"), block)
}
