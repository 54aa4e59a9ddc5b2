// Package keyset knows what a bundle says: certificates, the private keys that belong
// to them, who signs when and who is trusted until when, and which changes a rotation
// policy calls for.
//
// It is pure. A set never changes once it is made; Due, Rotate and Revoke return the
// set that should replace it, and whoever has a store saves that. Keys and
// certificates are made by the Maker of a Policy.
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

// Why no key of a set can sign. The root package repeats and documents these errors.
var (
	ErrNoSigningKey = errors.New("no key can sign now")
	ErrKeyExpired   = errors.New("the signing key's certificate is about to end")
)

// A Set holds the keys of a bundle. By the dates of their certificates alone it says
// who signs when and who is trusted until when.
type Set struct {
	Keys []*Key // by NotBefore, newest first
}

// A Key is one certificate of a set, with its private half unless the key is there
// for verification only.
type Key struct {
	ID      string // kid: the RFC 7638 SHA-256 thumbprint of the public key, unless a header gives another
	Alg     jws.Algorithm
	Public  crypto.PublicKey
	Cert    *x509.Certificate
	Private crypto.Signer // nil: verify-only
}

// New returns the set of some keys.
func New(keys ...*Key) *Set {
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b *Key) int { return b.Cert.NotBefore.Compare(a.Cert.NotBefore) })
	return &Set{Keys: keys}
}

// NewKey returns the key of a certificate, or an error if it must not be trusted.
func NewKey(cert *x509.Certificate, private crypto.Signer) (*Key, error) {
	alg, err := jws.AlgorithmOf(cert.PublicKey, signsItselfByPSS(cert))
	if err != nil {
		return nil, err
	}
	if !cert.NotAfter.After(cert.NotBefore) {
		return nil, fmt.Errorf("the certificate ends at %s, not after its begin at %s",
			cert.NotAfter.Format(time.RFC3339), cert.NotBefore.Format(time.RFC3339))
	}
	const signs = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	if cert.KeyUsage != 0 && cert.KeyUsage&signs == 0 { // RFC 5280 section 4.2.1.3
		return nil, errors.New("the certificate's key usage does not include signatures; is it for encryption?")
	}
	if private != nil {
		public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(cert.PublicKey) {
			return nil, errors.New("the private key before the certificate does not belong to it")
		}
	}
	return &Key{ID: jws.Thumbprint(cert.PublicKey), Alg: alg, Public: cert.PublicKey, Cert: cert, Private: private}, nil
}

// signsItselfByPSS reports whether an RSA key is one for PS256. Under a certificate
// that an authority signed, PSS is how the authority signs.
func signsItselfByPSS(cert *x509.Certificate) bool {
	switch cert.SignatureAlgorithm {
	case x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
		return bytes.Equal(cert.RawIssuer, cert.RawSubject)
	}
	return false
}

// IDs returns the kid of each key.
func (s *Set) IDs() []string {
	var ids []string
	for _, k := range s.Keys {
		ids = append(ids, k.ID)
	}
	return ids
}

// Find returns the key with a kid, or nil.
func (s *Set) Find(kid string) *Key {
	for _, k := range s.Keys {
		if k.ID == kid {
			return k
		}
	}
	return nil
}

// Signing returns the key that signs at a time: of those with a private half
// that are within their certificate's dates, the one that began last. It
// returns nil if no key signs.
func (s *Set) Signing(at time.Time) *Key {
	for _, k := range s.Keys {
		if k.Private != nil && !k.Cert.NotBefore.After(at) && at.Before(k.Cert.NotAfter) {
			return k
		}
	}
	return nil
}

// Successor returns the key that takes over from k: the next newer one with a
// private half. It returns nil without one.
func (s *Set) Successor(k *Key) *Key {
	var next *Key
	for _, other := range s.Keys {
		if other == k {
			break
		}
		if other.Private != nil {
			next = other
		}
	}
	return next
}

// TrustEnd returns the time until which tokens signed by k are trusted: its
// successor's begin plus retain, and never past its certificate's end. For a
// key without a private half it is the certificate's end: a key that has
// retired got a certificate that ends there, see retire.
func (s *Set) TrustEnd(k *Key, retain time.Duration) time.Time {
	end := k.Cert.NotAfter
	if next := s.Successor(k); next != nil && k.Private != nil {
		if retired := next.Cert.NotBefore.Add(retain); retired.Before(end) {
			end = retired
		}
	}
	return end
}

// NextChange returns the first time after at when a key starts to sign or ends
// to be trusted, or the zero time.
func (s *Set) NextChange(at time.Time, retain time.Duration) time.Time {
	var next time.Time
	for _, k := range s.Keys {
		for _, t := range []time.Time{k.Cert.NotBefore, s.TrustEnd(k, retain)} {
			if t.After(at) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// Private returns the keys that have their private half.
func (s *Set) Private() []*Key {
	var keys []*Key
	for _, k := range s.Keys {
		if k.Private != nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// WhyNoKey says why no key signs at a time.
func (s *Set) WhyNoKey(now time.Time) error {
	for _, k := range s.Keys {
		switch {
		case k.Private == nil:
		case k.Cert.NotBefore.After(now):
			return fmt.Errorf("%w: key %s begins to sign at %s; is the clock right?", ErrNoSigningKey, k.ID, k.Cert.NotBefore.Format(time.RFC3339))
		default:
			return fmt.Errorf("%w: key %s ended at %s", ErrKeyExpired, k.ID, k.Cert.NotAfter.Format(time.RFC3339))
		}
	}
	return fmt.Errorf("%w: the bundle holds no private key", ErrNoSigningKey)
}
