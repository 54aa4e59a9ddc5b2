package keyset

import (
	"slices"
	"time"
)

// Revoke returns s with keys revoked by their kids, whether s has them or not. If no other
// key signs by its dates, a fresh one signs at once. To make room for what must be said, the
// retired keys whose trust ends first may leave.
func (s *Set) Revoke(now time.Time, p *Policy, ids ...string) (next *Set, err error) {
	next = s.Withdraw(now, p, ids...)
	if signing, early := next.Signing(now); signing == nil || early {
		if next, err = next.withFresh(now, p, s.newest()); err != nil {
			return nil, err
		}
	}
	return next.fit(), nil
}

// Withdraw returns s as Revoke does, but without a fresh key.
func (s *Set) Withdraw(now time.Time, p *Policy, ids ...string) *Set {
	keys, retired, lost := []*Key{}, slices.Clone(s.Retired), false
	for _, k := range s.Keys {
		if lost { // without its successor it would sign and be trusted again
			retired = append(retired, k.retire(s.TrustEnd(k, p.Retain)))
		} else {
			keys = append(keys, k)
		}
		lost = lost || slices.Contains(ids, k.ID) && !k.Cert.NotBefore.After(now)
	}
	return New(keys, retired, append(slices.Clone(s.Revoked), ids...))
}

// Without returns s with more keys revoked and nothing else changed.
func (s *Set) Without(ids []string) *Set {
	return New(s.Keys, s.Retired, append(slices.Clone(s.Revoked), ids...))
}

// fit returns s without as many retired keys as it takes to be written.
func (s *Set) fit() *Set {
	for len(s.Retired) > 0 {
		if _, err := s.Encode(); err == nil {
			break
		}
		s = New(s.Keys, s.Retired[:len(s.Retired)-1], s.Revoked)
	}
	return s
}
