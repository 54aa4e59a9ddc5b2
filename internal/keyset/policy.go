package keyset

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"time"
)

// A Policy says how keys are replaced. Rotation depends only on the certificates' dates, so
// any instance can do the next step and none has to lead:
//
//	announced        signing              retired            gone, pruned later
//	|----------------|--------------------|------------------|
//	made             NotBefore            successor's        + Retain
//	                                      NotBefore
//
// The clocks of a fleet differ by up to 2 ClockSkew; every step allows for that.
type Policy struct {
	Algorithm                            string        // of new keys; empty: that of the previous key
	Every                                time.Duration // 0: keys are not replaced
	Announce, Retain                     time.Duration
	MaxTokenTTL, ClockSkew, RefreshEvery time.Duration
	Make                                 Maker
}

// A Maker generates a key and a self-signed certificate. bits is the size of an RSA key.
type Maker func(algorithm string, bits int, notBefore time.Time) (crypto.Signer, *x509.Certificate, error)

const (
	minRSABits = 2048
	maxRSABits = 4096 // of new keys
	day        = 24 * time.Hour
)

// Patience is how long a key stays in the bundle after its trust has ended. Trust ends by
// date alone, and the clock that prunes may be wrong: no single machine may remove a key
// that the others still need.
func (p *Policy) Patience() time.Duration {
	wait := 7 * day
	if p.Every > 0 {
		wait = min(wait, p.Every/4)
	}
	return max(wait, 2*p.ClockSkew)
}

// RotationDue returns when the successor of the signing key k should be announced, so that
// it takes over after Every, and before k's certificate becomes too short for a token.
func (p *Policy) RotationDue(k *Key) time.Time {
	end := k.Cert.NotAfter.Add(-p.MaxTokenTTL - 4*p.ClockSkew - 2*p.RefreshEvery)
	return earlier(k.Cert.NotBefore.Add(p.Every), end).Add(-p.Announce)
}

// newKey creates a key that begins to sign at a given time. Its algorithm is the policy's,
// or that of the previous key, which may be nil, and it is at least as strong.
func (p *Policy) newKey(notBefore time.Time, after *Key) (*Key, error) {
	alg, bits := "RS256", minRSABits
	if after != nil {
		alg = after.Alg.Name
		if public, ok := after.Public.(*rsa.PublicKey); ok {
			bits = min(public.N.BitLen(), maxRSABits)
		}
	}
	if p.Algorithm != "" {
		alg = p.Algorithm
	}
	private, cert, err := p.Make(alg, bits, notBefore)
	if err != nil {
		return nil, err
	}
	return NewKey(cert, private)
}

// First returns the first set of a fleet. Its key is backdated, so that it also signs on
// instances whose clock is behind.
func (p *Policy) First(now time.Time) (*Set, error) {
	return New(nil, nil, nil).Rotate(now, p)
}

// backdate is how far a new key that signs at once is backdated: up to a day, but not so
// far that the key would have to be replaced at once.
func (p *Policy) backdate() time.Duration {
	wait := day
	if p.Every > 0 {
		wait = min(wait, (p.Every-p.Announce)/2)
	}
	return max(wait, 2*p.ClockSkew)
}

// Due returns the set that should replace s now, and why, or nil if no change is due.
//
// A set in which no key signs by its dates is left alone: either this clock is wrong, or
// the fleet has had no writer for so long that an operator should look, and rotate
// manually.
func (s *Set) Due(now time.Time, p *Policy) (*Set, string, error) {
	signing, early := s.Signing(now)
	if signing == nil || early {
		return nil, "", nil
	}
	next, why := s.tidy(now, p)
	if s.Announced(now, p) == nil && !now.Before(p.RotationDue(signing)) {
		return next.withSuccessor(now, p, signing)
	}
	if why == "" {
		return nil, "", nil
	}
	return next, why, nil
}

// Announced returns the key that will take over next, or nil. It ignores a key that begins
// more than two Announce from now: it was made with a wrong clock, or by hand for a later
// date.
func (s *Set) Announced(now time.Time, p *Policy) *Key {
	for _, k := range slices.Backward(s.Keys) {
		if ahead := k.Cert.NotBefore.Sub(now); ahead > 0 && ahead <= 2*p.Announce {
			return k
		}
	}
	return nil
}

// withSuccessor returns s plus a key that begins to sign once everyone knows it.
func (s *Set) withSuccessor(now time.Time, p *Policy, signing *Key) (next *Set, why string, err error) {
	k, err := p.newKey(now.Add(p.Announce).Add(time.Second), signing) // NotBefore is truncated to seconds
	if err != nil {
		return nil, "", err
	}
	return New(append(s.Keys, k), s.Retired, s.Revoked), "announced key " + k.ID, nil
}

// tidy returns s without keys past their trust, and without the private keys of those that
// no longer sign, and why, if anything has changed.
func (s *Set) tidy(now time.Time, p *Policy) (next *Set, why string) {
	keys, retired := []*Key{}, slices.Clone(s.Retired)
	for _, k := range s.Keys {
		successor := s.Successor(k)
		if successor == nil || now.Before(successor.Cert.NotBefore.Add(p.Patience())) {
			keys = append(keys, k)
			continue
		}
		why = "dropped private keys that no longer sign"
		retired = append(retired, k.retire(s.TrustEnd(k, p.Retain)))
	}
	kept := slices.DeleteFunc(slices.Clone(retired), func(r Retired) bool { return !now.Before(r.Until.Add(p.Patience())) })
	if len(kept) < len(retired) {
		why = "dropped keys that are no longer trusted"
	}
	return New(keys, kept, s.Revoked), why
}

// retire returns k without its private key, trusted until a time, which is rounded up to
// seconds.
func (k *Key) retire(until time.Time) Retired {
	return Retired{ID: k.ID, Alg: k.Alg, Public: k.Public, Until: until.Add(time.Second - 1).Truncate(time.Second)}
}

// Rotate returns s plus a key that takes over, or nil if a key is already announced. If no
// key signs by its dates, the new one signs at once.
func (s *Set) Rotate(now time.Time, p *Policy) (*Set, error) {
	signing, early := s.Signing(now)
	if signing == nil || early {
		return s.withFresh(now, p, s.newest())
	}
	if s.Announced(now, p) != nil {
		return nil, nil
	}
	next, _ := s.tidy(now, p)
	next, _, err := next.withSuccessor(now, p, signing)
	return next, err
}

// newest returns the key that a new key should resemble, or nil.
func (s *Set) newest() *Key {
	if len(s.Keys) > 0 {
		return s.Keys[0]
	}
	if len(s.Retired) > 0 {
		return &Key{Alg: s.Retired[0].Alg, Public: s.Retired[0].Public}
	}
	return nil
}

// withFresh returns s plus a key that signs at once, for a set in which no key signs by its
// dates. The key is backdated as far as the order of the keys allows, so that it also signs
// on instances whose clock is behind.
func (s *Set) withFresh(now time.Time, p *Policy, after *Key) (*Set, error) {
	begin := now.Add(-p.backdate())
	for _, k := range s.Keys {
		if begun := k.Cert.NotBefore; !begun.After(now) && !begun.Before(begin) {
			begin = begun.Add(time.Second)
		}
	}
	fresh, err := p.newKey(begin, after)
	if err != nil {
		return nil, err
	}
	return New(append(slices.Clone(s.Keys), fresh), s.Retired, s.Revoked), nil
}
