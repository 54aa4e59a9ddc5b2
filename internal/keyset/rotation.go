package keyset

import (
	"crypto"
	"crypto/x509"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// A Policy says how keys are replaced.
type Policy struct {
	Algorithm                            string        // of new keys
	Every                                time.Duration // 0: keys are not replaced
	Announce, Retain                     time.Duration
	MaxTokenTTL, ClockSkew, RefreshEvery time.Duration
	Maker                                Maker
}

// A Maker makes keys and certificates.
type Maker interface {
	// New generates a key and a certificate that it signs for itself, with
	// names in its subjectAltName.
	New(algorithm string, notBefore time.Time, names []*url.URL) (crypto.Signer, *x509.Certificate, error)
	// Again signs the certificate of a key once more, with another end and other names.
	Again(k *Key, notAfter time.Time, names []*url.URL) (*x509.Certificate, error)
}

// Patience is how long a key stays in the bundle after it is done.
func (p *Policy) Patience() time.Duration {
	wait := 7 * 24 * time.Hour
	if p.Every > 0 {
		wait = min(wait, p.Every/4)
	}
	return max(wait, 2*p.ClockSkew)
}

// newKey makes a key that begins to sign at a time.
func (p *Policy) newKey(notBefore time.Time, names ...*url.URL) (*Key, error) {
	private, cert, err := p.Maker.New(p.Algorithm, notBefore, names)
	if err != nil {
		return nil, err
	}
	return NewKey(cert, private)
}

// again returns a key under a certificate with another end and more names.
func (p *Policy) again(k *Key, notAfter time.Time, names ...*url.URL) (*x509.Certificate, error) {
	return p.Maker.Again(k, notAfter, append(k.Cert.URIs[:len(k.Cert.URIs):len(k.Cert.URIs)], names...))
}

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

// RotationDue returns when the successor of the signing key k is to be announced: so
// that it takes over after Every, and in any case before k's certificate is too short
// for a token.
func (p *Policy) RotationDue(k *Key) time.Time {
	due := k.Cert.NotBefore.Add(p.Every)
	if end := k.Cert.NotAfter.Add(-p.MaxTokenTTL - 4*p.ClockSkew - 2*p.RefreshEvery); end.Before(due) {
		due = end
	}
	return due.Add(-p.Announce)
}

// Due returns the set that should replace s now, and why; or nil if s is as
// it should be.
//
// A set without a key that signs now is left alone: either this clock is wrong,
// or the fleet has been without a writer for so long that an operator should look,
// and rotate by hand.
func (s *Set) Due(now time.Time, p *Policy) (*Set, string, error) {
	signing := s.Signing(now)
	if signing == nil {
		return nil, "", nil
	}
	keys, why, err := s.tidy(now, p)
	if err != nil {
		return nil, "", err
	}
	if s.Announced(now, p) == nil && !now.Before(p.RotationDue(signing)) {
		successor, err := p.successor(now)
		if err != nil {
			return nil, "", err
		}
		keys, why = append(keys, successor), "announced key "+successor.ID
	}
	if why == "" {
		return nil, "", nil
	}
	return New(keys...), why, nil
}

// Announced returns the key that will take over next, or nil. One that lies
// further ahead than any policy of this fleet would put it does not count: it
// was made by a clock gone wrong, or by hand for a later date.
func (s *Set) Announced(now time.Time, p *Policy) *Key {
	for _, k := range slices.Backward(s.Keys) {
		if ahead := k.Cert.NotBefore.Sub(now); k.Private != nil && ahead > 0 && ahead <= 2*p.Announce {
			return k
		}
	}
	return nil
}

// successor makes a key that begins to sign once everyone knows it.
func (p *Policy) successor(now time.Time) (*Key, error) {
	return p.newKey(now.Add(p.Announce).Add(time.Second)) // NotBefore is truncated to seconds
}

// tidy returns the keys of s without those past their trust, and without the
// private halves of those that no longer sign; and why, if any has changed.
//
// Both wait for a while, since dates alone end what a key may do, and the clock that
// says so may be wrong: no single machine must take a key from the others that they
// still need.
func (s *Set) tidy(now time.Time, p *Policy) (keys []*Key, why string, err error) {
	patience := p.Patience()
	for _, k := range s.Keys {
		end, successor := s.TrustEnd(k, p.Retain), s.Successor(k)
		retired := k.Private == nil || successor != nil
		switch {
		case retired && !now.Before(end.Add(patience)):
			why = "dropped what is no longer trusted"
			continue
		case k.Private != nil && successor != nil && now.Before(end) && !now.Before(successor.Cert.NotBefore.Add(patience)):
			why = "dropped the private half of what no longer signs"
			if k, err = p.Retire(k, end); err != nil {
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

// Retire returns k without its private half, under a last certificate that it signs
// for itself and that ends when its tokens do.
func (p *Policy) Retire(k *Key, end time.Time) (*Key, error) {
	end = end.Add(time.Second - 1) // the certificate's is truncated to seconds
	cert, err := p.again(k, end, &url.URL{Scheme: markScheme, Opaque: markRetired})
	if err != nil {
		return nil, err
	}
	return NewKey(cert, nil)
}

// marked returns k under a new certificate of the same dates that says more.
func (p *Policy) marked(k *Key, marks ...*url.URL) (*Key, error) {
	cert, err := p.again(k, k.Cert.NotAfter, marks...)
	if err != nil {
		return nil, err
	}
	return NewKey(cert, k.Private)
}

// IsRetired reports whether the key once signed for this fleet.
func (k *Key) IsRetired() bool {
	return slices.ContainsFunc(k.Cert.URIs, func(u *url.URL) bool { return u.Scheme == markScheme && u.Opaque == markRetired })
}

// Revoked returns the kids that the set says were revoked. They distinguish a revoked
// key, which is gone at once, from one that got lost.
func (s *Set) Revoked() []string {
	var kids []string
	for _, k := range s.Keys {
		for _, u := range k.Cert.URIs {
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

// Rotate returns s with a key that takes over, or nil if one is announced
// already. Where no key signs, the new one does so at once.
func (s *Set) Rotate(now time.Time, p *Policy) (*Set, error) {
	if s.Signing(now) == nil {
		k, err := p.NewKeyForNow(now)
		if err != nil {
			return nil, err
		}
		return New(append(slices.Clone(s.Keys), k)...), nil
	}
	if s.Announced(now, p) != nil {
		return nil, nil
	}
	keys, _, err := s.tidy(now, p)
	if err != nil {
		return nil, err
	}
	successor, err := p.successor(now)
	if err != nil {
		return nil, err
	}
	return New(append(keys, successor)...), nil
}

// NewKeyForNow makes a key that signs at once, also on an instance whose clock is
// behind by ClockSkew if this one's is ahead by as much.
func (p *Policy) NewKeyForNow(now time.Time, marks ...*url.URL) (*Key, error) {
	return p.newKey(now.Add(-2*p.ClockSkew), marks...)
}

// settled returns k, whose successor is about to leave the set, as it stands now: nil
// if it is past its trust, and without its private half if it has retired. Otherwise
// it would be trusted, and even sign, again.
func (s *Set) settled(k *Key, now time.Time, p *Policy) *Key {
	end, successor := s.TrustEnd(k, p.Retain), s.Successor(k)
	if !now.Before(end) {
		return nil
	}
	if k.Private == nil || successor == nil || successor.Cert.NotBefore.After(now) {
		return k
	}
	retired, err := p.Retire(k, end)
	if err != nil { // a key that cannot sign a certificate is useless
		return nil
	}
	return retired
}

// Revoke returns s without a key, under every kid that it has. The certificate of the
// key that signs then says so, since an instance that finds a key gone has to know
// whether that is meant. If the lost key may be the one that signs, on any clock of the
// fleet, a fresh one takes over at once.
func (s *Set) Revoke(lost *Key, now time.Time, p *Policy) (*Set, error) {
	thumb, marks := jws.Thumbprint(lost.Public), []*url.URL{revokes(lost.ID)}
	var keys []*Key
	for _, k := range s.Keys {
		if jws.Thumbprint(k.Public) != thumb {
			if next := s.Successor(k); next != nil && jws.Thumbprint(next.Public) == thumb {
				k = s.settled(k, now, p)
			}
			if k != nil {
				keys = append(keys, k)
			}
			continue
		}
		for _, u := range k.Cert.URIs { // what it told, others have to
			if u.Scheme == markScheme && u.Opaque != markRetired {
				marks = append(marks, u)
			}
		}
		if k.ID != lost.ID {
			marks = append(marks, revokes(k.ID))
		}
	}
	left := New(keys...)
	needed := left.Signing(now) == nil
	for _, clock := range []time.Duration{-2 * p.ClockSkew, 0, 2 * p.ClockSkew} {
		signing := s.Signing(now.Add(clock))
		needed = needed || signing != nil && jws.Thumbprint(signing.Public) == thumb
	}
	if needed {
		fresh, err := p.NewKeyForNow(now, marks...)
		if err != nil {
			return nil, err
		}
		return New(append(keys, fresh)...), nil
	}
	i := slices.Index(keys, left.Signing(now))
	var err error
	if keys[i], err = p.marked(keys[i], marks...); err != nil {
		return nil, err
	}
	return New(keys...), nil
}
