package fleetkey_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/clock"
)

// long returns the second size where FLEETKEY_LONG=1 asks for the long form of a
// test, and the first one everywhere else.
func long[T any](short, long T) T {
	if os.Getenv("FLEETKEY_LONG") == "1" {
		return long
	}
	return short
}

// by returns a context whose signers go by a wall clock.
func by(now func() time.Time) context.Context {
	return clock.With(context.Background(), clock.Wall(now))
}

// off is a wall clock that is ahead by d, or behind.
func off(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

// at returns a context whose signers see one moment only.
func at(moment time.Time) context.Context { return by(func() time.Time { return moment }) }

// segment decodes one of the three segments of a token.
func segment(t *testing.T, token string, n int) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[n])
	require.NoError(t, err)
	return data
}

// A logBuffer collects what a signer logs while the test reads it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// A keyInStore is a certificate of a bundle, with its private half if that is there.
type keyInStore struct {
	kid                 string
	notBefore, notAfter time.Time
	private             crypto.Signer
}

func (k keyInStore) signs() bool { return k.private != nil }

// keysInStore reads a bundle without the code under test, for those who judge it.
func keysInStore(bundle []byte) (keys []keyInStore, err error) {
	var private crypto.Signer
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "PRIVATE KEY" {
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			private = parsed.(crypto.Signer)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		digest, err := (&jose.JSONWebKey{Key: cert.PublicKey}).Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, err
		}
		keys = append(keys, keyInStore{base64.RawURLEncoding.EncodeToString(digest), cert.NotBefore, cert.NotAfter, private})
		private = nil
	}
	return keys, nil
}
