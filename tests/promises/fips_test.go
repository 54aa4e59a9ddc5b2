package promises

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestFIPS140: every algorithm works in Go's FIPS 140-3 mode with enforcement, where other
// algorithms fail (https://go.dev/doc/security/fips140). The mode is fixed when a process
// starts, so the test runs in a separate one.
func TestFIPS140(t *testing.T) {
	if fips140.Enforced() {
		for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
			t.Run(alg, func(t *testing.T) { liveByFIPS(t, alg) })
		}
		return
	}
	require.NotContains(t, os.Getenv("GODEBUG"), "fips140=only")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFIPS140$", "-test.v")
	child.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestFIPS140/EdDSA")
}

func liveByFIPS(t *testing.T, alg string) {
	cfg := testkit.Config()
	cfg.Algorithm = alg
	path := filepath.Join(t.TempDir(), "keys", "keys.pem")
	stranger := testkit.Start(t, fleetkeytest.NewStore(), cfg).SigningKey()
	cfg.Former = []fleetkey.Former{{Certificate: stranger.Certificate}}
	s := testkit.Start(t, fleetkey.NewFileStore(path), cfg)
	other := testkit.Start(t, fleetkey.NewFileStore(path), cfg)
	var name string
	fips140.WithoutEnforcement(func() { name = namesOf(stranger.Certificate)[1] })

	require.NoError(t, s.Rotate(t.Context()))
	token := testkit.Issue(t, s)
	require.NoError(t, other.Refresh(t.Context()))
	testkit.Accepts(t, token, other)
	require.Contains(t, testkit.PublishedKeyIDs(t, other), name, "a key of another system has its SHA-1 name")
	if alg != "PS256" {
		testkit.Accepts(t, testkit.Forge(stranger.Signer, name, "JWT", time.Now()), other)
	}
	require.NoError(t, s.Revoke(t.Context(), testkit.KeyID(token)))
	require.NoError(t, other.Refresh(t.Context()))
	testkit.Refuses(t, fleetkey.ErrUnknownKey, token, other)
}
