package fleetkey

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file holds what writes to the store once a fleet has its first key.
// Every write is a compare-and-swap on the version that was read, so any
// instance may try, and exactly one succeeds.

// Rotate announces a new key now; it takes over after Rotation.Announce. If one
// is announced already, Rotate does nothing. If no key can sign, the new one
// signs at once. It needs rights to write to the store, and works whether
// automatic rotation is on or off. With it off, see to it that every instance
// reaches the store meanwhile: one that does not goes on with the old key, which
// the others drop after Rotation.Retain, and does not find out that it is stale.
func (s *Signer) Rotate(ctx context.Context) error {
	return s.change(ctx, "rotate", func(set *keySet, now time.Time) (*keySet, error) {
		return set.rotated(now, &s.cfg)
	})
}

// Revoke takes a key out of the set, for a key that has been stolen. Every
// instance refuses its tokens from its next refresh on, and so do clients once
// they have fetched the JWKS anew. If the key was the one that signs, a fresh
// key takes over at once; clients that know only a cached JWKS refuse its
// tokens until they look again.
//
// A kid that is not in the set is an error that matches [ErrUnknownKey].
func (s *Signer) Revoke(ctx context.Context, kid string) error {
	return s.change(ctx, "revoke "+kid, func(set *keySet, now time.Time) (*keySet, error) {
		known := s.current.Load().byKID[kid] // that of set, and it knows every name of a key
		if known == nil {
			return nil, fmt.Errorf("%w: kid %q is not in the set", ErrUnknownKey, kid)
		}
		return set.without(known.key, now, &s.cfg)
	})
}

// Trust adds the certificate of another system, so that its tokens are accepted
// here until the certificate ends or the key is revoked. The kid is the one in
// that system's tokens; with "", the usual ones are understood: the
// certificate's thumbprints as x5t, x5t#S256 and in hexadecimal (as
// IdentityServer and ADFS write them), and the key's RFC 7638 thumbprint.
// Trusting a key again changes nothing, unless its certificate lasts longer now.
//
// An RSA certificate means RS256 (PS256 if it signs itself so). Other systems'
// access tokens came before RFC 9068, so their typ may be JWT or absent, and
// iat, sub and the limit of their lifetime are theirs to decide. An ID token of
// that system passes as well if its audience is one of Config.Audience.
func (s *Signer) Trust(ctx context.Context, cert *x509.Certificate, kid string) error {
	k, err := makeKey(cert, nil)
	if err == nil && kid != "" {
		k.id, err = kid, checkKeyID(kid)
	}
	if err != nil {
		return fmt.Errorf("fleetkey: trust: %w", err)
	}
	return s.change(ctx, "trust "+k.id, func(set *keySet, now time.Time) (*keySet, error) {
		keys := slices.Clone(set.keys)
		if known := set.find(k.id); known != nil {
			switch {
			case thumbprint(known.cert) != thumbprint(cert):
				return nil, fmt.Errorf("kid %q is the name of another key in the set", k.id)
			case known.private != nil || !cert.NotAfter.After(known.cert.NotAfter):
				return nil, nil
			}
			keys = slices.DeleteFunc(keys, func(k *key) bool { return k == known }) // renewed
		}
		if slices.Contains(set.revoked(), k.id) {
			return nil, fmt.Errorf("%w: kid %q was revoked", ErrUnknownKey, k.id)
		}
		if !now.Before(cert.NotAfter) {
			return nil, fmt.Errorf("the certificate ended at %s", cert.NotAfter.Format(time.RFC3339))
		}
		return newKeySet(append(keys, k)...), nil
	})
}

// maxTries bounds how often change starts again after losing to another writer.
const maxTries = 5

