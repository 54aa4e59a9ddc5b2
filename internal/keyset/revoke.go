package keyset

import (
	"slices"
	"time"
)

// Revoke returns s with the given kids revoked, whether s has them or not. If no other key
// signs by its dates, a new one signs at once. If the bundle would be too large, the
// retired keys whose trust ends first are dropped.
func (s *Set) Revoke(now time.Time, p *Policy, ids ...string) (next *Set, err error) {
	next = s.Withdraw(now, p, ids...)
	if signing, early := next.Signing(now); signing == nil || early {
		if next, err = next.withFresh(now, p, s.newest()); err != nil {
			return nil, err
		}
	}
	return next.fit(), nil
}

// Withdraw returns s as Revoke does, but without a new key.
func (s *Set) Withdraw(now time.Time, p *Policy, ids ...string) *Set {
	keys, retired, lost := []*Key{}, slices.Clone(s.Retired), false
	for _, k := range s.Keys {
		if lost { // without its successor, it would sign and be trusted again
			retired = append(retired, k.retire(s.TrustEnd(k, p.Retain)))
		} else {
			keys = append(keys, k)
		}
		lost = lost || slices.Contains(ids, k.ID) && !k.Cert.NotBefore.After(now)
	}
	return New(keys, retired, append(slices.Clone(s.Revoked), ids...))
}

// fit drops the retired keys whose trust ends first until the set can be encoded.
func (s *Set) fit() *Set {
	for len(s.Retired) > 0 {
		if _, err := s.Encode(); err == nil {
			break
		}
		s = New(s.Keys, s.Retired[:len(s.Retired)-1], s.Revoked)
	}
	return s
}
