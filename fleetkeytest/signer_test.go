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

// TestNewSigner: a token of one signer verifies on another, in real time and in a bubble,
// whose clock starts at the year 2000. Each algorithm has another key.
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
			assert.Contains(t, []string{"", alg}, kids[key.KeyID], "the key of another algorithm")
			kids[key.KeyID] = alg
		}
		check(t)
		synctest.Test(t, func(t *testing.T) {
			check(t)
			time.Sleep(24 * time.Hour) // virtual; refreshes go on
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
