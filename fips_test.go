package fleetkey_test

import (
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // names a certificate
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestFIPS140: every algorithm works in Go's FIPS 140-3 mode, also where it
// enforces that nothing else is used (https://go.dev/doc/security/fips140). A
// process has one mode from its start, so each runs in a process of its own.
// "make fips" runs most of the other tests so.
func TestFIPS140(t *testing.T) {
	const variable = "FLEETKEY_TEST_FIPS140"
	if mode := os.Getenv(variable); mode != "" {
		require.True(t, fips140.Enabled())
		require.Equal(t, mode == "only", fips140.Enforced())
		for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
			t.Run(alg, func(t *testing.T) { liveByFIPS(t, alg) })
		}
		return
	}
	for _, mode := range []string{"on", "only"} {
		t.Run(mode, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFIPS140$", "-test.v")
			child.Env = append(os.Environ(), "GODEBUG=fips140="+mode, variable+"="+mode)
			out, err := child.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "--- PASS: TestFIPS140/EdDSA")
		})
	}
}

// TestFIPS140Skips: what "make fips" skips is there, and what it skips only where
// the mode is enforced cannot run so.
func TestFIPS140Skips(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	require.NoError(t, err)
	variable := func(name string) []string {
		found := regexp.MustCompile(`(?m)^` + name + ` = (.+)$`).FindSubmatch(makefile)
		require.NotNil(t, found, name)
		return strings.Split(strings.ReplaceAll(string(found[1]), "$$", "$"), "|")
	}
	child := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	always, enforced := variable("NOT_FIPS"), variable("NOT_FIPS_ONLY")
	require.Equal(t, "$(NOT_FIPS)", enforced[0])
	for _, pattern := range slices.Concat(always, enforced[1:]) {
		names, err := child("-test.list=" + pattern)
		require.NoError(t, err)
		require.NotEmpty(t, names, "no test has the name %s", pattern)
	}
	for _, name := range enforced[1:] {
		out, err := child("-test.run="+name, "-test.cpu=1")
		require.Error(t, err, "%s need not be skipped", name)
		require.Contains(t, out, "is not allowed in FIPS 140-only mode", name)
	}
}

func liveByFIPS(t *testing.T, alg string) {
	path := filepath.Join(t.TempDir(), "keys", "keys.pem")
	open := func() *fleetkey.Signer {
		s, err := fleetkey.NewSigner(testkit.At(noon), fleetkey.NewFileStore(path), testConfig(func(c *fleetkey.Config) { c.Algorithm = alg }))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}
	s := open()
	stranger := newParty(t, alg)
	certificate := stranger.SigningKey().Certificate
	var x5t [sha1.Size]byte
	fips140.WithoutEnforcement(func() { x5t = sha1.Sum(certificate.Raw) })
	name := base64.RawURLEncoding.EncodeToString(x5t[:])

	require.NoError(t, s.Trust(t.Context(), certificate, ""))
	require.NoError(t, s.Rotate(t.Context()))
	token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
	require.NoError(t, err)
	other := open()
	_, err = other.Verify(t.Context(), token)
	require.NoError(t, err)
	_, err = other.Verify(t.Context(), stranger.sign(stranger.header("kid", `"`+name+`"`), payload()))
	require.NoError(t, err, "a key of another system goes by its SHA-1 name")
	served := string(body(t, ask(other.JWKS(), "GET")))
	require.Contains(t, served, `"kid":"`+name+`"`)
	require.Contains(t, served, `"x5c":`)

	require.NoError(t, s.Revoke(t.Context(), s.SigningKey().KeyID))
	require.NoError(t, other.Refresh(t.Context()))
	_, err = other.Verify(t.Context(), token)
	require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
}
