package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// This file reads and writes PEM: the bundles of a store, and what other
// programs make of keys and certificates. Whether a bundle is good is for the
// library to say; nothing is saved that it has not read.

// An entry is one certificate of a bundle, with its private key if that is
// there.
type entry struct {
	kid  string // as tokens name it
	cert *x509.Certificate
	key  crypto.Signer // nil: verify-only
}

const headerKeyID = "Kid" // of a verify-only certificate, so that it is found under another name

func (e entry) thumbprint() string {
	digest, err := (&jose.JSONWebKey{Key: e.cert.PublicKey}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "unsupported key"
	}
	return base64.RawURLEncoding.EncodeToString(digest)
}

// parseBundle reads a bundle or any other PEM: certificates and private keys in
// any order, in PKCS#8, PKCS#1 or SEC 1. Each key goes to its certificate.
func parseBundle(text []byte) ([]entry, error) {
	var entries []entry
	var keys []crypto.Signer
	frames, n := bytes.Count(text, []byte("-----BEGIN ")), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		n++
		var err error
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			err = errors.New("the private key is encrypted: decrypt it with `openssl pkey -in FILE -out NEW`, or import a PFX")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			var key crypto.Signer
			if key, err = parseKey(block.Bytes); err == nil {
				keys = append(keys, key)
			}
		case block.Type == "CERTIFICATE":
			e := entry{kid: block.Headers[headerKeyID]}
			if e.cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				if e.kid == "" {
					e.kid = e.thumbprint()
				}
				entries = append(entries, e)
			}
		case block.Type != "EC PARAMETERS": // openssl writes them before the key
			err = fmt.Errorf("%q is neither a certificate nor a private key", block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", n, err)
		}
	}
	if n != frames { // pem.Decode skips what it cannot read
		return nil, fmt.Errorf("damaged: %d PEM blocks begin, and %d are whole", frames, n)
	}
	if len(entries) == 0 {
		return nil, errors.New("no certificate in it")
	}
	for _, key := range keys {
		if err := give(entries, key); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// give adds a private key to the certificate that it belongs to.
func give(entries []entry, key crypto.Signer) error {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	for i := range entries {
		e := &entries[i]
		if ok && public.Equal(e.cert.PublicKey) && e.kid == e.thumbprint() {
			e.key = key
			return nil
		}
	}
	return errors.New("a private key without its certificate")
}

// parseKey leaves out the causes of its errors: they could quote what they
// could not read.
func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("not a private key that can sign, in PKCS#8, PKCS#1 or SEC 1")
}

// encodeBundle writes entries as a store holds them.
func encodeBundle(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	for _, e := range entries {
		if e.key != nil {
			der, err := x509.MarshalPKCS8PrivateKey(e.key)
			if err != nil {
				return nil, fmt.Errorf("encode the private key of %s: %w", e.kid, err)
			}
			if err := pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: der}); err != nil {
				return nil, err
			}
		}
		block := &pem.Block{Type: "CERTIFICATE", Bytes: e.cert.Raw}
		if e.kid != e.thumbprint() {
			block.Headers = map[string]string{headerKeyID: e.kid}
		}
		if err := pem.Encode(&out, block); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}
