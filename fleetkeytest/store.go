// Package fleetkeytest provides test doubles for programs that use fleetkey, and a
// conformance suite for key stores.
//
//   - [NewSigner] returns a signer with fixed keys, which requires no file, network or key
//     generation.
//   - [NewIssuer] returns an issuer with a discovery document and JWKS, for services that
//     verify tokens.
//   - [NewStore] returns an in-memory store that fails, delays or returns old content on
//     demand.
//   - [TestKeyStore] checks an implementation of [fleetkey.KeyStore].
//
// The signer, the issuer and the store work in a testing/synctest bubble.
package fleetkeytest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fleetkey/fleetkey"
)

// A Store is an in-memory [fleetkey.KeyStore] for tests. It keeps every promise of the
// interface unless a hook ([Store.SetHook]) makes it misbehave.
//
// Each Store represents one instance's access to shared content. [Store.Open] returns
// another Store on the same content, with a separate hook and separate counts, so a test
// can cut off one instance while others continue. All methods are safe for concurrent use.
type Store struct {
	cell *cell

	mu    sync.Mutex // guards what follows
	hook  func(Call) Fault
	calls map[Op]int
}

// NewStore returns an empty store without a hook.
func NewStore() *Store { return (&Store{cell: &cell{history: []state{{}}}}).Open() }

// Open returns another Store on the same content, as for another instance of a fleet. It
// has no hook, and its counts start at zero.
func (s *Store) Open() *Store { return &Store{cell: s.cell, calls: map[Op]int{}} }

// String returns the name of the store for errors and logs.
func (s *Store) String() string { return "the in-memory store" }

// A Call tells a hook which call of Load or Save is about to run.
type Call struct {
	Op Op
	// N counts the calls of this Op on this Store: 1 for the first.
	N int
}

// An Op is a method of [fleetkey.KeyStore].
type Op string

// The methods that call a hook.
const (
	OpLoad Op = "load"
	OpSave Op = "save"
)

// A Fault is what a hook does to a call. The zero Fault does nothing. Fields can be
// combined; the delay comes first.
type Fault struct {
	// Delay is how long the call waits before it does anything. If the context ends during
	// the delay, the call returns the context's error.
	Delay time.Duration

	// Err, if not nil, is returned by the call, wrapped with the name of the store. The
	// content does not change unless Stored is set.
	Err error

	// Stored makes a Save that returns Err take effect if its prev is right, as if the
	// reply were lost.
	Stored bool

	// Stale, if positive, makes a Load return the content from that number of changes ago, or
	// ErrNotExist if the store was empty then, as an eventually consistent service may.
	Stale int
}

// SetHook makes the store call hook before each call; nil removes the hook. Calls in
// progress are not affected. The hook must be safe for concurrent use, and may call the
// store's other methods.
func (s *Store) SetHook(hook func(Call) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Load implements [fleetkey.KeyStore].
func (s *Store) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	f := s.begin(ctx, OpLoad)
	if f.Err != nil {
		return nil, "", storeError(OpLoad, f.Err)
	}
	now := s.cell.ago(f.Stale)
	if now.version == "" {
		return nil, "", storeError(OpLoad, fleetkey.ErrNotExist)
	}
	return []byte(now.data), now.version, nil
}

// Save implements [fleetkey.KeyStore]. Like AWS Secrets Manager, it rejects more than
// [fleetkey.MaxBundleSize] bytes.
func (s *Store) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	f := s.begin(ctx, OpSave)
	if f.Err != nil && !f.Stored {
		return "", storeError(OpSave, f.Err)
	}
	if len(bundle) > fleetkey.MaxBundleSize {
		return "", storeError(OpSave, fmt.Errorf("a bundle of %d bytes is over the limit of %d", len(bundle), fleetkey.MaxBundleSize))
	}
	v, err := s.cell.swap(string(bundle), prev)
	if f.Err != nil {
		err = f.Err
	}
	if err != nil {
		return "", storeError(OpSave, err)
	}
	return v, nil
}

// begin counts a call, calls the hook, waits for the Delay, and returns the Fault.
func (s *Store) begin(ctx context.Context, op Op) (f Fault) {
	s.mu.Lock()
	s.calls[op]++
	call, hook := Call{Op: op, N: s.calls[op]}, s.hook
	s.mu.Unlock()

	if hook != nil {
		f = hook(call) // without the lock, since the hook may call methods
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return Fault{Err: err}
	}
	return f
}

func storeError(op Op, err error) error {
	return fmt.Errorf("%s the key bundle in the in-memory store: %w", op, err)
}

// Loads returns the number of calls of Load on this Store, including failed ones.
func (s *Store) Loads() int { return s.count(OpLoad) }

// Saves returns the number of calls of Save on this Store, including failed ones.
func (s *Store) Saves() int { return s.count(OpSave) }

func (s *Store) count(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// Set replaces the content as an operator would, and returns the new version. It calls no
// hook and accepts any bytes.
func (s *Store) Set(bundle []byte) fleetkey.Version {
	s.cell.mu.Lock()
	defer s.cell.mu.Unlock()
	return s.cell.put(string(bundle))
}

// Delete removes the content as an operator would.
func (s *Store) Delete() {
	s.cell.mu.Lock()
	defer s.cell.mu.Unlock()
	s.cell.history = append(s.cell.history, state{})
}

// RollBack restores the content that had version v, with that version, as when an operator
// moves AWSCURRENT to an older version of a secret. It panics if the store never had that
// version.
func (s *Store) RollBack(v fleetkey.Version) {
	s.cell.mu.Lock()
	defer s.cell.mu.Unlock()
	i := slices.IndexFunc(s.cell.history, func(old state) bool { return old.version == v })
	if v == "" || i < 0 {
		panic("fleetkeytest: roll back: the store never had version " + string(v))
	}
	s.cell.history = append(s.cell.history, s.cell.history[i])
}

// Content returns the content of the store and its version, or nil and the zero version. It
// is not counted and calls no hook.
func (s *Store) Content() ([]byte, fleetkey.Version) {
	now := s.cell.ago(0)
	if now.version == "" {
		return nil, ""
	}
	return []byte(now.data), now.version
}

// A cell is the content shared by all Stores opened on it. Versions are numbered, not
// hashed: saving equal bytes makes a new version, which is the harder case for a caller.
type cell struct {
	mu      sync.Mutex
	history []state // never empty; the last one is the present
	made    int     // number of versions so far
}

// A state is the content of a cell at one time. The zero state means absent.
type state struct {
	data    string
	version fleetkey.Version
}

// ago returns the state before the given number of changes.
func (c *cell) ago(changes int) state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.history[max(0, len(c.history)-1-max(0, changes))]
}

func (c *cell) swap(data string, prev fleetkey.Version) (fleetkey.Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.history[len(c.history)-1].version; now != prev {
		return "", fmt.Errorf("%w: it holds version %q, the caller had %q", fleetkey.ErrConflict, now, prev)
	}
	return c.put(data), nil
}

// put stores data. c.mu must be held.
func (c *cell) put(data string) fleetkey.Version {
	c.made++
	v := fleetkey.Version(fmt.Sprintf("v%d", c.made))
	c.history = append(c.history, state{data, v})
	return v
}
