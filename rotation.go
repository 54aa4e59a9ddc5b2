package fleetkey

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// Rotation works on the certificates' dates alone, so that any instance can do
// the next step and nobody has to lead. The functions of this file are pure:
// they take a key set and a time and return the set that should replace it.
//
//	announced        signing              retired            gone, pruned later
//	|----------------|--------------------|------------------|
//	made             NotBefore            successor's        + Retain
//	                                      NotBefore
//
// The clocks of a fleet differ by up to 2 ClockSkew, and every step leaves room
// for that.

// rotationDue returns when the successor of the signing key k is to be
// announced: so that it takes over after Every, and in any case before k's
// certificate is too short for a token.
func rotationDue(k *key, cfg *Config) time.Time {
	due := k.cert.NotBefore.Add(cfg.Rotation.Every)
	if end := k.cert.NotAfter.Add(-cfg.MaxTokenTTL - 4*cfg.ClockSkew - 2*cfg.RefreshEvery); end.Before(due) {
		due = end
	}
	return due.Add(-cfg.Rotation.Announce)
}

// due returns the set that should replace s by now, and why; or nil if s is as
// it should be.
//
// A set without a key that signs now is left alone: either this clock is wrong,
// or the fleet has been without a writer for so long that an operator should
// look, and Rotate.
func (s *keySet) due(now time.Time, cfg *Config) (*keySet, string, error) {
	signing := s.signing(now)
	if signing == nil {
		return nil, "", nil
	}
	keys, why, err := s.tidy(now, cfg)
	if err != nil {
		return nil, "", err
	}
	if s.announced(now, cfg) == nil && !now.Before(rotationDue(signing, cfg)) {
		successor, err := newSuccessor(now, cfg)
		if err != nil {
			return nil, "", err
		}
		keys, why = append(keys, successor), "announced key "+successor.id
	}
	if why == "" {
		return nil, "", nil
	}
	return newKeySet(keys...), why, nil
}

// announced returns the key that will take over next, or nil. One that lies
// further ahead than any policy of this fleet would put it does not count: it
// was made by a clock gone wrong, or by hand for a later date.
func (s *keySet) announced(now time.Time, cfg *Config) *key {
	for _, k := range slices.Backward(s.keys) {
		if ahead := k.cert.NotBefore.Sub(now); k.private != nil && ahead > 0 && ahead <= 2*cfg.Rotation.Announce {
			return k
		}
	}
	return nil
}

// newSuccessor makes a key that begins to sign once everyone knows it.
func newSuccessor(now time.Time, cfg *Config) (*key, error) {
	begin := now.Add(cfg.Rotation.Announce).Add(time.Second) // NotBefore is cut to seconds
	return newKey(cfg.Algorithm, cfg.CommonName, begin)
}

// tidy returns the keys of s without those past their trust, and without the
// private halves of those that no longer sign; and why, if any has changed.
//
// Both wait for a good while, since dates alone end what a key may do, and the
// clock that says so may be wrong: no single machine shall take a key from the
// others that they still need.
func (s *keySet) tidy(now time.Time, cfg *Config) (keys []*key, why string, err error) {
	patience := cfg.patience()
	for _, k := range s.keys {
		end, successor := s.trustEnd(k, cfg.Rotation.Retain), s.successor(k)
		retired := k.private == nil || successor != nil
		switch {
		case retired && !now.Before(end.Add(patience)):
			why = "dropped what is no longer trusted"
			continue
		case k.private != nil && successor != nil && now.Before(end) && !now.Before(successor.cert.NotBefore.Add(patience)):
			why = "dropped the private half of what no longer signs"
			if k, err = k.retire(end); err != nil {
				return nil, "", err
			}
		}
		keys = append(keys, k)
	}
	return keys, why, nil
}

// Marks that fleetkey leaves in the certificates it makes, as URIs of the
// subjectAltName, where `openssl x509 -text` shows them: this key has retired,
// and this key was made because another one was revoked.
const (
	markScheme  = "fleetkey"
	markRetired = "retired"
	markRevokes = "revokes:"
)

// retire returns k without its private half, under a last certificate that it
// signs for itself and that ends when its tokens do.
func (k *key) retire(end time.Time) (*key, error) {
	end = end.Add(time.Second - 1) // the certificate's is cut to seconds
	cert, err := selfSigned(k.alg, k.private, k.cert.RawSubject, k.cert.NotBefore, end,
		append(k.cert.URIs[:len(k.cert.URIs):len(k.cert.URIs)], &url.URL{Scheme: markScheme, Opaque: markRetired}))
	if err != nil {
		return nil, err
	}
	return makeKey(cert, nil)
}

