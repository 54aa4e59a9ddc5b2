package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// setSizes are how many keys a set holds: one, as many as while keys are being
// rotated, and as many as hardly ever.
var setSizes = []int{1, 3, 20}

// A set is a signer whose store holds a number of keys, and a token that each
// of them signed.
type set struct {
	signer *fleetkey.Signer
	tokens []string
}

// newSet makes keys whose certificates begin a minute apart, so that the newest
// signs and all are trusted.
func newSet(ctx context.Context, algorithm string, keys int) (*set, error) {
	cfg := config(algorithm)
	cfg.CachedTokens = -1
	var s set
	var bundle []byte
	for i := range keys {
		block, err := newKeyBlocks(algorithm, time.Now().Add(-time.Hour+time.Duration(i)*time.Minute))
		if err != nil {
			return nil, err
		}
		bundle = append(block, bundle...) // the newest first
		token, err := issueWith(ctx, block, cfg)
		if err != nil {
			return nil, err
		}
		s.tokens = append(s.tokens, token)
	}
	store := fleetkeytest.NewStore()
	store.Set(bundle)
	var err error
	s.signer, err = fleetkey.NewSigner(ctx, store, cfg)
	return &s, err
}

func issueWith(ctx context.Context, bundle []byte, cfg fleetkey.Config) (string, error) {
	store := fleetkeytest.NewStore()
	store.Set(bundle)
	signer, err := fleetkey.NewSigner(ctx, store, cfg)
	if err != nil {
		return "", err
	}
	defer signer.Close()
	return signer.Issue(ctx, claims())
}

func newKeyBlocks(algorithm string, begins time.Time) ([]byte, error) {
	var private crypto.Signer
	var err error
	switch algorithm {
	case "RS256":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(begins.UnixNano()), Subject: pkix.Name{CommonName: issuer},
		NotBefore: begins, NotAfter: begins.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...), nil
}

func (s *set) issue(int) {
	_, err := s.signer.Issue(context.Background(), claims())
	must(err)
}

func (s *set) verify(i int) {
	_, err := s.signer.Verify(context.Background(), s.tokens[i%len(s.tokens)])
	must(err)
}

// compareSetSizes shows that the number of keys costs nothing.
func compareSetSizes(p plan, out *page) error {
	fmt.Fprint(out, "\n## Keys in the set\n\nRatio to a set of one key. Every key's tokens are verified in turn, the first time each.\n\n"+
		"|| 1 key | 3 keys | 20 keys |\n|---|---|---|---|\n")
	for _, algorithm := range algorithms {
		var issue, verify []operation
		for _, keys := range setSizes {
			s, err := newSet(context.Background(), algorithm, keys)
			if err != nil {
				return err
			}
			defer s.signer.Close()
			issue, verify = append(issue, s.issue), append(verify, s.verify)
		}
		for _, row := range []struct {
			name string
			ops  []operation
		}{{"issue", issue}, {"verify", verify}} {
			results := measure(p, 1, row.ops)
			fmt.Fprintf(out, "| %s, %s | %s µs | %s | %s |\n", algorithm, row.name,
				figure(results[0].micros()), results[1].over(results[0]), results[2].over(results[0]))
		}
	}
	return nil
}
