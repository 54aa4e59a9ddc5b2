package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// This file creates certificates for imported keys without one, or with an expired one.

// certYears is the same as in the library.
const certYears = 10

// freshKeys returns keys with new certificates. The first key begins last, so it signs at
// once. The certificates begin a day ago, so that it also signs on instances whose clock is
// behind, but after the keys that have already begun.
func freshKeys(bare []broughtKey, begun []*keyset.Key, now time.Time) (keys []*keyset.Key, err error) {
	begin := now.Add(-24 * time.Hour).Truncate(time.Second)
	for _, k := range begun {
		if at := k.Cert.NotBefore; !at.After(now) && !at.Before(begin) {
			begin = at.Add(time.Second)
		}
	}
	for i, private := range bare {
		template := &x509.Certificate{RawSubject: private.subject, Subject: pkix.Name{CommonName: "fleetkey"},
			NotBefore: begin.Add(time.Duration(len(bare)-1-i) * time.Second)}
		if _, ok := private.Public().(*rsa.PublicKey); ok && private.pss {
			template.SignatureAlgorithm = x509.SHA256WithRSAPSS
		}
		cert, err := certify(private, template)
		if err != nil {
			return nil, err
		}
		k, err := keyset.NewKey(cert, private.Signer)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// certify signs a certificate with its own key.
func certify(private crypto.Signer, template *x509.Certificate) (*x509.Certificate, error) {
	template.NotBefore = template.NotBefore.UTC().Truncate(time.Second)
	template.NotAfter = template.NotBefore.AddDate(certYears, 0, 0)
	template.KeyUsage, template.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}
