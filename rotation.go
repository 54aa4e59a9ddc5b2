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
//	announced        signing              retired            gone
//	|----------------|--------------------|------------------|
//	made             NotBefore            successor's        + Retain
//	                                      NotBefore
//
// The clocks of a fleet differ by up to 2 ClockSkew, and every step leaves room
// for that.

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
	next, err := s.tidy(now, cfg)
	if err != nil {
		return nil, "", err
	}
	if s.announced(now, cfg) == nil && !now.Before(signing.cert.NotBefore.Add(cfg.Rotation.Every-cfg.Rotation.Announce)) {
		successor, err := newSuccessor(now, cfg)
		if err != nil {
			return nil, "", err
		}
		return newKeySet(append(next, successor)...), "announced key " + successor.id, nil
	}
	if slices.Equal(next, s.keys) {
		return nil, "", nil
	}
	return newKeySet(next...), "retired what no longer signs", nil
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
// private halves of those that no longer sign.
//
// A private half goes a good while after its successor has begun, since an
// instance whose clock is behind still signs with it; a quarter of Retain
// forgives even a clock that is hours ahead.
func (s *keySet) tidy(now time.Time, cfg *Config) ([]*key, error) {
	margin := max(2*cfg.ClockSkew, cfg.Rotation.Retain/4)
	var keys []*key
	for _, k := range s.keys {
		end, successor := s.trustEnd(k, cfg.Rotation.Retain), s.successor(k)
		retired := k.private == nil || successor != nil
		switch {
		case retired && !now.Before(end):
			continue
		case k.private != nil && successor != nil && !now.Before(successor.cert.NotBefore.Add(margin)):
			verifyOnly, err := k.retire(end)
			if err != nil {
				return nil, err
			}
			k = verifyOnly
		}
		keys = append(keys, k)
	}
	return keys, nil
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
	marks := []*url.URL{{Scheme: markScheme, Opaque: markRetired}}
	for _, kid := range k.revokes() { // goes on being said while the key is trusted
		marks = append(marks, revokes(kid))
	}
	end = end.Add(time.Second - 1) // the certificate's is cut to seconds
	cert, err := selfSigned(k.alg, k.private, k.cert.RawSubject, k.cert.NotBefore, end, marks)
	if err != nil {
		return nil, err
	}
	return makeKey(cert, nil)
}

// isRetired reports whether the key once signed for this fleet.
func (k *key) isRetired() bool {
	return slices.ContainsFunc(k.cert.URIs, func(u *url.URL) bool { return u.Scheme == markScheme && u.Opaque == markRetired })
}

// revokes returns the kids whose revocation brought k into being. They are what
// tells a revoked key, which is gone at once, from one that got lost.
func (k *key) revokes() []string {
	var kids []string
	for _, u := range k.cert.URIs {
		if escaped, ok := strings.CutPrefix(u.Opaque, markRevokes); ok && u.Scheme == markScheme {
			if kid, err := url.PathUnescape(escaped); err == nil {
				kids = append(kids, kid)
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
	keys, err := s.tidy(now, cfg)
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

// without returns s less a key, for ever, and under whatever kid the same key
// may also stand. If the key may have signed tokens as the newest one of its
// set, or is one that vanished and is only remembered, a fresh key comes in,
// signs at once, and bears the mark by which every instance knows that the loss
// is meant; all other losses show by themselves, see keepVanished.
func (s *keySet) without(lost *key, now time.Time, cfg *Config) (*keySet, error) {
	thumb := thumbprint(lost.cert)
	keys := slices.DeleteFunc(slices.Clone(s.keys), func(k *key) bool { return thumbprint(k.cert) == thumb })
	signing := s.signing(now.Add(-2 * cfg.ClockSkew)) // on the slowest clock
	replaced := signing != nil && signing.cert.NotBefore.After(lost.cert.NotBefore)
	unused := lost.cert.NotBefore.After(now.Add(6 * cfg.ClockSkew)) // on the fastest, with room
	if len(keys) > 0 && len(keys) < len(s.keys) && (lost.private == nil || replaced || unused) {
		return newKeySet(keys...), nil
	}
	if begun := lost.cert.NotBefore.Add(time.Second); now.Add(-2 * cfg.ClockSkew).Before(begun) {
		now = begun.Add(2 * cfg.ClockSkew) // the set's newest, or it would look rolled back
	}
	fresh, err := newKeyForNow(now, cfg, revokes(lost.id))
	if err != nil {
		return nil, err
	}
	return newKeySet(append(keys, fresh)...), nil
}
