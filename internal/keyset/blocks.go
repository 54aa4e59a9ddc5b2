package keyset

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// Encode returns the set as a bundle, which Parse reads.
func (s *Set) Encode() ([]byte, error) {
	var blocks []*pem.Block
	for _, k := range s.Keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.Private)
		if err != nil {
			return nil, fmt.Errorf("encode the private key of %s: %w", k.ID, err)
		}
		blocks = append(blocks, &pem.Block{Type: pemPrivateKey, Bytes: der}, &pem.Block{Type: pemCertificate, Bytes: k.Cert.Raw})
	}
	for _, r := range s.Retired {
		block, err := retiredBlock(r)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block)
	}
	for _, id := range s.Revoked {
		blocks = append(blocks, revokedBlock(id))
	}
	var out bytes.Buffer
	for _, block := range blocks {
		if err := pem.Encode(&out, block); err != nil {
			return nil, err
		}
	}
	if out.Len() > MaxBundleSize {
		return nil, fmt.Errorf("a bundle of %d keys, %d retired keys and %d revoked keys has %d bytes; at most %d are allowed",
			len(s.Keys), len(s.Retired), len(s.Revoked), out.Len(), MaxBundleSize)
	}
	return out.Bytes(), nil
}

// untilLayout is the only accepted form of Until, a subset of RFC 3339.
const untilLayout = "2006-01-02T15:04:05Z"

// retiredBlock returns a RETIRED KEY: the public key (SubjectPublicKeyInfo), with headers
// for its kid, the end of its trust, the algorithm if the key does not determine it, and a
// checksum of these, which detects flipped bits.
func retiredBlock(r Retired) (*pem.Block, error) {
	der, err := x509.MarshalPKIXPublicKey(r.Public)
	if err != nil {
		return nil, fmt.Errorf("encode the public key of %s: %w", r.ID, err)
	}
	headers := map[string]string{"Kid": r.ID, "Until": r.Until.UTC().Format(untilLayout)}
	if r.Alg.Name == "PS256" {
		headers["Alg"] = r.Alg.Name
	}
	headers["Sum"] = sum(headers)
	return &pem.Block{Type: pemRetired, Headers: headers, Bytes: der}, nil
}

func sum(headers map[string]string) string {
	digest := sha256.Sum256([]byte("Kid: " + headers["Kid"] + "\nUntil: " + headers["Until"] + "\nAlg: " + headers["Alg"] + "\n"))
	return hex.EncodeToString(digest[:8])
}

func parseRetired(block *pem.Block) (Retired, error) {
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Retired{}, errors.New("not a public key (SubjectPublicKeyInfo)")
	}
	alg := block.Headers["Alg"]
	r := Retired{Public: public}
	if r.Alg, err = jws.AlgorithmOf(public, alg == "PS256"); err != nil {
		return r, err
	}
	if alg != "" && r.Alg.Name != "PS256" {
		return r, fmt.Errorf("PEM header Alg %q: only PS256 is allowed, for an RSA key", alg)
	}
	if r.ID = jws.Thumbprint(public); block.Headers["Kid"] != r.ID {
		return r, errors.New("PEM header Kid does not match the key")
	}
	until := block.Headers["Until"]
	if r.Until, err = time.Parse(untilLayout, until); err != nil || r.Until.IsZero() || r.Until.Format(untilLayout) != until {
		return r, errors.New("PEM header Until is not a time such as 2026-01-02T15:04:05Z")
	}
	if block.Headers["Sum"] != sum(block.Headers) {
		return r, fmt.Errorf("PEM header Sum does not match the other headers; if you changed them by hand, write Sum: %s", sum(block.Headers))
	}
	return r, nil
}

// revokedBlock returns a REVOKED KEY: the 32 bytes of the key's RFC 7638 SHA-256
// thumbprint. The header repeats them as the kid and must match, so that a flipped bit
// cannot undo a revocation.
func revokedBlock(id string) *pem.Block {
	digest, _ := base64.RawURLEncoding.DecodeString(id) // already checked
	return &pem.Block{Type: pemRevoked, Headers: map[string]string{"Kid": id}, Bytes: digest}
}

func parseRevoked(block *pem.Block) (id string, err error) {
	id = base64.RawURLEncoding.EncodeToString(block.Bytes)
	if len(block.Bytes) != sha256.Size {
		return "", fmt.Errorf("%d bytes are not an RFC 7638 SHA-256 thumbprint", len(block.Bytes))
	}
	if block.Headers["Kid"] != id {
		return "", fmt.Errorf("PEM header Kid does not match the thumbprint; it should be %s", id)
	}
	return id, nil
}

// CheckThumbprint checks the kid of a fleet key: an RFC 7638 SHA-256 thumbprint.
func CheckThumbprint(id string) error {
	digest, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(digest) != sha256.Size {
		return fmt.Errorf("%s is not an RFC 7638 SHA-256 thumbprint, 43 characters of base64url", jws.Quote(id))
	}
	return nil
}
