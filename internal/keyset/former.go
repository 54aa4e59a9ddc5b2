package keyset

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// Trust returns s with the certificate of another system under a kid, or, with "", under
// the key's thumbprint. It returns nil if s trusts the key for as long already.
func (s *Set) Trust(cert *x509.Certificate, kid string, now time.Time) (*Set, error) {
	k, err := NewKey(cert, nil)
	if err == nil && kid != "" {
		k.ID, err = kid, jws.CheckKeyID(kid)
	}
	if err != nil {
		return nil, err
	}
	keys := slices.Clone(s.Keys)
	if known := s.Find(k.ID); known != nil {
		switch {
		case jws.Thumbprint(known.Public) != jws.Thumbprint(k.Public):
			return nil, fmt.Errorf("kid %q is the name of another key in the set", k.ID)
		case known.Private != nil || !cert.NotAfter.After(known.Cert.NotAfter):
			return nil, nil
		}
		keys = slices.DeleteFunc(keys, func(k *Key) bool { return k == known }) // renewed
	}
	if slices.Contains(s.Revoked(), k.ID) {
		return nil, fmt.Errorf("%w: kid %q was revoked", jws.ErrUnknownKey, k.ID)
	}
	if !now.Before(cert.NotAfter) {
		return nil, fmt.Errorf("the certificate ended at %s", cert.NotAfter.Format(time.RFC3339))
	}
	return New(append(keys, k)...), nil
}

// Adopt returns s with the keys of another set that have signed, to be trusted for Retain,
// or nil if s has them all.
func (s *Set) Adopt(other *Set, now time.Time, p *Policy) (*Set, error) {
	keys, revoked := slices.Clone(s.Keys), s.Revoked()
	for _, k := range other.Private() {
		end := now.Add(p.Retain)
		if k.Cert.NotAfter.Before(end) {
			end = k.Cert.NotAfter
		}
		unused := k.Cert.NotBefore.After(now.Add(2 * p.ClockSkew))
		if s.Find(k.ID) != nil || slices.Contains(revoked, k.ID) || unused || !now.Before(end) {
			continue
		}
		retired, err := p.Retire(k, end)
		if err != nil {
			return nil, err
		}
		keys = append(keys, retired)
	}
	if len(keys) == len(s.Keys) {
		return nil, nil
	}
	return New(keys...), nil
}
