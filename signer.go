package fleetkey

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey/internal/clock"
)

// A Signer issues and verifies access tokens with the key set that its store
// keeps for the whole fleet. It works from memory: Issue and Verify neither
// lock nor wait for the store, but for one case: a token signed by a key not
// seen before makes Verify look for it in the store, at most once in 10 seconds.
//
// All methods may be called at the same time.
type Signer struct {
	cfg   Config
	store KeyStore
	clock clock.Clock

	current atomic.Pointer[snapshot]
	health  atomic.Pointer[health]
	refresher
	counters counters
}

const (
	// storeTimeout ends a call to a store that has no deadline of its own.
	storeTimeout = 30 * time.Second
	// emptyTimeout bounds the wait for the winner's bundle after a lost create.
	emptyTimeout = 10 * time.Second
	// staleRead is how long after a change a store may still show what was before.
	staleRead = time.Minute
	// firstRetry is the first of the growing waits for an unavailable store.
	firstRetry = time.Second
)

// NewSigner loads the key set from the store and keeps it fresh until Close. If
// the store is empty, NewSigner creates the fleet's first key and a self-signed
// certificate; however many instances start at once, all end up with the same
// one.
//
// While the store is unavailable ([ErrUnavailable]), NewSigner tries again,
// backing off up to RefreshEvery, until ctx ends; give ctx a deadline to fail
// instead. Every other failure is returned at once, and nothing that exists is
// ever overwritten. After NewSigner has returned, ctx has no effect.
//
// With Config.Adopt, an empty store gets the key set of that other store
// instead of a new one, under the same kids, so that live tokens stay valid. If
// another instance was first, the old certificates are added to its set, to be
// trusted for Rotation.Retain (this needs rights to write). Either way a note in
// the other store then says so, and the next start leaves it alone. If that store
// cannot be written, remove it yourself: each start renews that trust, for a key
// revoked long ago as well.
func NewSigner(ctx context.Context, store KeyStore, cfg Config) (*Signer, error) {
	cfg, err := cfg.withDefaults()
	if err == nil {
		err = cfg.checkBounds()
	}
	if err != nil {
		return nil, fmt.Errorf("fleetkey: %w", err)
	}
	return newSigner(ctx, store, cfg)
}

func newSigner(ctx context.Context, store KeyStore, cfg Config) (*Signer, error) {
	s := &Signer{cfg: cfg, store: store, clock: clock.From(ctx)}
	adoption, err := s.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleetkey: start: %w", err)
	}
	s.startRefreshing()
	if adoption != nil {
		s.finishAdoption(ctx, adoption)
	}
	return s, nil
}

// Format prints the name of the store, whatever the verb. The keys are left out,
// and so are the fields, which change while fmt would read them.
func (s *Signer) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "signer with the keys of %s", storeName(s.store))
}

// storeName is how a store names itself in errors and logs.
func storeName(store KeyStore) string {
	if named, ok := store.(fmt.Stringer); ok {
		return named.String()
	}
	return fmt.Sprintf("%T", store)
}

// start fills the first snapshot. It tries again while a store is unavailable.
func (s *Signer) start(ctx context.Context) (*adoption, error) {
	var (
		begun *adoption
		// The key that it may have to generate is made once, so that a create
		// whose reply was lost is recognised as our own.
		first *keySet
	)
	for wait := firstRetry; ; wait = min(2*wait, s.cfg.RefreshEvery) {
		var err error
		if first == nil {
			if begun, err = s.beginAdoption(ctx); begun != nil {
				first = begun.set
			}
		}
		if err == nil {
			err = s.loadOrCreate(ctx, &first)
		}
		if err == nil {
			return begun, nil
		}
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return nil, err
		}
		s.cfg.Logger.Warn("cannot read the signing keys yet, will try again", "store", storeName(s.store), "wait", wait, "err", err)
		if !sleep(ctx, jitter(wait)) {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// loadOrCreate loads the key set, or creates it if the store definitely has
// none. A refusal of the very first read may hide that it has none, and to
// create never overwrites, so it is tried then too; the answer still has to be
// read afterwards, since a signer that cannot read cannot stay fresh.
func (s *Signer) loadOrCreate(ctx context.Context, first **keySet) error {
	err := s.load(ctx)
	if !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrAccessDenied) {
		return err
	}
	if *first == nil {
		k, err := newKeyForNow(s.clock.Now(), &s.cfg)
		if err != nil {
			return err
		}
		*first = newKeySet(k)
	}
	bundle, encodeErr := (*first).encode()
	if encodeErr != nil {
		return encodeErr
	}
	version, saveErr := s.save(ctx, bundle, "")
	switch {
	case saveErr == nil && errors.Is(err, ErrNotExist):
		s.cfg.Logger.Info("created the first signing key", "store", storeName(s.store), "kid", (*first).keys[0].id, "version", version)
		return s.adopt(*first, version)
	case saveErr == nil || errors.Is(saveErr, ErrConflict):
		return s.loadWinner(ctx)
	case errors.Is(saveErr, ErrAccessDenied):
		return errors.Join(err, saveErr)
	}
	return saveErr
}

// loadWinner loads a bundle that certainly was saved, by a store that may not
// show it yet.
func (s *Signer) loadWinner(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, emptyTimeout)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := s.load(ctx)
		if !errors.Is(err, ErrNotExist) {
			return err
		}
		if !sleep(ctx, jitter(wait)) {
			return fmt.Errorf("%s: the secret exists but has no value; put a bundle there, or remove it so that one is created: %w", storeName(s.store), err)
		}
	}
}

