package fleetkeytest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestNewSigner: one signer accepts the tokens of another, in real time and in a synctest
// bubble, whose clock starts in the year 2000. Each algorithm has a different key.
func TestNewSigner(t *testing.T) {
	kids := map[string]string{}
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		check := func(t *testing.T) {
			issuer := fleetkeytest.NewSigner(t, fleetkey.Config{Algorithm: alg})
			testkit.Accepts(t, testkit.Issue(t, issuer), fleetkeytest.NewSigner(t, fleetkey.Config{Algorithm: alg}))
			key := issuer.SigningKey()
			assert.Equal(t, alg, key.Algorithm)
			assert.Contains(t, key.Certificate.Subject.CommonName, "PUBLIC TEST KEY")
			assert.Equal(t, int64(0), key.Certificate.NotBefore.Unix())
			assert.Equal(t, 2120, key.Certificate.NotAfter.Year())
			assert.Contains(t, []string{"", alg}, kids[key.KeyID], "each algorithm must have its own key")
			kids[key.KeyID] = alg
		}
		check(t)
		synctest.Test(t, func(t *testing.T) {
			check(t)
			time.Sleep(24 * time.Hour) // in virtual time; refreshes continue
			check(t)
		})
	}
}

func TestNewSignerConfig(t *testing.T) {
	for want, cfg := range map[string]fleetkey.Config{
		"RS256 https://issuer.example 1h0m0s": {},
		"RS256 https://mine.example 1m0s":     {Issuer: "https://mine.example", TokenTTL: time.Minute},
	} {
		s := fleetkeytest.NewSigner(t, cfg)
		token, err := s.Verify(t.Context(), testkit.Issue(t, s))
		require.NoError(t, err)
		assert.Equal(t, want, fmt.Sprint(s.SigningKey().Algorithm, " ", token.Issuer(), " ", token.ExpiresAt().Sub(token.IssuedAt())))
	}
}
