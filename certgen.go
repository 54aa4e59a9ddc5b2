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
	"net/url"
	"time"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// A certMaker generates the fleet's keys and self-signed certificates. Nothing else
// does. It is the keyset.Maker of a Signer.
type certMaker struct{ commonName string }

const (
	rsaBits = 2048
	// certYears is how long a certificate lives, with or without rotation: a key ends
	// when its successor takes over, and a fleet that cannot make one should continue
	// rather than stop.
	certYears = 10
)

// certAlgorithms says, by JOSE name, how a certificate is signed and how a key is
// generated.
var certAlgorithms = map[string]struct {
	signature x509.SignatureAlgorithm
	generate  func() (crypto.Signer, error)
}{
	"RS256": {x509.SHA256WithRSA, generateRSA},
	"PS256": {x509.SHA256WithRSAPSS, generateRSA},
	"ES256": {x509.ECDSAWithSHA256, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	"ES384": {x509.ECDSAWithSHA384, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }},
	"EdDSA": {x509.PureEd25519, func() (crypto.Signer, error) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}},
}

func generateRSA() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, rsaBits) }

// New generates a key of the named algorithm and a self-signed certificate for it, with
// names as its alternative names.
func (m certMaker) New(algorithm string, notBefore time.Time, names []*url.URL) (crypto.Signer, *x509.Certificate, error) {
	alg := certAlgorithms[algorithm]
	private, err := alg.generate()
	if err != nil {
		return nil, nil, fmt.Errorf("generate an %s key: %w", algorithm, err)
	}
	subject, err := asn1.Marshal(pkix.Name{CommonName: m.commonName}.ToRDNSequence())
	if err != nil {
		return nil, nil, fmt.Errorf("encode the common name %q: %w", m.commonName, err)
	}
	cert, err := selfSigned(&x509.Certificate{RawSubject: subject, NotBefore: notBefore, NotAfter: notBefore.AddDate(certYears, 0, 0),
		SignatureAlgorithm: alg.signature, URIs: names}, private)
	return private, cert, err
}

// Again signs a certificate for a key once more, with another end and other alternative
// names.
func (m certMaker) Again(k *keyset.Key, notAfter time.Time, names []*url.URL) (*x509.Certificate, error) {
	return selfSigned(&x509.Certificate{RawSubject: k.Cert.RawSubject, NotBefore: k.Cert.NotBefore, NotAfter: notAfter,
		SignatureAlgorithm: certAlgorithms[k.Alg.Name].signature, URIs: names}, k.Private)
}

// selfSigned completes a template and signs it by its own key. The times are truncated
// to seconds, which is what a certificate can say. It gets a random serial number.
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
