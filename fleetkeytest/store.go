// Package fleetkeytest helps to test programs that use fleetkey, and to test
// stores that fleetkey is to use.
//
//   - [NewSigner] gives a unit test a ready signer, with fixed keys and no file,
//     network or key generation.
//   - [NewIssuer] gives the test of a service that verifies tokens an issuer that signs
//     them, with its discovery document and JWKS.
//   - [NewStore] gives a store in memory that fails, delays or answers with old
//     content when a test says so.
//   - [TestKeyStore] checks an implementation of [fleetkey.KeyStore] against
//     every promise of that interface.
//
// The signer, the issuer and the store work inside a testing/synctest bubble.
package fleetkeytest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fleetkey/fleetkey"
)

// A Store is a [fleetkey.KeyStore] in memory, for tests. It keeps every promise
// of the interface until a hook ([Store.SetHook]) makes it misbehave.
//
// One Store stands for one instance's way to the cell: [Store.Open] gives
// another instance the same cell with its own hook and counts, so that a
// test can cut one instance off while the others go on. All methods may be
// called at the same time.
type Store struct {
	cell *cell

	mu    sync.Mutex // guards what follows
	hook  func(Call) Fault
	loads int
	saves int
}

// NewStore returns a store that holds nothing yet and has no hook.
func NewStore() *Store {
	return &Store{cell: &cell{history: []state{{}}}}
}

// Open returns another way to the same content, without a hook and with counts
// that start at zero, as another instance of a fleet would have.
func (s *Store) Open() *Store { return &Store{cell: s.cell} }

// String names the store in errors and logs.
func (s *Store) String() string { return "the in-memory store" }

// A Call tells a hook which call is about to happen.
type Call struct {
	Op Op
	// N counts the calls of this Op on this Store: 1 for the first.
	N int
}

// An Op is a method of [fleetkey.KeyStore].
type Op string

// The methods a hook is asked about.
const (
	OpLoad Op = "load"
	OpSave Op = "save"
)

// A Fault is what a hook wants to happen to one call. The zero Fault leaves the
// call alone. The fields add up: first the delay, then the rest.
type Fault struct {
	// Delay is how long the call waits before it does anything. A context
	// that ends in that time ends the call with the context's error.
	Delay time.Duration

	// Err, if not nil, is what the call fails with. The content is not touched,
	// unless Stored says so. The store's name is added; [errors.Is] finds Err.
	Err error

	// Stored makes a Save that fails with Err take effect all the same, if its
	// prev is right: the reply was lost on its way back.
	Stored bool

	// Stale makes a Load answer with the content as it was so many changes ago,
	// "absent" included, as an eventually consistent service may.
	Stale int
}

// SetHook makes the store ask hook about each call before it happens; nil ends
// that. It replaces an earlier hook and does not affect calls under way. The
// hook may be called from many goroutines at the same time, and may use the
// store's other methods.
func (s *Store) SetHook(hook func(Call) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Load implements [fleetkey.KeyStore].
func (s *Store) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	f, err := s.begin(ctx, OpLoad)
	if err == nil {
		err = f.Err
	}
	if err != nil {
		return nil, "", storeError(OpLoad, err)
	}
	now := s.cell.ago(f.Stale)
	if now.version == "" {
		return nil, "", storeError(OpLoad, fleetkey.ErrNotExist)
	}
	return []byte(now.data), now.version, nil
}

// Save implements [fleetkey.KeyStore]. Like AWS Secrets Manager it refuses more
// than [fleetkey.MaxBundleSize] bytes.
func (s *Store) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	f, err := s.begin(ctx, OpSave)
	if err == nil && !f.Stored {
		err = f.Err
	}
	if err == nil && len(bundle) > fleetkey.MaxBundleSize {
		err = fmt.Errorf("a bundle of %d bytes is over the limit of %d", len(bundle), fleetkey.MaxBundleSize)
	}
	if err != nil {
		return "", storeError(OpSave, err)
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

// begin counts a call, asks the hook about it, and waits as the hook wants.
func (s *Store) begin(ctx context.Context, op Op) (Fault, error) {
	s.mu.Lock()
	n := &s.loads
	if op == OpSave {
		n = &s.saves
	}
	*n++
	call, hook := Call{Op: op, N: *n}, s.hook
	s.mu.Unlock()

	var f Fault
	if hook != nil {
		f = hook(call) // without the lock: a hook may call back
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return f, ctx.Err()
}

func storeError(op Op, err error) error {
	return fmt.Errorf("%s the key bundle in the in-memory store: %w", op, err)
}

// Loads returns how often Load was called on this Store, failures included.
func (s *Store) Loads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads
}

// Saves returns how often Save was called on this Store, failures and lost
// races included.
func (s *Store) Saves() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saves
}

// Set replaces the content behind everyone's back, as an operator would, and
// returns the new version. It asks no hook and takes anything, garbage included.
func (s *Store) Set(bundle []byte) fleetkey.Version {
	s.cell.mu.Lock()
	defer s.cell.mu.Unlock()
	return s.cell.put(string(bundle))
}

// Delete removes the content behind everyone's back, as an operator would.
func (s *Store) Delete() {
	s.cell.mu.Lock()
	defer s.cell.mu.Unlock()
	s.cell.history = append(s.cell.history, state{})
}

// RollBack puts back the content that had version v, under that version, as an
// operator does who moves AWSCURRENT to an older version of a secret. It panics
// if the store never had that version.
func (s *Store) RollBack(v fleetkey.Version) {
	s.cell.mu.Lock()
	defer s.cell.mu.Unlock()
	i := slices.IndexFunc(s.cell.history, func(old state) bool { return old.version == v })
	if v == "" || i < 0 {
		panic("fleetkeytest: roll back: the store never had version " + string(v))
	}
	s.cell.history = append(s.cell.history, s.cell.history[i])
}

// Content returns what the store holds now and its version, or nil and the zero
// version. It is not counted and asks no hook.
func (s *Store) Content() ([]byte, fleetkey.Version) {
	now := s.cell.ago(0)
	if now.version == "" {
		return nil, ""
	}
	return []byte(now.data), now.version
}

// A cell is the content that all Stores opened on it share. Versions are
// numbered, not hashed: saving the same bytes again is a new version, which is
// the harder case for a caller.
type cell struct {
	mu      sync.Mutex
	history []state // never empty; the last one is the present
	made    int     // how many versions there have been
}

// A state is one content of a cell; the zero state is "absent".
type state struct {
	data    string
	version fleetkey.Version
}

// ago returns the state of so many changes ago.
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

// put needs c.mu.
func (c *cell) put(data string) fleetkey.Version {
	c.made++
	v := fleetkey.Version(fmt.Sprintf("v%d", c.made))
	c.history = append(c.history, state{data, v})
	return v
}
