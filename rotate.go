package fleetkey

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
)

// This file holds what writes to the store once a fleet has its first key.
// Every write is a compare-and-swap on the version that was read, so any
// instance may try, and exactly one succeeds.

// Rotate announces a new key now; it takes over after Rotation.Announce. If one
// is announced already, Rotate does nothing. If no key can sign, the new one
// signs at once. It requires permission to write to the store, and works whether
// automatic rotation is on or off. With it off, make sure that every instance can
// reach the store until then: one that cannot continues with the old key, which the
// others drop after Rotation.Retain, and does not find out that it is stale.
func (s *Signer) Rotate(ctx context.Context) error {
	return s.change(ctx, "rotate", func(set *keyset.Set, now time.Time) (*keyset.Set, error) {
		return set.Rotate(now, &s.verifier.policy)
	})
}

// Revoke takes a key out of the set, for a key that has been stolen. Every
// instance rejects its tokens after its next refresh, and so do clients once they
// have fetched the JWKS again. If the key was the one that signs, a fresh
// key takes over at once; clients that know only a cached JWKS refuse its
// tokens until they look again.
//
// A kid that is not in the set is an error that matches [ErrUnknownKey].
func (s *Signer) Revoke(ctx context.Context, kid string) error {
	return s.change(ctx, "revoke "+kid, func(set *keyset.Set, now time.Time) (*keyset.Set, error) {
		known := s.verifier.current.Load().ByName(kid) // that of set, and it knows every name of a key
		if known == nil {
			return nil, fmt.Errorf("%w: kid %q is not in the set", ErrUnknownKey, kid)
		}
		return set.Revoke(known.Source, now, &s.verifier.policy)
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
	return s.change(ctx, fmt.Sprintf("trust %q", cmp.Or(kid, cert.Subject.String())), func(set *keyset.Set, now time.Time) (*keyset.Set, error) {
		return set.Trust(cert, kid, now)
	})
}

// maxTries bounds how often change starts again after losing to another writer.
const maxTries = 5

// change loads the set, lets f say what should replace it, and saves that,
// starting again if another writer was first. If f returns nil, nothing is due.
func (s *Signer) change(ctx context.Context, what string, f func(set *keyset.Set, now time.Time) (*keyset.Set, error)) error {
	fail := func(err error) error {
		return fmt.Errorf("fleetkey: %s: %w", what, err)
	}
	if err := s.verifier.refresh.Lock(ctx); err != nil {
		return fail(err)
	}
	defer s.verifier.refresh.Unlock()
	var err error
	for try := range maxTries {
		if try > 0 && !refresh.Sleep(ctx, refresh.Jitter(100*time.Millisecond<<try)) {
			return fail(errors.Join(ctx.Err(), err))
		}
		if err = s.load(ctx); err != nil {
			return fail(err)
		}
		current := s.verifier.current.Load()
		var next *keyset.Set
		if next, err = f(current.Set, s.verifier.clock.Now()); err != nil || next == nil {
			break
		}
		if err = s.replace(ctx, next, Version(current.Version), what); err == nil || !errors.Is(err, ErrConflict) {
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
func (s *Signer) replace(ctx context.Context, next *keyset.Set, prev Version, why string) error {
	bundle, err := next.Encode()
	if err != nil {
		return err
	}
	if next, err = keyset.Parse(bundle); err != nil {
		return fmt.Errorf("refused, since no instance could read the set: %w", err)
	}
	version, err := s.save(ctx, bundle, prev)
	if err != nil {
		return err
	}
	s.cfg.Logger.Info("changed the key set", "store", storeName(s.store), "why", why, "old_version", prev, "version", version)
	return s.verifier.adopt(next, version)
}

// maintain does what the rotation policy wants done now. The refresh goroutine
// calls it after each good load. After failures it holds off, so that a fleet
// without permission to write does not hammer the store (AWS Secrets Manager
// keeps every version for a day, and at most about 100); but not once the set
// has changed, by whoever may.
func (s *Signer) maintain(ctx context.Context) {
	current := s.verifier.current.Load()
	if s.rotation.writes.version != Version(current.Version) {
		s.rotation.writes = writes{}
		s.rotation.err.Store(nil)
	}
	if s.cfg.Rotation.Every == 0 || s.clockJumped() || s.verifier.clock.Monotonic() < s.rotation.writes.notBefore {
		return
	}
	next, why, err := current.Set.Due(s.verifier.clock.Now(), &s.verifier.policy)
	if err == nil && next != nil {
		err = s.replace(ctx, next, Version(current.Version), why)
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
	s.rotation.writes = writes{version: Version(current.Version), failures: s.rotation.writes.failures + 1, notBefore: s.verifier.clock.Monotonic() + wait}
	s.rotation.err.Store(&err)
	s.cfg.Logger.Error("cannot rotate the signing key, continuing with the present one", "store", storeName(s.store),
		"failures", s.rotation.writes.failures, "retry_in", wait, "err", err)
}

// rotation is what maintain remembers. Only the refresh goroutine uses it, except for
// err.
type rotation struct {
	watch  *clock.Watch
	writes writes
	err    atomic.Pointer[error] // why the last due rotation failed; nil: it did not
	warned time.Time             // of the certificate's end, see warnOfEnd
}

// writes holds the failures of maintain over a version.
type writes struct {
	version   Version
	failures  int
	notBefore time.Duration // of the next try, by the monotonic clock
}

const (
	firstWriteRetry = 10 * time.Minute
	maxWriteRetry   = 6 * time.Hour
)

// clockJumped reports whether the wall clock has recently moved differently from the
// monotonic one. Nobody knows which of the two readings was right, so this instance
// leaves the key set to the others for a while.
func (s *Signer) clockJumped() bool {
	jump, trusted := s.rotation.watch.Look(2*s.cfg.ClockSkew, s.cfg.Rotation.Announce)
	if jump != 0 {
		s.cfg.Logger.Warn("the clock has jumped; this instance does not rotate keys for a while",
			"by", jump, "for", s.cfg.Rotation.Announce)
	}
	return !trusted
}
