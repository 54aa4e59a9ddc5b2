package fleetkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
)

// This file contains the start of a Signer and its reads of the store.

const (
	// storeTimeout limits a call to a store.
	storeTimeout = 30 * time.Second
	// emptyTimeout bounds the wait for the winner's bundle after a lost create. Most stores
	// show it within firstLook, and one that is eventually consistent within laterLook.
	emptyTimeout, firstLook, laterLook = 10 * time.Second, 200 * time.Millisecond, 4 * time.Second
	// Waits for an unavailable store grow from firstRetry, or from throttledRetry if it has
	// throttled a call, to maxRetry. Half of throttledRetry is long enough to see the secret
	// that another instance has created in the meantime.
	firstRetry, throttledRetry, maxRetry = time.Second, 6 * time.Second, 30 * time.Second
)

// A reading is the content of a store.
type reading struct {
	set     *keyset.Set
	version Version
}

// start sets the first view. It retries while a store is unavailable.
func (s *Signer) start(ctx context.Context) (*adoption, error) {
	var (
		begun *adoption
		// The first key is generated only once, so that a create whose reply was lost is
		// recognized as our own.
		first *keyset.Set
	)
	for wait := firstRetry; ; wait = min(2*wait, maxRetry, s.cfg.RefreshEvery) {
		var err error
		if begun == nil && s.cfg.Adopt != nil {
			begun, err = s.beginAdoption(ctx)
			first = begun.first()
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
		if errors.Is(err, errThrottled) {
			wait = max(wait, throttledRetry)
		}
		s.cfg.Logger.Warn("cannot read the signing keys yet; retrying", "store", storeName(s.store), "wait", wait, "err", err)
		if !refresh.Sleep(ctx, refresh.Spread(wait)) {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// loadOrCreate loads the key set, or creates it if the store is empty. A denied first read
// may hide an empty store, so a create is tried then too; it cannot overwrite anything. The
// set must still be readable afterwards, since a signer that cannot read cannot stay fresh.
func (s *Signer) loadOrCreate(ctx context.Context, first **keyset.Set) error {
	err := s.load(ctx)
	if !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrAccessDenied) {
		return err
	}
	if isReadOnly(s.store) {
		if errors.Is(err, ErrNotExist) {
			err = fmt.Errorf("%w (%w: provide a bundle made by fleetkey init or by an instance that can write)", err, ErrReadOnly)
		}
		return err
	}
	if s.cfg.MustExist {
		return fmt.Errorf("%w (no first key was created, because Config.MustExist is set)", err)
	}
	if *first == nil {
		var makeErr error
		if *first, makeErr = s.policy().First(s.verifier.clock.Now()); makeErr != nil {
			return makeErr
		}
	}
	bundle, encodeErr := (*first).Encode()
	if encodeErr != nil {
		return encodeErr
	}
	version, saveErr := s.save(ctx, bundle, "")
	switch {
	case saveErr == nil && errors.Is(err, ErrNotExist):
		s.cfg.Logger.Info("created the first signing key", "store", storeName(s.store), "kid", (*first).Keys[0].ID, "version", version)
		return s.take(reading{*first, version})
	case saveErr == nil || errors.Is(saveErr, ErrConflict):
		return s.loadWinner(ctx)
	case errors.Is(saveErr, ErrAccessDenied):
		return errors.Join(err, saveErr)
	}
	return saveErr
}

// loadWinner loads a bundle that is known to be saved, from a store that may not show it yet.
func (s *Signer) loadWinner(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, emptyTimeout)
	defer cancel()
	err := ErrNotExist
	for wait := firstLook; refresh.Sleep(ctx, refresh.Jitter(wait)); wait = laterLook {
		if err = s.load(ctx); !errors.Is(err, ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("%s: the secret exists but has no value; put a bundle there, or remove it so that one is created: %w", storeName(s.store), err)
}

// load reads the store and adopts its content.
func (s *Signer) load(ctx context.Context) error {
	r, err := s.readStore(ctx)
	if err != nil {
		return err
	}
	return s.follow(r)
}

// follow adopts what was read, unless nothing has changed. It ignores a version that this
// instance has just replaced, which comes from a replica that lags behind.
func (s *Signer) follow(r reading) error {
	if old := s.verifier.current.Load(); old != nil {
		now := s.verifier.moment()
		if old.IsStale(string(r.version), now.Monotonic) {
			return nil
		}
		if old.Version == string(r.version) && !old.Outdated(now.Wall) {
			s.read = r // in place of a set that was refused in the meantime
			return nil
		}
	}
	return s.take(r)
}

// readStore returns the content of the store, and learns what was revoked.
func (s *Signer) readStore(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	bundle, version, err := s.store.Load(ctx)
	if err != nil {
		return reading{}, timedOut(ctx, err)
	}
	if version == s.read.version {
		return s.read, nil
	}
	set, err := keyset.Parse(bundle)
	if err != nil {
		return reading{}, fmt.Errorf("version %s in %s is not a key bundle: %w", version, storeName(s.store), err)
	}
	s.learn(set.Revoked)
	return reading{set, version}, nil
}

// learn remembers revocations, which outlive the set that listed them.
func (s *Signer) learn(revoked []string) {
	s.revoked = slices.Compact(slices.Sorted(slices.Values(append(s.revoked, revoked...))))
}

// take makes the set that was read the current one. An instance that can sign refuses a set
// that cannot, unless that set explicitly stops the key that signs now. The revocations of
// a refused set still apply. No key older than a revoked one signs again, since others may no
// longer trust it.
func (s *Signer) take(r reading) error {
	s.read = r
	s.learn(r.set.Revoked) // learned already, unless this instance saved the set
	now, policy := s.verifier.clock.Now(), &s.verifier.policy
	set, old := s.without(r.set).Withdraw(now, policy, s.revoked...), s.verifier.current.Load()
	if old == nil {
		return s.verifier.adopt(set, r.version)
	}
	kept := old.Set.Withdraw(now, policy, s.revoked...)
	next, _ := set.Signing(now)
	if signing, _ := kept.Signing(now); next != nil || signing == nil || r.set.Stops(signing.ID) {
		return s.verifier.adopt(set, r.version)
	}
	err := s.verifier.adopt(kept, Version(old.Version))
	return errors.Join(err, fmt.Errorf("%w: version %s in %s holds no key that can sign; continuing with the last good keys: %w",
		refresh.ErrRefused, r.version, storeName(s.store), set.WhyNoKey(now)))
}

// without returns a set without the keys known to be revoked, if the key that signs now is in
// it. The revoked keys never took over from that key, regardless of their dates, because they
// were revoked before they signed.
func (s *Signer) without(set *keyset.Set) *keyset.Set {
	old := s.verifier.current.Load()
	if old == nil {
		return set
	}
	now := s.verifier.clock.Now()
	signing, _ := old.Set.Withdraw(now, &s.verifier.policy, s.revoked...).Signing(now)
	if signing == nil || set.Find(signing.ID) == nil {
		return set
	}
	return keyset.New(set.Keys, set.Retired, slices.Concat(set.Revoked, s.revoked))
}

// reload is load for the refresher. After a failure, trust still ends by the clock.
func (s *Signer) reload(ctx context.Context) (next time.Duration, err error) {
	err = s.load(ctx)
	if old := s.verifier.current.Load(); err != nil && old.Outdated(s.verifier.clock.Now()) {
		err = errors.Join(err, s.verifier.adopt(old.Set, Version(old.Version)))
	}
	return 0, err
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

// timedOut marks an error of a call that exceeded our limit as one worth retrying.
func timedOut(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
