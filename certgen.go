package fleetkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// certYears is the lifetime of a certificate, with or without rotation: a key ends when its
// successor takes over, and a fleet that cannot make one should keep running.
const certYears = 10

// certAlgorithms gives, by JOSE name, a certificate's signature algorithm and a key
// generator.
var certAlgorithms = map[string]struct {
	signature x509.SignatureAlgorithm
	generate  func(bits int) (crypto.Signer, error)
}{
	"RS256": {x509.SHA256WithRSA, generateRSA},
	"PS256": {x509.SHA256WithRSAPSS, generateRSA},
	"ES256": {x509.ECDSAWithSHA256, func(int) (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	"ES384": {x509.ECDSAWithSHA384, func(int) (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }},
	"EdDSA": {x509.PureEd25519, func(int) (crypto.Signer, error) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}},
}

func generateRSA(bits int) (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, bits) }

// newMaker returns a keyset.Maker, which creates all keys and certificates of the fleet. It
// keeps the key it generated, so that a retried write makes a new certificate but no new
// key. Use one for each change of a set.
func newMaker(commonName string) keyset.Maker {
	made := map[string]crypto.Signer{}
	return func(algorithm string, bits int, notBefore time.Time) (crypto.Signer, *x509.Certificate, error) {
		alg, kind := certAlgorithms[algorithm], fmt.Sprint(algorithm, bits)
		if made[kind] == nil {
			private, err := alg.generate(bits)
			if err != nil {
				return nil, nil, fmt.Errorf("generate an %s key: %w", algorithm, err)
			}
			made[kind] = private
		}
		subject, err := asn1.Marshal(pkix.Name{CommonName: commonName}.ToRDNSequence())
		if err != nil {
			return nil, nil, fmt.Errorf("encode the common name %q: %w", commonName, err)
		}
		cert, err := selfSigned(&x509.Certificate{RawSubject: subject, NotBefore: notBefore, NotAfter: notBefore.AddDate(certYears, 0, 0),
			SignatureAlgorithm: alg.signature}, made[kind])
		return made[kind], cert, err
	}
}

// selfSigned completes a template with a random serial number and signs it with its own
// key. The times are truncated to seconds, the resolution of a certificate.
func selfSigned(template *x509.Certificate, private crypto.Signer) (*x509.Certificate, error) {
	template.NotBefore = template.NotBefore.UTC().Truncate(time.Second)
	template.NotAfter = template.NotAfter.UTC().Truncate(time.Second)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the certificate: %w", err)
	}
	return cert, nil
}