// change loads the set, lets f say what should replace it, and saves that,
// starting again if another writer was first. If f returns nil, nothing is due.
func (s *Signer) change(ctx context.Context, what string, f func(set *keySet, now time.Time) (*keySet, error)) error {
	fail := func(err error) error {
		return fmt.Errorf("fleetkey: %s: %w", what, err)
	}
	if err := s.lockStore(ctx); err != nil {
		return fail(err)
	}
	defer s.unlockStore()
	var err error
	for try := range maxTries {
		if try > 0 && !sleep(ctx, jitter(100*time.Millisecond<<try)) {
			return fail(errors.Join(ctx.Err(), err))
		}
		if err = s.load(ctx); err != nil {
			return fail(err)
		}
		current := s.current.Load()
		var next *keySet
		if next, err = f(current.set, s.clock.Now()); err != nil || next == nil {
			break
		}
		if err = s.replace(ctx, next, current.version, what); err == nil || !errors.Is(err, ErrConflict) {
			break
		}
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// replace saves a set over a version and adopts it, if it is one that every
// instance will be able to read.
func (s *Signer) replace(ctx context.Context, next *keySet, prev Version, why string) error {
	bundle, err := next.encode()
	if err != nil {
		return err
	}
	if next, err = parseKeySet(bundle); err != nil {
		return fmt.Errorf("refused, since no instance could read the set: %w", err)
	}
	version, err := s.save(ctx, bundle, prev)
	if err != nil {
		return err
	}
	s.cfg.Logger.Info("changed the key set", "store", storeName(s.store), "why", why, "old_version", prev, "version", version)
	return s.adopt(next, version)
}

// maintain does what the rotation policy wants done now. The refresh goroutine
// calls it after each good load. After failures it holds off, so that a fleet
// without the right to write does not hammer the store (AWS Secrets Manager
// keeps every version for a day, and at most about 100); but not once the set
// has changed, by whoever may.
func (s *Signer) maintain(ctx context.Context) {
	current := s.current.Load()
	if s.writes.version != current.version {
		s.writes = writes{}
		s.rotationErr.Store(nil)
	}
	if s.cfg.Rotation.Every == 0 || s.clockJumped() || time.Now().Before(s.writes.notBefore) {
		return
	}
	next, why, err := current.set.due(s.clock.Now(), &s.cfg)
	if err == nil && next != nil {
		err = s.replace(ctx, next, current.version, why)
	}
	if errors.Is(err, ErrConflict) { // another instance has done it
		err = s.load(ctx)
	}
	if err == nil || ctx.Err() != nil {
		s.writes = writes{}
		s.rotationErr.Store(nil)
		return
	}
	wait := min(firstWriteRetry<<min(s.writes.failures, 10), maxWriteRetry)
	s.writes = writes{version: current.version, failures: s.writes.failures + 1, notBefore: time.Now().Add(wait)}
	s.rotationErr.Store(&err)
	s.cfg.Logger.Error("cannot rotate the signing key, going on with the present one", "store", storeName(s.store),
		"failures", s.writes.failures, "retry_in", wait, "err", err)
}

// writes is how maintain's writes over a version went.
type writes struct {
	version   Version
	failures  int
	notBefore time.Time // of the next try
}

const (
	firstWriteRetry = 10 * time.Minute
	maxWriteRetry   = 6 * time.Hour
)

// clockJumped reports whether the wall clock has lately moved otherwise than the
// monotonic one. Which of the two readings was right nobody knows, so this
// instance leaves the key set to the others for a while.
func (s *Signer) clockJumped() bool {
	wall, monotonic := s.clock.Now().Round(0), time.Now()
	if !s.jumps.wall.IsZero() {
		drift := wall.Sub(s.jumps.wall) - monotonic.Sub(s.jumps.monotonic)
		if drift.Abs() > 2*s.cfg.ClockSkew {
			s.jumps.distrusted = monotonic.Add(s.cfg.Rotation.Announce)
			s.cfg.Logger.Warn("the clock has jumped; this instance does not rotate keys for a while",
				"by", drift, "until", s.jumps.distrusted)
		}
	}
	s.jumps.wall, s.jumps.monotonic = wall, monotonic
	return monotonic.Before(s.jumps.distrusted)
}

// jumps holds the last reading of the wall clock and of the monotonic one.
type jumps struct {
	wall, monotonic time.Time
	distrusted      time.Time // until then
}
