package fleetkey

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A keySet is what a bundle says: certificates, the private keys that belong to
// them, and by the certificates' dates alone who signs when and who is trusted
// until when. It is pure (no I/O, no clock of its own) and never changes once
// made.
type keySet struct {
	keys []*key // by NotBefore, the newest first
}

// A key is one certificate of a set, with its private half unless the key is
// there for verification only.
type key struct {
	id      string // kid: the RFC 7638 SHA-256 thumbprint of the public key, if no header gives another
	alg     algorithm
	cert    *x509.Certificate
	private crypto.Signer // nil: verify-only
}

// headerKeyID is the PEM header of a verify-only certificate that tells under
// which kid another system signed with its key.
const headerKeyID = "Kid"

func makeKey(cert *x509.Certificate, private crypto.Signer) (*key, error) {
	alg, err := algorithmOf(cert)
	if err != nil {
		return nil, err
	}
	if !cert.NotAfter.After(cert.NotBefore) {
		return nil, fmt.Errorf("the certificate ends at %s, not after its begin at %s",
			cert.NotAfter.Format(time.RFC3339), cert.NotBefore.Format(time.RFC3339))
	}
	const signs = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	if cert.KeyUsage != 0 && cert.KeyUsage&signs == 0 { // RFC 5280 section 4.2.1.3
		return nil, errors.New("the certificate's key usage does not allow signatures; is it one for encryption?")
	}
	if private != nil {
		public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(cert.PublicKey) {
			return nil, errors.New("the private key before the certificate does not belong to it")
		}
	}
	return &key{id: thumbprint(cert), alg: alg, cert: cert, private: private}, nil
}

// thumbprint returns the RFC 7638 SHA-256 thumbprint of a certificate's public
// key, base64url-encoded. The key is of a kind that algorithmOf accepts, and
// for those there is no error.
func thumbprint(cert *x509.Certificate) string {
	digest, err := (&jose.JSONWebKey{Key: cert.PublicKey}).Thumbprint(crypto.SHA256)
	if err != nil {
		panic("fleetkey: thumbprint of an accepted key: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(digest)
}

// newKeySet puts keys in order.
func newKeySet(keys ...*key) *keySet {
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b *key) int { return b.cert.NotBefore.Compare(a.cert.NotBefore) })
	return &keySet{keys: keys}
}

const (
	pemPrivateKey  = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
)

// parseKeySet reads a bundle: PEM (RFC 7468), for each key a PKCS#8 PRIVATE KEY
// block followed by its CERTIFICATE, or a CERTIFICATE alone for a key that only
// verifies. It is strict, since a key overlooked is a key lost: what it does
// not understand is an error that names the block, counted from 1.
func parseKeySet(bundle []byte) (*keySet, error) {
	if len(bundle) > MaxBundleSize {
		return nil, fmt.Errorf("the bundle has %d bytes; at most %d are allowed", len(bundle), MaxBundleSize)
	}
	var (
		keys    []*key
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
			var k *key
			if k, err = parseCertificate(block, private); err != nil {
				break
			}
			if first, ok := blocks[k.id]; ok {
				err = fmt.Errorf("the same key as in block %d", first)
			}
			keys, blocks[k.id], private = append(keys, k), n, nil
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
	return newKeySet(keys...), nil
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

func parseCertificate(block *pem.Block, private crypto.Signer) (*key, error) {
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("not a certificate: %w", err)
	}
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		// A certificate's dates are the schedule, and this finds a flipped bit
		// in them. Certificates of other systems may be signed with SHA-1,
		// which Go no longer checks.
		err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
		var insecure x509.InsecureAlgorithmError
		if err != nil && !errors.As(err, &insecure) {
			return nil, fmt.Errorf("damaged: the certificate's own signature does not verify: %w", err)
		}
	}
	k, err := makeKey(cert, private)
	if kid, ok := block.Headers[headerKeyID]; ok && err == nil {
		if private != nil {
			return nil, fmt.Errorf("PEM header %s is for certificates without a private key", headerKeyID)
		}
		if err := checkKeyID(kid); err != nil {
			return nil, err
		}
		k.id = kid
	}
	return k, err
}

