package fleetkey_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// long returns the second size where FLEETKEY_LONG=1 asks for the long form of a
// test, and the first one everywhere else.
func long[T any](short, long T) T {
	if os.Getenv("FLEETKEY_LONG") == "1" {
		return long
	}
	return short
}

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
