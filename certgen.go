package fleetkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// An algorithm is one way to sign: its JOSE name (RFC 7518 section 3.1, RFC
// 8037 section 3.1), golang-jwt's implementation, and the certificates and keys
// that go with it. A key has exactly one algorithm (RFC 8725 section 3.1), and
// it comes from the certificate, never from a token.
type algorithm struct {
	name     string
	method   jwt.SigningMethod
	certSig  x509.SignatureAlgorithm // how a self-signed certificate is signed
	generate func() (crypto.Signer, error)
}

const rsaBits = 2048

// algorithmNamed returns the algorithm of a JOSE name. The methods are held
// here, not looked up in golang-jwt's registry, which any dependency of a
// program can change.
func algorithmNamed(name string) (algorithm, error) {
	newRSA := func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, rsaBits) }
	newEC := func(c elliptic.Curve) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return ecdsa.GenerateKey(c, rand.Reader) }
	}
	switch name {
	case "RS256":
		return algorithm{name, jwt.SigningMethodRS256, x509.SHA256WithRSA, newRSA}, nil
	case "PS256":
		// golang-jwt's own PS256 verifies any salt length; RFC 7518 section
		// 3.5 wants the length of the hash.
		strict := &jwt.SigningMethodRSAPSS{
			SigningMethodRSA: jwt.SigningMethodPS256.SigningMethodRSA,
			Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256},
		}
		return algorithm{name, strict, x509.SHA256WithRSAPSS, newRSA}, nil
	case "ES256":
		return algorithm{name, jwt.SigningMethodES256, x509.ECDSAWithSHA256, newEC(elliptic.P256())}, nil
	case "ES384":
		return algorithm{name, jwt.SigningMethodES384, x509.ECDSAWithSHA384, newEC(elliptic.P384())}, nil
	case "EdDSA":
		return algorithm{name, jwt.SigningMethodEdDSA, x509.PureEd25519, func() (crypto.Signer, error) {
			_, private, err := ed25519.GenerateKey(rand.Reader)
			return private, err
		}}, nil
	}
	return algorithm{}, fmt.Errorf("unknown algorithm %q: use RS256, PS256, ES256, ES384 or EdDSA", name)
}

// algorithmOf returns the one algorithm that the key of a certificate signs
// with, or an error if the key is of a kind or strength that is not to be
// trusted.
func algorithmOf(cert *x509.Certificate) (algorithm, error) {
	switch public := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if public.N.BitLen() < rsaBits {
			return algorithm{}, fmt.Errorf("the RSA key has %d bits; at least %d are needed", public.N.BitLen(), rsaBits)
		}
		if public.E < 65537 {
			return algorithm{}, fmt.Errorf("the RSA key has public exponent %d; at least 65537 is needed", public.E)
		}
		if fromROCA(public) {
			return algorithm{}, errors.New("the RSA key was made by a faulty chip, and its private half can be worked out from it (CVE-2017-15361)")
		}
		switch cert.SignatureAlgorithm {
		case x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
			if bytes.Equal(cert.RawIssuer, cert.RawSubject) { // or it is how the authority signs
				return algorithmNamed("PS256")
			}
		}
		return algorithmNamed("RS256")
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return algorithmNamed("ES256")
		case elliptic.P384():
			return algorithmNamed("ES384")
		}
		return algorithm{}, fmt.Errorf("the EC key is on curve %s; use P-256 or P-384", public.Params().Name)
	case ed25519.PublicKey:
		if lowOrder(public) {
			return algorithm{}, errors.New("the Ed25519 key is a point of low order, under which anyone can sign")
		}
		return algorithmNamed("EdDSA")
	}
	return algorithm{}, fmt.Errorf("keys of type %T are not supported; use RSA, P-256, P-384 or Ed25519", cert.PublicKey)
}

// newKey generates a key of the named algorithm and a self-signed certificate
// for it, with marks as its alternative names (see rotation.go). The certificate
// lives ten years, with rotation as without: what ends a key is its successor,
// and a fleet that cannot make one had better go on than stop.
func newKey(algorithmName, commonName string, notBefore time.Time, marks ...*url.URL) (*key, error) {
	alg, err := algorithmNamed(algorithmName)
	if err != nil {
		return nil, err
	}
	private, err := alg.generate()
	if err != nil {
		return nil, fmt.Errorf("generate an %s key: %w", alg.name, err)
	}
	subject, err := asn1.Marshal(pkix.Name{CommonName: commonName}.ToRDNSequence())
	if err != nil {
		return nil, fmt.Errorf("encode the common name %q: %w", commonName, err)
	}
	cert, err := selfSigned(alg, private, subject, notBefore, notBefore.AddDate(10, 0, 0), marks)
	if err != nil {
		return nil, err
	}
	return makeKey(cert, private)
}

// selfSigned makes a certificate by a key for itself. The times are cut to whole
// seconds, which is what a certificate can say.
func selfSigned(alg algorithm, private crypto.Signer, rawSubject []byte, notBefore, notAfter time.Time, marks []*url.URL) (*x509.Certificate, error) {
	template := &x509.Certificate{
		// No SerialNumber: CreateCertificate draws a random one.
		RawSubject:            rawSubject,
		NotBefore:             notBefore.UTC().Truncate(time.Second),
		NotAfter:              notAfter.UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		SignatureAlgorithm:    alg.certSig,
		BasicConstraintsValid: true,
		URIs:                  marks,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate with the %s key: %w", alg.name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the certificate: %w", err)
	}
	return cert, nil
}
