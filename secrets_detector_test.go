package fleetkey_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// This file finds key material in text. What it looks through comes from
// secrets_test.go.

// A detector knows secrets in every form that a program may print them in: each
// cut into pieces, so that a part of a secret that is twice as long is found as
// well, wherever it begins.
type detector struct {
	mu      sync.Mutex
	pieces  map[string]string // to what they are pieces of
	outputs []output
}

type output struct{ from, text string }

// A piece has so many characters, or so many where each byte takes several: at
// least 50 bits, that turn up by chance nowhere.
const (
	pieceSize = 16
	listSize  = 40
)

func newDetector() *detector { return &detector{pieces: map[string]string{}} }

// add collects something that others may see.
func (d *detector) add(from string, values ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range values {
		d.outputs = append(d.outputs, output{from, fmt.Sprint(v)})
	}
}

// hide adds a text that nobody may see.
func (d *detector) hide(what, text string) { d.cut(what, text, pieceSize) }

func (d *detector) cut(what, text string, size int) {
	for i := 0; i+size <= len(text); i += size {
		d.pieces[text[i:i+size]] = what
	}
}

// hideBytes adds bytes, in the spellings that they commonly have.
func (d *detector) hideBytes(what string, secret []byte) {
	d.hide(what+", raw", string(secret))
	d.hide(what+", in hexadecimal", hex.EncodeToString(secret))
	d.hide(what+", in hexadecimal", strings.ToUpper(hex.EncodeToString(secret)))
	d.cut(what+", as a list of bytes", strings.Trim(fmt.Sprint(secret), "[]"), listSize)
	d.cut(what+", quoted", strings.Trim(strconv.Quote(string(secret)), `"`), listSize)
	d.cut(what+", as Go source", strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte{"), listSize)
	for shift := range 3 { // how it lies among other bytes that are encoded with it
		text := secret[shift:]
		text = text[:len(text)/3*3]
		d.hide(what+", in base64", base64.StdEncoding.EncodeToString(text))
		d.hide(what+", in base64url", base64.URLEncoding.EncodeToString(text))
	}
}

// hideKey adds the private parts of a key. Its public parts are no secrets.
func (d *detector) hideKey(private crypto.Signer) {
	parts := map[string][]byte{}
	switch k := private.(type) {
	case *rsa.PrivateKey:
		k.Precompute()
		parts["d"], parts["p"], parts["q"] = k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes()
		parts["dp"], parts["dq"], parts["qi"] = k.Precomputed.Dp.Bytes(), k.Precomputed.Dq.Bytes(), k.Precomputed.Qinv.Bytes()
		d.hide("d, in decimal", k.D.String())
		d.hide("p, in decimal", k.Primes[0].String())
		d.hide("q, in decimal", k.Primes[1].String())
	case *ecdsa.PrivateKey:
		parts["d"], _ = k.Bytes()
		d.hide("d, in decimal", k.D.String()) //nolint:staticcheck // what fmt prints
	case ed25519.PrivateKey:
		parts["seed"] = k.Seed()
	}
	for name, part := range parts {
		d.hideBytes(fmt.Sprintf("%s of %T", name, private), part)
	}
}

// hideBundle adds all private keys of a bundle.
func (d *detector) hideBundle(bundle []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return
		}
		if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			d.hideKey(parsed.(crypto.Signer))
		}
	}
}

// hideToken adds a token: who sees all of it can use it, and the signature is
// what nobody can make up.
func (d *detector) hideToken(token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hide("the signature of a token", token[strings.LastIndex(token, ".")+1:])
}

// found returns what a text gives away.
func (d *detector) found(text string) string {
	for _, size := range []int{pieceSize, listSize} {
		for i := 0; i+size <= len(text); i++ {
			if what := d.pieces[text[i:i+size]]; what != "" {
				return what
			}
		}
	}
	return ""
}

// check fails for every output that gives something away, without showing it.
func (d *detector) check(t *testing.T) {
	t.Helper()
	require.Greater(t, len(d.pieces), 100, "no secrets are known")
	size := 0
	for _, o := range d.outputs {
		size += len(o.text)
		if what := d.found(o.text); what != "" {
			t.Errorf("%s shows %s", o.from, what)
		}
	}
	t.Logf("%d outputs of %d bytes give away none of %d pieces of secrets", len(d.outputs), size, len(d.pieces))
}

// TestDetector: printed carelessly, every kind of key is found.
func TestDetector(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "ES384", "EdDSA"} {
		p := newParty(t, alg)
		d := newDetector()
		bundle, _ := p.store.Content()
		d.hideBundle(bundle)
		block, _ := pem.Decode(bundle)
		der := block.Bytes
		encoded, err := json.Marshal(p.private)
		require.NoError(t, err)
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", p.private)
		for name, text := range map[string]string{
			"PEM": string(bundle), "DER": string(der), "hexadecimal": fmt.Sprintf("%x", der), "HEXADECIMAL": fmt.Sprintf("%X", der), "base64url": base64.RawURLEncoding.EncodeToString(der),
			"bytes": fmt.Sprint(der), "Go": fmt.Sprintf("%#v", der), "%v": fmt.Sprint(p.private), "%+v": fmt.Sprintf("%+v", p.private), "JSON": string(encoded), "slog": log.String(),
			"a part": string(bundle[len(bundle)/7 : len(bundle)/7+200]),
		} {
			if name == "a part" && alg != "RS256" { // the others' private part is too short to hit
				continue
			}
			require.NotEmpty(t, d.found(text), "%s of a key for %s", name, alg)
		}
		require.Empty(t, d.found(fmt.Sprint(p.PublicKeys(), p.SigningKey().Certificate)), "the public half is no secret")
	}
}

// A spyStore tells the detector of every key that passes.
type spyStore struct {
	fleetkey.KeyStore
	*detector
}

func (s spyStore) String() string { return fmt.Sprint(s.KeyStore) }

func (s spyStore) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	bundle, v, err := s.KeyStore.Load(ctx)
	s.hideBundle(bundle)
	return bundle, v, err
}

func (s spyStore) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	s.hideBundle(bundle)
	return s.KeyStore.Save(ctx, bundle, prev)
}
