package fleetkeytest_test

import (
	"fmt"
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
// whose clock starts at the year 2000. Each algorithm has another key.
func TestNewSigner(t *testing.T) {
	kids := map[string]string{}
	for _, alg := range algorithms {
		check := func(t *testing.T) {
			issuer := fleetkeytest.NewSigner(t, fleetkey.Config{Algorithm: alg})
			verifier := fleetkeytest.NewSigner(t, fleetkey.Config{Algorithm: alg})
			testkit.Accepts(t, testkit.Issue(t, issuer), verifier)
			key := issuer.SigningKey()
			assert.Equal(t, alg, key.Algorithm)
			assert.Contains(t, key.Certificate.Subject.CommonName, "PUBLIC TEST KEY")
			assert.False(t, time.Unix(0, 0).Before(key.Certificate.NotBefore))
			assert.False(t, key.Certificate.NotAfter.Before(time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)))
			assert.Contains(t, []string{"", alg}, kids[key.KeyID], "the key of another algorithm")
			kids[key.KeyID] = alg
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

func TestNewSignerConfig(t *testing.T) {
	zero := fleetkeytest.NewSigner(t, fleetkey.Config{})
	assert.Equal(t, "RS256", zero.SigningKey().Algorithm)
	s := fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: "https://mine.example", TokenTTL: time.Minute})
	for signer, want := range map[*fleetkey.Signer]string{zero: "https://issuer.example 1h0m0s", s: "https://mine.example 1m0s"} {
		token, err := signer.Verify(t.Context(), testkit.Issue(t, signer))
		require.NoError(t, err)
		assert.Equal(t, want, fmt.Sprint(token.Issuer(), " ", token.ExpiresAt().Sub(token.IssuedAt())))
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