// marked returns k under a new certificate of the same dates that says more.
func (k *key) marked(marks ...*url.URL) (*key, error) {
	cert, err := selfSigned(k.alg, k.private, k.cert.RawSubject, k.cert.NotBefore, k.cert.NotAfter,
		append(k.cert.URIs[:len(k.cert.URIs):len(k.cert.URIs)], marks...))
	if err != nil {
		return nil, err
	}
	return makeKey(cert, k.private)
}

// isRetired reports whether the key once signed for this fleet.
func (k *key) isRetired() bool {
	return slices.ContainsFunc(k.cert.URIs, func(u *url.URL) bool { return u.Scheme == markScheme && u.Opaque == markRetired })
}

// revoked returns the kids whose revocation a set tells of. They are what tells
// a revoked key, which is gone at once, from one that got lost.
func (s *keySet) revoked() []string {
	var kids []string
	for _, k := range s.keys {
		for _, u := range k.cert.URIs {
			if escaped, ok := strings.CutPrefix(u.Opaque, markRevokes); ok && u.Scheme == markScheme {
				if kid, err := url.PathUnescape(escaped); err == nil {
					kids = append(kids, kid)
				}
			}
		}
	}
	return kids
}

func revokes(kid string) *url.URL {
	return &url.URL{Scheme: markScheme, Opaque: markRevokes + url.PathEscape(kid)}
}

// rotated returns s with a key that takes over, or nil if one is announced
// already. Where no key signs, the new one does so at once.
func (s *keySet) rotated(now time.Time, cfg *Config) (*keySet, error) {
	if s.signing(now) == nil {
		k, err := newKeyForNow(now, cfg)
		if err != nil {
			return nil, err
		}
		return newKeySet(append(slices.Clone(s.keys), k)...), nil
	}
	if s.announced(now, cfg) != nil {
		return nil, nil
	}
	keys, _, err := s.tidy(now, cfg)
	if err != nil {
		return nil, err
	}
	successor, err := newSuccessor(now, cfg)
	if err != nil {
		return nil, err
	}
	return newKeySet(append(keys, successor)...), nil
}

// newKeyForNow makes a key that signs at once, also on an instance whose clock
// is behind by ClockSkew, if this one's is ahead by as much.
func newKeyForNow(now time.Time, cfg *Config, marks ...*url.URL) (*key, error) {
	return newKey(cfg.Algorithm, cfg.CommonName, now.Add(-2*cfg.ClockSkew), marks...)
}

// settled returns k, whose successor is about to leave the set, as it stands by
// now: nil if it is past its trust, and without its private half if it has
// retired. Otherwise it would be trusted, and even sign, anew.
func (s *keySet) settled(k *key, now time.Time, cfg *Config) *key {
	end, successor := s.trustEnd(k, cfg.Rotation.Retain), s.successor(k)
	if !now.Before(end) {
		return nil
	}
	if k.private == nil || successor == nil || successor.cert.NotBefore.After(now) {
		return k
	}
	retired, err := k.retire(end)
	if err != nil { // a key that cannot sign a certificate is of no use
		return nil
	}
	return retired
}

// without returns s less a key, for ever, and under whatever kid the same key
// may also stand. The certificate of the key that signs then tells of it, since
// an instance that finds a key gone has to know whether that is meant (see
// keepVanished). If the lost key may be the one that signs, on any clock of the
// fleet, a fresh one takes over at once.
func (s *keySet) without(lost *key, now time.Time, cfg *Config) (*keySet, error) {
	thumb, marks := thumbprint(lost.cert), []*url.URL{revokes(lost.id)}
	var keys []*key
	for _, k := range s.keys {
		if thumbprint(k.cert) != thumb {
			if next := s.successor(k); next != nil && thumbprint(next.cert) == thumb {
				k = s.settled(k, now, cfg)
			}
			if k != nil {
				keys = append(keys, k)
			}
			continue
		}
		for _, u := range k.cert.URIs { // what it told, others have to
			if u.Scheme == markScheme && u.Opaque != markRetired {
				marks = append(marks, u)
			}
		}
		if k.id != lost.id {
			marks = append(marks, revokes(k.id))
		}
	}
	left := newKeySet(keys...)
	needed := left.signing(now) == nil
	for _, clock := range []time.Duration{-2 * cfg.ClockSkew, 0, 2 * cfg.ClockSkew} {
		signing := s.signing(now.Add(clock))
		needed = needed || signing != nil && thumbprint(signing.cert) == thumb
	}
	if needed {
		fresh, err := newKeyForNow(now, cfg, marks...)
		if err != nil {
			return nil, err
		}
		return newKeySet(append(keys, fresh)...), nil
	}
	i := slices.Index(keys, left.signing(now))
	var err error
	if keys[i], err = keys[i].marked(marks...); err != nil {
		return nil, err
	}
	return newKeySet(keys...), nil
}
