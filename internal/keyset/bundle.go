package keyset

import (
	"bytes"
	"crypto"
	"crypto/fips140"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// MaxBundleSize is the longest bundle, in bytes, that is read or written.
const MaxBundleSize = 64 << 10

// headerKeyID is the PEM header of a certificate without a private key. It holds the
// kid under which another system signed with that key.
const headerKeyID = "Kid"

const (
	pemPrivateKey  = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
)

// Parse reads a bundle: PEM (RFC 7468), for each key a PKCS#8 PRIVATE KEY
// block followed by its CERTIFICATE, or a CERTIFICATE alone for a key that only
// verifies. It is strict, since a key overlooked is a key lost: what it does
// not understand is an error that names the block, counted from 1.
func Parse(bundle []byte) (*Set, error) {
	if len(bundle) > MaxBundleSize {
		return nil, fmt.Errorf("the bundle has %d bytes; at most %d are allowed", len(bundle), MaxBundleSize)
	}
	var (
		keys    []*Key
		blocks  = map[string]int{} // kid to the number of its certificate's block
		private crypto.Signer      // waits for its certificate
		n       int
	)
	for {
		block, rest, err := nextBlock(bundle)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", n+1, err)
		}
		if block == nil {
			break
		}
		n, bundle = n+1, rest
		if private != nil && block.Type != pemCertificate {
			return nil, fmt.Errorf("PEM block %d: private key without a certificate after it", n-1)
		}
		switch block.Type {
		case pemPrivateKey:
			private, err = parsePrivateKey(block.Bytes)
		case pemCertificate:
			var k *Key
			if k, err = parseCertificate(block, private); err != nil {
				break
			}
			if first, ok := blocks[k.ID]; ok {
				err = fmt.Errorf("the same key as in block %d", first)
			}
			keys, blocks[k.ID], private = append(keys, k), n, nil
		default:
			err = unknownBlock(block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", n, err)
		}
	}
	if private != nil {
		return nil, fmt.Errorf("PEM block %d: private key without a certificate after it", n)
	}
	if len(keys) == 0 {
		return nil, errors.New("the bundle holds no PEM block")
	}
	if err := refuseChain(keys, blocks); err != nil {
		return nil, err
	}
	return New(keys...), nil
}

// nextBlock returns the first PEM block and what follows it, or nil at the end.
// pem.Decode skips a block that it cannot read and looks for the next one; here
// a damaged block must not vanish, so text between blocks may be anything (as
// openssl writes it) but the dashes of a block's frame.
func nextBlock(data []byte) (*pem.Block, []byte, error) {
	const begin, dashes = "-----BEGIN ", "-----"
	start := bytes.Index(data, []byte(begin))
	if start < 0 {
		if bytes.Contains(data, []byte(dashes)) {
			return nil, nil, errors.New("damaged: the text holds part of a PEM frame")
		}
		return nil, nil, nil
	}
	if bytes.Contains(data[:start], []byte(dashes)) {
		return nil, nil, errors.New("damaged: the text before it holds part of a PEM frame")
	}
	block, rest := pem.Decode(data[start:])
	if block == nil || bytes.Count(data[start:len(data)-len(rest)], []byte(begin)) != 1 {
		return nil, nil, errors.New("damaged or cut off: not a complete PEM block")
	}
	for name := range block.Headers {
		if name != headerKeyID || block.Type != pemCertificate {
			if len(name) > 15 {
				name = "..." // a line of the key, perhaps
			}
			return nil, nil, fmt.Errorf("PEM header %q is not supported; is the key encrypted?", name)
		}
	}
	return block, rest, nil
}

func unknownBlock(typ string) error {
	switch typ {
	case "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return fmt.Errorf("%s: turn it into an unencrypted PKCS#8 key with `openssl pkcs8 -topk8 -nocrypt`", typ)
	}
	if strings.Trim(typ, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ") != "" {
		typ = "..." // no type, but a line of a key, perhaps
	}
	return fmt.Errorf("unknown type %q; a bundle holds PRIVATE KEY and CERTIFICATE blocks", typ)
}

func parsePrivateKey(der []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	// ParsePKCS8PrivateKey ignores what follows the key, and the next write would
	// drop it.
	if rest, derErr := asn1.Unmarshal(der, new(asn1.RawValue)); err != nil || derErr != nil || len(rest) > 0 {
		// The cause is left out: it could quote what it could not read.
		return nil, errors.New("not a PKCS#8 private key")
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private keys of type %T cannot sign", parsed)
	}
	return private, nil
}

func parseCertificate(block *pem.Block, private crypto.Signer) (*Key, error) {
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("not a certificate: %w", err)
	}
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		// A certificate's dates are the schedule, and this finds a flipped bit in
		// them. Nothing is trusted because of it, so a SHA-1 signature will do, and
		// an MD5 one, which Go does not check, is let through: other systems' old
		// certificates have them.
		fips140.WithoutEnforcement(func() {
			err = cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
		})
		var insecure x509.InsecureAlgorithmError
		if err != nil && !errors.As(err, &insecure) {
			return nil, fmt.Errorf("damaged: the certificate's own signature does not verify: %w", err)
		}
	}
	k, err := NewKey(cert, private)
	if kid, ok := block.Headers[headerKeyID]; ok && err == nil {
		if private != nil {
			return nil, fmt.Errorf("PEM header %s is for certificates without a private key", headerKeyID)
		}
		if err := jws.CheckKeyID(kid); err != nil {
			return nil, err
		}
		k.ID = kid
	}
	return k, err
}

// refuseChain finds the certificate authority of a certificate in the set. It
// comes along with many certificates, and would here be trusted to sign tokens.
func refuseChain(keys []*Key, blocks map[string]int) error {
	for _, leaf := range keys {
		if bytes.Equal(leaf.Cert.RawIssuer, leaf.Cert.RawSubject) {
			continue
		}
		for _, ca := range keys {
			if bytes.Equal(leaf.Cert.RawIssuer, ca.Cert.RawSubject) {
				return fmt.Errorf("PEM block %d: the authority that issued the certificate of block %d; leave the chain out, every certificate here is trusted to sign tokens",
					blocks[ca.ID], blocks[leaf.ID])
			}
		}
	}
	return nil
}

// Encode writes the set as a bundle, which Parse reads back.
func (s *Set) Encode() ([]byte, error) {
	var out bytes.Buffer
	for _, k := range s.Keys {
		if k.Private != nil {
			der, err := x509.MarshalPKCS8PrivateKey(k.Private)
			if err != nil {
				return nil, fmt.Errorf("encode the private key of %s: %w", k.ID, err)
			}
			if err := pem.Encode(&out, &pem.Block{Type: pemPrivateKey, Bytes: der}); err != nil {
				return nil, err
			}
		}
		block := &pem.Block{Type: pemCertificate, Bytes: k.Cert.Raw}
		if k.ID != jws.Thumbprint(k.Public) {
			block.Headers = map[string]string{headerKeyID: k.ID}
		}
		if err := pem.Encode(&out, block); err != nil {
			return nil, err
		}
	}
	if out.Len() > MaxBundleSize {
		return nil, fmt.Errorf("a bundle of %d keys has %d bytes; at most %d are allowed", len(s.Keys), out.Len(), MaxBundleSize)
	}
	return out.Bytes(), nil
}
