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
	"maps"
	"net/url"
	"slices"
	"strings"
)

// MaxBundleSize is the longest bundle, in bytes, that is read or written.
const MaxBundleSize = 64 << 10

// Types of PEM blocks in a bundle.
const (
	pemPrivateKey  = "PRIVATE KEY" // PKCS#8, followed by the key's certificate
	pemCertificate = "CERTIFICATE"
	pemRetired     = "RETIRED KEY" // SubjectPublicKeyInfo; see retiredBlock
	pemRevoked     = "REVOKED KEY" // the thumbprint; see revokedBlock
)

// Parse reads a bundle: PEM (RFC 7468) with, for each key, a PKCS#8 PRIVATE KEY block
// followed by its CERTIFICATE, and RETIRED KEY and REVOKED KEY blocks. Parse is strict,
// since an overlooked key is a lost key: anything unknown is an error that gives the number
// of the block, counted from 1.
func Parse(bundle []byte) (*Set, error) {
	if len(bundle) > MaxBundleSize {
		return nil, fmt.Errorf("the bundle has %d bytes; at most %d are allowed", len(bundle), MaxBundleSize)
	}
	p := parser{seen: map[string]int{}}
	for rest := bundle; ; {
		block, after, err := nextBlock(rest)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", p.n+1, err)
		}
		if p.private != nil && (block == nil || block.Type != pemCertificate) {
			return nil, fmt.Errorf("PEM block %d: private key not followed by its certificate (`fleetkey import FILE` creates one, and puts a key before its certificate)", p.n)
		}
		if block == nil {
			break
		}
		p.n, rest = p.n+1, after
		if err := p.add(block); err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", p.n, err)
		}
	}
	if p.n == 0 {
		return nil, fmt.Errorf("the bundle contains no PEM block%s", hint(bundle))
	}
	return New(p.keys, p.retired, p.revoked), nil
}

// A parser holds the blocks read so far.
type parser struct {
	n       int            // blocks
	private crypto.Signer  // key whose certificate must follow
	seen    map[string]int // block number by kind of entry and kid
	keys    []*Key
	retired []Retired
	revoked []string
}

func (p *parser) add(block *pem.Block) (err error) {
	id := ""
	switch block.Type {
	case pemPrivateKey:
		p.private, err = parsePrivateKey(block.Bytes)
		return err
	case pemCertificate:
		var k *Key
		if k, err = parseCertificate(block.Bytes, p.private); err == nil {
			p.keys, id, p.private = append(p.keys, k), k.ID, nil
		}
	case pemRetired:
		var r Retired
		if r, err = parseRetired(block); err == nil {
			p.retired, id = append(p.retired, r), "retired "+r.ID
		}
	case pemRevoked:
		if id, err = parseRevoked(block); err == nil {
			p.revoked = append(p.revoked, id) // duplicates are harmless
		}
		return err
	default:
		return unknownBlock(block)
	}
	if first, ok := p.seen[id]; ok && err == nil {
		return fmt.Errorf("the same key as in block %d", first)
	}
	p.seen[id] = p.n
	return err
}

// nextBlock returns the first PEM block and what follows it, or nil at the end. pem.Decode
// skips a block that it cannot read, but a damaged key must not be lost. So text between
// blocks, such as openssl writes, must not contain the dashes of a block's frame.
func nextBlock(data []byte) (*pem.Block, []byte, error) {
	const begin, dashes = "-----BEGIN ", "-----"
	text, _, found := bytes.Cut(data, []byte(begin))
	if bytes.Contains(text, []byte(dashes)) {
		return nil, nil, errors.New("damaged: the text around it contains part of a PEM frame")
	}
	if !found {
		return nil, nil, nil
	}
	block, rest := pem.Decode(data[len(text):])
	if block == nil || bytes.Count(data[len(text):len(data)-len(rest)], []byte(begin)) != 1 {
		return nil, nil, fmt.Errorf("damaged or truncated: not a complete PEM block%s", hint(data))
	}
	return block, rest, checkHeaders(block)
}

// checkHeaders accepts headers only where they are defined. It does not show a long name,
// which could be a line of a key.
func checkHeaders(block *pem.Block) error {
	if block.Headers["DEK-Info"] != "" {
		return unknownBlock(block)
	}
	known := map[string][]string{pemRetired: {"Kid", "Until", "Alg", "Sum"}, pemRevoked: {"Kid"}}[block.Type]
	for _, name := range slices.Sorted(maps.Keys(block.Headers)) {
		switch {
		case slices.Contains(known, name):
			continue
		case block.Type == pemCertificate && name == "Kid":
			return errOldForm
		case len(name) > 15:
			name = "..."
		}
		return fmt.Errorf("PEM header %q is not supported; is the key encrypted?", name)
	}
	return nil
}

var errOldForm = errors.New("a bundle of an unreleased version before 0.1: " +
	"start with a new store, and put the certificates of other systems into Config.Former")

func unknownBlock(block *pem.Block) error {
	if known := hint(pem.EncodeToMemory(block)); known != "" {
		return fmt.Errorf("not a block of a bundle%s", known)
	}
	typ := block.Type
	if strings.Trim(typ, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ") != "" {
		typ = "..." // it may be a line of a key
	}
	return fmt.Errorf("unknown type %q: was it written by a newer fleetkey? A bundle contains PRIVATE KEY, CERTIFICATE, RETIRED KEY and REVOKED KEY blocks", typ)
}

func parsePrivateKey(der []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	// ParsePKCS8PrivateKey ignores trailing data, which the next write would drop.
	if rest, derErr := asn1.Unmarshal(der, new(asn1.RawValue)); err != nil || derErr != nil || len(rest) > 0 {
		// The cause is omitted: it could quote its input.
		return nil, fmt.Errorf("not a PKCS#8 private key%s", hint(der))
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private keys of type %T cannot sign", parsed)
	}
	return private, nil
}

func parseCertificate(der []byte, private crypto.Signer) (*Key, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("not a certificate: %w%s", err, hint(der))
	}
	if slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.Scheme == "fleetkey" }) {
		return nil, errOldForm
	}
	if private == nil {
		return nil, errors.New("a certificate not preceded by its private key: this looks like an export, a chain or a truncated bundle. " +
			"Restore the whole bundle, or let `fleetkey import FILE` put a key before its certificate; put the certificate of another system into Config.Former; omit CA certificates")
	}
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		// The dates of a certificate are the schedule; this detects flipped bits in
		// them. Security does not depend on the hash, which may be SHA-1; Go does not check
		// MD5.
		fips140.WithoutEnforcement(func() {
			err = cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
		})
		if _, insecure := errors.AsType[x509.InsecureAlgorithmError](err); err != nil && !insecure {
			return nil, fmt.Errorf("damaged: the certificate's own signature does not verify: %w", err)
		}
	}
	return NewKey(cert, private)
}
