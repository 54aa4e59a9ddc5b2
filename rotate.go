package fleetkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// This file contains all writes to the store after the fleet's first key. Each is a
// compare-and-swap on the version that was read, so any instance may try and exactly one
// succeeds.

// Rotate announces a new key, which takes over after Rotation.Announce. If a key is already
// announced, Rotate does nothing. If no key can sign, the new one signs at once. Rotate
// requires permission to write to the store, and works whether automatic rotation is on or
// off.
//
// If automatic rotation is off, make sure that every instance reads the store before the
// new key takes over. An instance that has not read the store does not know the new key,
// and continues to sign with the old one. The others drop the old key after Rotation.Retain.
//
// If another writer is faster or the store is unavailable, Rotate retries until ctx ends.
// It returns any other error at once.
func (s *Signer) Rotate(ctx context.Context) error {
	var made string // by an earlier try, whose reply may have been lost
	return s.change(ctx, "rotate", func(set *keyset.Set, now time.Time, p *keyset.Policy) (*keyset.Set, error) {
		if set.Find(made) != nil {
			return nil, nil
		}
		next, err := s.rotated(set, now, p)
		if err == nil && next != nil {
			for _, k := range next.Keys {
				if set.Find(k.ID) == nil {
					made = k.ID
				}
			}
		}
		return next, err
	})
}

// rotated returns the set that Rotate saves. It restores revocations that the store has
// lost.
func (s *Signer) rotated(set *keyset.Set, now time.Time, p *keyset.Policy) (*keyset.Set, error) {
	if len(s.lost(set)) == 0 {
		return set.Rotate(now, p)
	}
	known, err := s.withRevoked(set, now, p)
	if err != nil {
		return nil, err
	}
	if k, _ := known.Signing(now); k != nil && set.Find(k.ID) == nil {
		return known, nil // a fresh key signs
	}
	next, err := known.Rotate(now, p)
	if next == nil && err == nil {
		next = known
	}
	return next, err
}

// lost returns the revocations that this instance knows and a set lacks.
func (s *Signer) lost(set *keyset.Set) []string {
	return slices.DeleteFunc(slices.Clone(s.revoked), set.IsRevoked)
}

// withRevoked returns the set that revokes further keys, and restores revocations that the
// store has lost.
func (s *Signer) withRevoked(set *keyset.Set, now time.Time, p *keyset.Policy, ids ...string) (*keyset.Set, error) {
	return s.without(set).Revoke(now, p, slices.Concat(s.revoked, ids)...)
}

// Revoke permanently ends trust in a key, for example because it was stolen. kid is any kid
// under which this instance knows the key, including that of a former system, or the RFC
// 7638 thumbprint of any key, even one not in the set. Every instance rejects the key's
// tokens after its next refresh, and clients do so once they have fetched the JWKS again.
// If the key was the signing key, a new one takes over at once; clients with a cached JWKS
// reject its tokens until they fetch the JWKS again.
//
// While an instance that knows of the revocation is running, no rollback of the store,
// import or configuration brings the key back. Revoke retries as Rotate does.
func (s *Signer) Revoke(ctx context.Context, kid string) error {
	id := kid
	known := s.verifier.current.Load().ByName(kid)
	if known == nil { // revoked before; the store may have lost it since
		known = trust.Named(s.verifier.others, kid)
	}
	if known != nil {
		id = jws.Thumbprint(known.Public)
	} else if err := keyset.CheckThumbprint(kid); err != nil {
		return fmt.Errorf("fleetkey: revoke: %w: no key has this kid, and %w", ErrUnknownKey, err)
	}
	return s.change(ctx, "revoke "+id, func(set *keyset.Set, now time.Time, p *keyset.Policy) (*keyset.Set, error) {
		if set.IsRevoked(id) {
			return nil, nil
		}
		return s.withRevoked(set, now, p, id)
	})
}

// RevokeAll revokes every key whose private key is in the store, and makes a new one. Use
// it if the bundle has leaked.
func (s *Signer) RevokeAll(ctx context.Context) error {
	var ids []string
	return s.change(ctx, "revoke all keys", func(set *keyset.Set, now time.Time, p *keyset.Policy) (*keyset.Set, error) {
		if ids == nil { // a retry must not revoke the key made by this try
			for _, k := range set.Keys {
				ids = append(ids, k.ID)
			}
		}
		if !slices.ContainsFunc(ids, func(id string) bool { return !set.IsRevoked(id) }) {
			return nil, nil
		}
		return s.withRevoked(set, now, p, ids...)
	})
}

// change reads the set, calls f for the set that should replace it, and saves that. It
// starts over if another writer was first or the store is unavailable. If f returns nil, no
// change is due.
func (s *Signer) change(ctx context.Context, what string, f func(*keyset.Set, time.Time, *keyset.Policy) (*keyset.Set, error)) error {
	if isReadOnly(s.store) {
		return fmt.Errorf("fleetkey: %s: %w: %s; make the change where its keys come from", what, ErrReadOnly, storeName(s.store))
	}
	policy := s.policy()
	var reason error // from the last try that ctx did not interrupt
	for wait := firstChangeRetry; ; wait = min(2*wait, maxChangeRetry) {
		err := s.tryChange(ctx, what, policy, f)
		if err == nil {
			return nil
		}
		if reason == nil || ctx.Err() == nil {
			reason = err
		}
		again := errors.Is(err, ErrConflict) || errors.Is(err, ErrUnavailable)
		if !again || ctx.Err() != nil || !refresh.Sleep(ctx, refresh.Spread(wait)) {
			return fmt.Errorf("fleetkey: %s: %w", what, errors.Join(ctx.Err(), reason))
		}
	}
}

