package fleetkeytest_test

import (
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

var algorithms = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}

// A token of one signer verifies on another, in real time and in a bubble,
// whose clock starts at the year 2000.
func TestNewSigner(t *testing.T) {
	for _, alg := range append(algorithms, "") {
		check := func(t *testing.T) {
			cfg := fleetkey.Config{Algorithm: alg}
			issuer, verifier := fleetkeytest.NewSigner(t, cfg), fleetkeytest.NewSigner(t, cfg)
			token, err := issuer.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "app"})
			require.NoError(t, err)
			verified, err := verifier.Verify(t.Context(), token)
			require.NoError(t, err)
			assert.Equal(t, "alice", verified.Subject())
			assert.Equal(t, "https://issuer.example", verified.Issuer())
			key := issuer.SigningKey()
			assert.Equal(t, key.KeyID, verified.KeyID())
			if alg != "" {
				assert.Equal(t, alg, key.Algorithm)
			} else {
				assert.Equal(t, "RS256", key.Algorithm)
			}
			assert.Contains(t, key.Certificate.Subject.CommonName, "PUBLIC TEST KEY")
			assert.False(t, time.Unix(0, 0).Before(key.Certificate.NotBefore))
			assert.False(t, key.Certificate.NotAfter.Before(time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)))
		}
		t.Run("real time "+alg, check)
		t.Run("bubble "+alg, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check(t)
				time.Sleep(24 * time.Hour) // virtual; refreshes go on
				check(t)
			})
		})
	}
}

// Each algorithm has a key of its own.
func TestNewSignerKeysDiffer(t *testing.T) {
	kids := map[string]string{}
	for _, alg := range algorithms {
		kid := fleetkeytest.NewSigner(t, fleetkey.Config{Algorithm: alg}).SigningKey().KeyID
		assert.Empty(t, kids[kid], "%s has the key of another algorithm", alg)
		kids[kid] = alg
	}
}

func TestNewSignerKeepsConfig(t *testing.T) {
	s := fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: "https://mine.example", TokenTTL: time.Minute})
	token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "app"})
	require.NoError(t, err)
	verified, err := s.Verify(t.Context(), token)
	require.NoError(t, err)
	assert.Equal(t, "https://mine.example", verified.Issuer())
	assert.Equal(t, time.Minute, verified.ExpiresAt().Sub(verified.IssuedAt()))
}

// A recorder is a test that only records that it has failed.
type recorder struct {
	testing.TB
	failed string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = format
	panic(r)
}

func TestNewSignerFailsTheTest(t *testing.T) {
	for name, cfg := range map[string]fleetkey.Config{
		"unknown algorithm": {Algorithm: "HS256"},
		"unusable config":   {TokenTTL: -1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{TB: t}
			assert.Panics(t, func() { fleetkeytest.NewSigner(r, cfg) })
			assert.NotEmpty(t, r.failed)
		})
	}
}

// The keys must not reach a program that does not import this package.
func TestTestKeysStayHere(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/fleetkey/fleetkey").Output()
	if err != nil {
		testkit.Missing(t, "the go command", "it must be in PATH")
	}
	assert.NotContains(t, strings.Fields(string(out)), "github.com/fleetkey/fleetkey/fleetkeytest")
	assert.NotContains(t, strings.Fields(string(out)), "testing")
}

func BenchmarkNewSigner(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			for b.Loop() {
				if err := fleetkeytest.NewSigner(b, fleetkey.Config{Algorithm: alg, Logger: slog.New(slog.DiscardHandler)}).Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
