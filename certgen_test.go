package fleetkey_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file tests the keys and certificates that fleetkey makes, also with openssl, and that
// fleetkey can read a bundle made by openssl.

func newKey(t *testing.T, algorithm string, notBefore time.Time) *keyset.Key {
	t.Helper()
	private, cert, err := fleetkey.NewMaker("https://op.example")(algorithm, 2048, notBefore)
	require.NoError(t, err)
	k, err := keyset.NewKey(cert, private)
	require.NoError(t, err)
	return k
}

func TestNewCertificate(t *testing.T) {
	begin := time.Date(2026, 5, 1, 14, 0, 0, 999, time.FixedZone("", 2*60*60))
	k, other := newKey(t, "ES384", begin), newKey(t, "ES384", begin)
	assert.Equal(t, "CN=https://op.example", k.Cert.Subject.String())
	assert.False(t, k.Cert.IsCA)
	assert.Equal(t, time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), k.Cert.NotBefore, "must be truncated to seconds, in UTC")
	assert.Equal(t, time.Date(2036, 5, 1, 12, 0, 0, 0, time.UTC), k.Cert.NotAfter)
	assert.NotEqual(t, k.Cert.SerialNumber, other.Cert.SerialNumber)
	assert.Greater(t, k.Cert.SerialNumber.BitLen(), 64, "must be hard to guess")
	assert.NotEqual(t, k.ID, other.ID)
}

// taken is a store in which another writer is always faster.
type taken struct {
	fleetkey.KeyStore
	tried []string
}

func (s *taken) Save(_ context.Context, bundle []byte, _ fleetkey.Version) (fleetkey.Version, error) {
	s.tried = append(s.tried, testkit.Read(bundle).Pairs[0].ID)
	return "", fleetkey.ErrConflict
}

// P7: a change that loses to other writers generates its key once.
func TestKeyOfAChangeIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		testkit.Start(t, store, testkit.Config())
		late := &taken{KeyStore: store.Open()}
		s := testkit.Start(t, late, testkit.Config())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, s.Rotate(ctx), fleetkey.ErrConflict)
		require.Greater(t, len(late.tried), 2)
		require.Len(t, slices.Compact(late.tried), 1)
	})
}

// TestAlgorithmOfNewKeys: a key has the requested algorithm, and openssl can read the bundle,
// so that an operator can inspect a store.
func TestAlgorithmOfNewKeys(t *testing.T) {
	for name, texts := range map[string][]string{
		"RS256": {"Signature Algorithm: sha256WithRSAEncryption", "Public-Key: (2048 bit)", "Exponent: 65537"},
		"PS256": {"Signature Algorithm: rsassaPss", "Public-Key: (2048 bit)"},
		"ES256": {"Signature Algorithm: ecdsa-with-SHA256", "ASN1 OID: prime256v1"},
		"ES384": {"Signature Algorithm: ecdsa-with-SHA384", "ASN1 OID: secp384r1"},
		"EdDSA": {"Signature Algorithm: ED25519"},
	} {
		k := newKey(t, name, time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC))
		assert.Equal(t, name, k.Alg.Name)
		t.Run("openssl reads "+name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "bundle.pem")
			bundle, err := keyset.New([]*keyset.Key{k}, nil, nil).Encode()
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, bundle, 0o600))

			text := openssl(t, "x509", "-in", file, "-noout", "-text")
			for _, want := range append(texts, "Digital Signature", "Not Before: May  1 00:00:00 2026 GMT") {
				assert.Contains(t, text, want)
			}
			der, err := x509.MarshalPKIXPublicKey(k.Public)
			require.NoError(t, err)
			public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
			assert.Equal(t, public, openssl(t, "pkey", "-in", file, "-pubout"))
			assert.Equal(t, public, openssl(t, "x509", "-in", file, "-noout", "-pubkey"))
		})
	}
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		testkit.Missing(t, "openssl", "apt-get install openssl")
	}
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	require.NoError(t, err, "openssl %v: %s", args, out)
	return string(out)
}

// TestBundleByHand makes bundles as an operator would.
func TestBundleByHand(t *testing.T) {
	for want, args := range map[string][]string{
		"RS256": {"-newkey", "rsa:2048"},
		"PS256": {"-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"},
		"ES256": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"ES384": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"},
		"EdDSA": {"-newkey", "ed25519"},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			keyFile, certFile := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
			openssl(t, append([]string{"req", "-x509", "-nodes", "-sha256", "-days", "30", "-subj", "/CN=by hand",
				"-keyout", keyFile, "-out", certFile}, args...)...)
			key, err := os.ReadFile(keyFile)
			require.NoError(t, err)
			text := openssl(t, "x509", "-in", certFile, "-text") // with the PEM block at the end
			set, err := keyset.Parse(append(key, text...))
			require.NoError(t, err)
			require.Len(t, set.Keys, 1)
			k := set.Keys[0]
			assert.Equal(t, want, k.Alg.Name)
			assert.Equal(t, "CN=by hand", k.Cert.Subject.String())
			assert.NotNil(t, k.Private)
		})
	}
}
