package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// start starts a fleet whose instances open the stores, one each.
func start(t *testing.T, stores ...fleetkey.KeyStore) *fleet {
	t.Helper()
	open := func() fleetkey.KeyStore {
		next := stores[0]
		stores = stores[1:]
		return next
	}
	f, err := startFleet(t.Context(), open)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, f.close()) })
	return f
}

func fileStore(dir string) fleetkey.KeyStore {
	return fleetkey.NewFileStore(filepath.Join(dir, "keys.pem"))
}

// TestFleet logs in by the authorization code flow with PKCE, and shows what
// each instance issues to the other, before, in and after a rotation.
func TestFleet(t *testing.T) {
	dir := t.TempDir()
	f := start(t, fileStore(dir), fileStore(dir))
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
	defer cancel()

	old, err := f.login(ctx, 0)
	require.NoError(t, err)
	require.NoError(t, f.check(ctx, 1, old))
	oldKey := f.instances[0].signer.SigningKey().KeyID

	require.NoError(t, f.rotate(ctx))
	for i, instance := range f.instances {
		assert.NotEqual(t, oldKey, instance.signer.SigningKey().KeyID, "instance %d", i)
		assert.NoError(t, f.check(ctx, i, old), "instance %d", i)
	}
	fresh, err := f.login(ctx, 1)
	require.NoError(t, err)
	require.NoError(t, f.check(ctx, 0, fresh))

	require.NoError(t, f.instances[0].signer.Revoke(ctx, oldKey))
	require.NoError(t, f.instances[1].signer.Refresh(ctx))
	require.ErrorContains(t, f.check(ctx, 1, old), "signature")
	require.NoError(t, f.check(ctx, 1, fresh))
}

// TestDiscovery checks that the announced algorithms are those of the keys.
func TestDiscovery(t *testing.T) {
	dir := t.TempDir()
	f := start(t, fileStore(dir), fileStore(dir))
	provider, err := oidc.NewProvider(t.Context(), f.issuer)
	require.NoError(t, err)
	var metadata struct {
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	require.NoError(t, provider.Claims(&metadata))
	assert.Equal(t, []string{"RS256"}, metadata.Algorithms)
}

// TestKeysOfTheirOwn is what happens without a shared key.
func TestKeysOfTheirOwn(t *testing.T) {
	f := start(t, fileStore(t.TempDir()), fileStore(t.TempDir()))
	token, err := f.login(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, f.check(t.Context(), 0, token))
	require.ErrorContains(t, f.check(t.Context(), 1, token), "signature")
}