func (s *Signer) tryChange(ctx context.Context, what string, p *keyset.Policy, f func(*keyset.Set, time.Time, *keyset.Policy) (*keyset.Set, error)) error {
	if err := s.verifier.refresh.Lock(ctx); err != nil {
		return err
	}
	defer s.verifier.refresh.Unlock()
	r, err := s.readStore(ctx)
	if err != nil {
		return err
	}
	next, err := f(r.set, s.verifier.clock.Now(), p)
	if err == nil && next != nil {
		err = s.replace(ctx, r, next, what)
	}
	// After an error, adopt the reading only for a revocation, as it may be older than the view.
	// Status reports a refusal after the next load.
	news := len(s.lost(s.verifier.current.Load().Set)) > 0
	if err == nil && next == nil || news {
		if followErr := s.follow(r); !errors.Is(followErr, refresh.ErrRefused) {
			err = errors.Join(err, followErr)
		}
	}
	return err
}

// replace saves a set over the one that was read, and adopts it. It rejects a set that
// instances could not read.
func (s *Signer) replace(ctx context.Context, read reading, next *keyset.Set, why string) error {
	bundle, err := next.Encode()
	if err != nil {
		return err
	}
	if next, err = keyset.Parse(bundle); err != nil {
		return fmt.Errorf("not saved, because no instance could read the new set: %w", err)
	}
	version, err := s.save(ctx, bundle, read.version)
	if err != nil {
		return err
	}
	s.cfg.Logger.Info("changed the key set", "store", storeName(s.store), "why", why, "old_version", read.version, "version", version)
	return s.take(reading{next, version})
}

// maintain makes the change that the rotation policy requires now, and writes back
// revocations that the store has lost. The refresh goroutine calls it after each load. It
// backs off after failures, so that a fleet without write permission does not hammer the
// store (AWS Secrets Manager keeps every version for a day, and at most about 100). A
// changed set ends the wait.
func (s *Signer) maintain(ctx context.Context) {
	lost := s.lost(s.read.set)
	s.rotation.lost.Store(int64(len(lost)))
	if s.rotation.writes.version != s.read.version {
		s.rotation.writes = writes{}
		s.rotation.err.Store(nil)
	}
	if s.cfg.Rotation.Every == 0 || isReadOnly(s.store) || s.clockJumped() || s.verifier.clock.Monotonic() < s.rotation.writes.notBefore {
		return
	}
	next, why, err := s.due(len(lost) > 0)
	if err == nil && next != nil {
		err = s.replace(ctx, s.read, next, why)
	}
	if errors.Is(err, ErrConflict) { // another instance has done it
		err = s.load(ctx)
	}
	if err == nil || ctx.Err() != nil {
		s.rotation.writes = writes{}
		s.rotation.err.Store(nil)
		return
	}
	wait := min(firstWriteRetry<<min(s.rotation.writes.failures, 10), maxWriteRetry)
	s.rotation.writes = writes{version: s.read.version, failures: s.rotation.writes.failures + 1, notBefore: s.verifier.clock.Monotonic() + wait}
	s.rotation.err.Store(&err)
	s.cfg.Logger.Error("cannot rotate the signing key; continuing with the current one", "store", storeName(s.store),
		"failures", s.rotation.writes.failures, "retry_in", wait, "err", err)
}

// due returns the set that should replace the last one read, and why, or nil.
func (s *Signer) due(lost bool) (*keyset.Set, string, error) {
	now := s.verifier.clock.Now()
	if lost {
		next, err := s.withRevoked(s.read.set, now, s.policy())
		return next, "restored revocations that the store had lost", err
	}
	return s.read.set.Due(now, s.policy())
}

// rotation is the state of maintain. Only the refresh goroutine uses it, except for err and
// lost.
type rotation struct {
	watch  *clock.Watch
	writes writes
	err    atomic.Pointer[error] // of the last due rotation, or nil
	lost   atomic.Int64          // revocations missing in the store
	warned time.Time             // of the certificate's end; see report
}

// writes counts failed writes of maintain over a version.
type writes struct {
	version   Version
	failures  int
	notBefore time.Duration // earliest next try, by the monotonic clock
}

const (
	firstWriteRetry = 10 * time.Minute // of the automatic loop
	maxWriteRetry   = 6 * time.Hour

	firstChangeRetry = 100 * time.Millisecond // of Rotate and Revoke
	maxChangeRetry   = 10 * time.Second
)

// clockJumped reports whether the wall clock has recently jumped against the monotonic one.
// Which reading was right is unknown, so this instance leaves the key set to the others for
// a while.
func (s *Signer) clockJumped() bool {
	jump, trusted := s.rotation.watch.Look(2*s.cfg.ClockSkew, s.cfg.Rotation.Announce)
	if jump != 0 {
		s.cfg.Logger.Warn("the clock jumped; this instance pauses rotation",
			"by", jump, "for", s.cfg.Rotation.Announce)
	}
	return !trusted
}