// load reads the store and adopts what it holds.
func (s *Signer) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	bundle, version, err := s.store.Load(ctx)
	if err != nil {
		return timedOut(ctx, err)
	}
	if old := s.current.Load(); old != nil {
		asBefore := old.version == version && !old.outdated(s.clock.Now())
		if asBefore || old.isStale(version) {
			return nil
		}
	}
	set, err := parseKeySet(bundle)
	if err != nil {
		return fmt.Errorf("version %s in %s is not a key bundle: %w", version, storeName(s.store), err)
	}
	return s.adopt(set, version)
}

func (s *Signer) save(ctx context.Context, bundle []byte, prev Version) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*storeTimeout)
	defer cancel()
	version, err := s.store.Save(ctx, bundle, prev)
	if err != nil {
		return "", timedOut(ctx, err)
	}
	return version, nil
}

// timedOut marks an error of a call that ran out of its own time as one that
// another try may not meet.
func timedOut(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// adopt makes a set the one that this instance works with.
func (s *Signer) adopt(set *keySet, version Version) error {
	old := s.current.Load()
	known := old
	if h := s.health.Load(); h != nil && h.age(s.clock.Now()) > s.cfg.Rotation.Retain {
		// Out of touch for so long that what is gone may have been revoked, and
		// the mark of that be gone as well.
		known = nil
	}
	next, err := newSnapshot(set, version, known, s.clock.Now(), &s.cfg)
	if err != nil {
		return err
	}
	s.current.Store(next)
	if old == nil || old.version != version {
		s.logAdopted(old, next)
	}
	return nil
}

// A SigningKey is the key that signs now, for OpenID server frameworks that do
// their own signing.
type SigningKey struct {
	KeyID       string
	Algorithm   string // JOSE name, such as RS256
	Signer      crypto.Signer
	Certificate *x509.Certificate
}

// Format prints the kid and algorithm, whatever the verb, and never the private
// half. That holds where fmt may call methods: not for a SigningKey in an
// unexported field, and not for its Signer by itself.
func (k SigningKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%s key %s", k.Algorithm, k.KeyID) }

// MarshalText returns the same text, for encoders such as encoding/json and
// log/slog.
func (k SigningKey) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }

// SigningKey returns the key that signs now. Ask anew for every token, since
// the key changes. If no key can sign, the result is the zero SigningKey.
func (s *Signer) SigningKey() SigningKey {
	k, err := s.signingKey(s.clock.Now())
	if err != nil {
		return SigningKey{}
	}
	return SigningKey{KeyID: k.id, Algorithm: k.alg.name, Signer: k.private, Certificate: k.cert}
}

// A PublicKey verifies tokens.
type PublicKey struct {
	KeyID       string
	Algorithm   string           // JOSE name, such as RS256
	Key         crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	Certificate *x509.Certificate
}

// PublicKeys returns every key that is trusted now, those announced and those
// replaced included. JWKS serves the same keys, and those of other systems under
// every kid that they go by.
func (s *Signer) PublicKeys() []PublicKey {
	now := s.clock.Now()
	var keys []PublicKey
	for _, k := range s.current.Load().keys {
		if now.Before(k.until) {
			keys = append(keys, PublicKey{KeyID: k.id, Algorithm: k.alg.name, Key: k.cert.PublicKey, Certificate: k.cert})
		}
	}
	return keys
}

// sleep waits and reports true, or false if the context ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// jitter spreads the calls of a fleet: d, or up to a tenth less. It is never more,
// since Config's bounds count on a load each RefreshEvery.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Float64()*0.1*float64(d))
}