// checkKeyID accepts a kid given by hand: printable ASCII, so that it means the
// same in a PEM header and in JSON. The error does not quote what may be anything.
func checkKeyID(kid string) error {
	ok := kid != "" && len(kid) <= maxKeyID && strings.TrimSpace(kid) == kid
	for _, c := range []byte(kid) {
		ok = ok && c >= ' ' && c <= '~' && c != '"' && c != '\\'
	}
	if !ok {
		return fmt.Errorf("the kid has %d bytes, and is not 1 to %d printable ASCII characters without quotes and backslashes", len(kid), maxKeyID)
	}
	return nil
}

// refuseChain finds the certificate authority of a certificate in the set. It
// comes along with many certificates, and would here be trusted to sign tokens.
func refuseChain(keys []*key, blocks map[string]int) error {
	for _, leaf := range keys {
		if bytes.Equal(leaf.cert.RawIssuer, leaf.cert.RawSubject) {
			continue
		}
		for _, ca := range keys {
			if bytes.Equal(leaf.cert.RawIssuer, ca.cert.RawSubject) {
				return fmt.Errorf("PEM block %d: the authority that issued the certificate of block %d; leave the chain out, every certificate here is trusted to sign tokens",
					blocks[ca.id], blocks[leaf.id])
			}
		}
	}
	return nil
}

// encode writes the set as a bundle, which parseKeySet reads back.
func (s *keySet) encode() ([]byte, error) {
	var out bytes.Buffer
	for _, k := range s.keys {
		if k.private != nil {
			der, err := x509.MarshalPKCS8PrivateKey(k.private)
			if err != nil {
				return nil, fmt.Errorf("encode the private key of %s: %w", k.id, err)
			}
			if err := pem.Encode(&out, &pem.Block{Type: pemPrivateKey, Bytes: der}); err != nil {
				return nil, err
			}
		}
		block := &pem.Block{Type: pemCertificate, Bytes: k.cert.Raw}
		if k.id != thumbprint(k.cert) {
			block.Headers = map[string]string{headerKeyID: k.id}
		}
		if err := pem.Encode(&out, block); err != nil {
			return nil, err
		}
	}
	if out.Len() > MaxBundleSize {
		return nil, fmt.Errorf("a bundle of %d keys has %d bytes; at most %d are allowed", len(s.keys), out.Len(), MaxBundleSize)
	}
	return out.Bytes(), nil
}

// find returns the key with a kid, or nil.
func (s *keySet) find(kid string) *key {
	for _, k := range s.keys {
		if k.id == kid {
			return k
		}
	}
	return nil
}

// signing returns the key that signs at a time: of those with a private half
// that are within their certificate's dates, the one that began last. It
// returns nil if there is none.
func (s *keySet) signing(at time.Time) *key {
	for _, k := range s.keys {
		if k.private != nil && !k.cert.NotBefore.After(at) && at.Before(k.cert.NotAfter) {
			return k
		}
	}
	return nil
}

// successor returns the key that takes over from k: the next newer one with a
// private half. It returns nil if there is none (yet).
func (s *keySet) successor(k *key) *key {
	var next *key
	for _, other := range s.keys {
		if other == k {
			break
		}
		if other.private != nil {
			next = other
		}
	}
	return next
}

// trustEnd returns the time until which tokens signed by k are trusted: its
// successor's begin plus retain, and never past its certificate's end. For a
// key without a private half it is the certificate's end: a key that has
// retired got a certificate that ends there, see retire.
func (s *keySet) trustEnd(k *key, retain time.Duration) time.Time {
	end := k.cert.NotAfter
	if next := s.successor(k); next != nil && k.private != nil {
		if retired := next.cert.NotBefore.Add(retain); retired.Before(end) {
			end = retired
		}
	}
	return end
}

// nextChange returns the first time after at when a key starts to sign or ends
// to be trusted, or the zero time.
func (s *keySet) nextChange(at time.Time, retain time.Duration) time.Time {
	var next time.Time
	for _, k := range s.keys {
		for _, t := range []time.Time{k.cert.NotBefore, s.trustEnd(k, retain)} {
			if t.After(at) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}
