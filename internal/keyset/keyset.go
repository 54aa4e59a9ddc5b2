// Package keyset models the content of a bundle: the fleet's keys, who signs when and is
// trusted until when, which keys were revoked, and which changes a rotation policy
// requires.
//
// The package is pure. A Set is immutable: Due, Rotate and Revoke return the set that
// should replace it, which the caller saves. The Maker of a Policy creates keys and
// certificates.
package keyset

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// Reasons why no key of a set can sign. The root package exports and documents these
// errors.
var (
	ErrNoSigningKey = errors.New("no key can sign now")
	ErrKeyExpired   = errors.New("the signing key's certificate ends too soon")
)

// A Set holds the keys of a fleet. A key is in exactly one of the three lists.
type Set struct {
	Keys    []*Key    // with a private key, by NotBefore, newest first
	Retired []Retired // that no longer sign, by Until, latest first
	Revoked []string  // kids of keys that are never trusted again, in order
}

// A Key may sign from its certificate's NotBefore until its successor's.
type Key struct {
	ID      string // kid: the RFC 7638 SHA-256 thumbprint of the public key
	Alg     jws.Algorithm
	Public  crypto.PublicKey
	Cert    *x509.Certificate
	Private crypto.Signer
}

// A Retired key no longer signs. Its tokens are trusted until a given time.
type Retired struct {
	ID     string
	Alg    jws.Algorithm
	Public crypto.PublicKey
	Until  time.Time
}

// New returns a set with keys in order. A key that is also retired or revoked is dropped
// from keys: this is how an operator can stop a key by editing a bundle.
func New(keys []*Key, retired []Retired, revoked []string) *Set {
	s := &Set{Keys: slices.Clone(keys), Retired: slices.Clone(retired), Revoked: slices.Compact(slices.Sorted(slices.Values(revoked)))}
	s.Retired = slices.DeleteFunc(s.Retired, func(r Retired) bool { return s.IsRevoked(r.ID) })
	s.Keys = slices.DeleteFunc(s.Keys, func(k *Key) bool { return s.Stops(k.ID) })
	slices.SortStableFunc(s.Keys, func(a, b *Key) int { return b.Cert.NotBefore.Compare(a.Cert.NotBefore) })
	slices.SortStableFunc(s.Retired, func(a, b Retired) int { return b.Until.Compare(a.Until) })
	return s
}

// NewKey returns the key of a certificate, or an error if the key must not be trusted.
func NewKey(cert *x509.Certificate, private crypto.Signer) (*Key, error) {
	alg, err := AlgorithmOf(cert)
	if err != nil {
		return nil, err
	}
	if !cert.NotAfter.After(cert.NotBefore) {
		return nil, fmt.Errorf("the certificate ends at %s, which is not after its start at %s",
			cert.NotAfter.Format(time.RFC3339), cert.NotBefore.Format(time.RFC3339))
	}
	public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("the private key before the certificate does not match it")
	}
	return &Key{ID: jws.Thumbprint(cert.PublicKey), Alg: alg, Public: cert.PublicKey, Cert: cert, Private: private}, nil
}

// AlgorithmOf returns the algorithm of a certificate's key, or an error if the key must
// not sign tokens.
func AlgorithmOf(cert *x509.Certificate) (jws.Algorithm, error) {
	alg, err := jws.AlgorithmOf(cert.PublicKey, signsItselfByPSS(cert))
	const signs = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	if err == nil && cert.KeyUsage != 0 && cert.KeyUsage&signs == 0 { // RFC 5280 section 4.2.1.3
		err = errors.New("the key usage of the certificate does not include signatures; is it for encryption?")
	}
	return alg, err
}

// signsItselfByPSS reports whether an RSA key is for PS256. In a certificate signed by a
// CA, the signature algorithm is the CA's.
func signsItselfByPSS(cert *x509.Certificate) bool {
	pss := []x509.SignatureAlgorithm{x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS}
	return slices.Contains(pss, cert.SignatureAlgorithm) && bytes.Equal(cert.RawIssuer, cert.RawSubject)
}

// Find returns the key with a kid and a private key, or nil.
func (s *Set) Find(kid string) *Key {
	if i := slices.IndexFunc(s.Keys, func(k *Key) bool { return k.ID == kid }); i >= 0 {
		return s.Keys[i]
	}
	return nil
}

func (s *Set) isRetired(kid string) bool {
	return slices.ContainsFunc(s.Retired, func(r Retired) bool { return r.ID == kid })
}

// IsRevoked reports whether a kid is revoked.
func (s *Set) IsRevoked(kid string) bool {
	_, found := slices.BinarySearch(s.Revoked, kid)
	return found
}

// Mentions reports whether the set says anything about a kid.
func (s *Set) Mentions(kid string) bool {
	return s.Find(kid) != nil || s.Stops(kid)
}

// Stops reports whether the set explicitly says that a kid no longer signs.
func (s *Set) Stops(kid string) bool { return s.isRetired(kid) || s.IsRevoked(kid) }

// maxEarly is how long before its start a key may sign. A machine whose clock is further
// behind (in 1970, say) signs nothing.
const maxEarly = 365 * 24 * time.Hour

// Signing returns the key that signs at a time: of the keys whose certificate is valid
// then, the one that began last. If no key has begun, the first to begin signs early, since
// a wrong clock must not stop a fleet. Signing returns nil if no key can sign.
func (s *Set) Signing(at time.Time) (k *Key, early bool) {
	for _, k := range s.Keys {
		if !k.Cert.NotBefore.After(at) && at.Before(k.Cert.NotAfter) {
			return k, false
		}
	}
	for _, k := range slices.Backward(s.Keys) {
		if ahead := k.Cert.NotBefore.Sub(at); ahead > 0 && ahead <= maxEarly {
			return k, true
		}
	}
	return nil, false
}

// WhyNoKey returns why no key signs at a time.
func (s *Set) WhyNoKey(now time.Time) error {
	if len(s.Keys) == 0 && len(s.Revoked) > 0 {
		return fmt.Errorf("%w: all private keys in the bundle are revoked, or older than a revoked key", ErrNoSigningKey)
	}
	if len(s.Keys) == 0 {
		return fmt.Errorf("%w: the bundle contains no private key", ErrNoSigningKey)
	}
	k := s.Keys[0]
	if k.Cert.NotBefore.After(now) {
		return fmt.Errorf("%w: key %s begins to sign at %s; is the clock right?", ErrNoSigningKey, k.ID, k.Cert.NotBefore.Format(time.RFC3339))
	}
	return fmt.Errorf("%w: key %s ended at %s", ErrKeyExpired, k.ID, k.Cert.NotAfter.Format(time.RFC3339))
}

// Successor returns the key that takes over from k, which is the next newer one, or nil.
func (s *Set) Successor(k *Key) *Key {
	if i := slices.Index(s.Keys, k); i > 0 {
		return s.Keys[i-1]
	}
	return nil
}

// TrustEnd returns the time until which tokens signed by k are trusted: its successor's
// start plus retain, but never past the end of its certificate.
func (s *Set) TrustEnd(k *Key, retain time.Duration) time.Time {
	if next := s.Successor(k); next != nil {
		return earlier(next.Cert.NotBefore.Add(retain), k.Cert.NotAfter)
	}
	return k.Cert.NotAfter
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
