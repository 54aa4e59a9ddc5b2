package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/ory/fosite/token/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

func start(t *testing.T, stores ...fleetkey.KeyStore) *fleet {
	t.Helper()
	f, err := startFleet(t.Context(), stores...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, f.close()) })
	return f
}

func fileStore(dir string) fleetkey.KeyStore {
	return fleetkey.NewFileStore(filepath.Join(dir, "keys.pem"))
}

// TestFleet gets tokens by the client credentials grant, and shows what each
// instance issues to the other, before, in and after a rotation.
func TestFleet(t *testing.T) {
	dir := t.TempDir()
	f := start(t, fileStore(dir), fileStore(dir))
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
	defer cancel()

	old, err := f.token(ctx, 0)
	require.NoError(t, err)
	require.NoError(t, f.check(ctx, 1, old))
	oldKey := f.instances[0].signer.SigningKey().KeyID

	require.NoError(t, f.rotate(ctx))
	for i, instance := range f.instances {
		assert.NotEqual(t, oldKey, instance.signer.SigningKey().KeyID, "instance %d", i)
		assert.NoError(t, f.check(ctx, i, old), "instance %d", i)
	}
	fresh, err := f.token(ctx, 1)
	require.NoError(t, err)
	require.NoError(t, f.check(ctx, 0, fresh))

	require.NoError(t, f.instances[0].signer.Revoke(ctx, oldKey))
	require.NoError(t, f.instances[1].signer.Refresh(ctx))
	_, err = f.call(ctx, 1, old)
	require.ErrorContains(t, err, "status 401")
	answer, err := f.introspect(ctx, 1, old)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"active": false}, answer)
	require.NoError(t, f.check(ctx, 1, fresh))
}

// TestKeysOfTheirOwn is what happens without a shared key.
func TestKeysOfTheirOwn(t *testing.T) {
	f := start(t, fileStore(t.TempDir()), fileStore(t.TempDir()))
	token, err := f.token(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, f.check(t.Context(), 0, token))
	_, err = f.call(t.Context(), 1, token)
	require.ErrorContains(t, err, "status 401")
	answer, err := f.introspect(t.Context(), 1, token)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"active": false}, answer)
}

// TestTokenSigner checks what the flow above does not reach.
func TestTokenSigner(t *testing.T) {
	f := start(t, fileStore(t.TempDir()))
	access := &tokenSigner{keys: f.instances[0].signer, typ: "at+jwt"}
	id := &tokenSigner{keys: f.instances[0].signer, typ: "JWT"}
	claims := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Minute).Unix()}
	token, signature, err := id.Generate(t.Context(), claims, &jwt.Headers{})
	require.NoError(t, err)

	got, err := id.Validate(t.Context(), token)
	require.NoError(t, err)
	assert.Equal(t, signature, got)
	_, err = access.Validate(t.Context(), token)
	assert.ErrorContains(t, err, "type", "an ID token is no access token")
	_, err = id.Validate(t.Context(), token[:len(token)-8]+"AAAAAAAA")
	assert.Error(t, err, "a broken signature")

	_, _, err = id.Generate(t.Context(), claims, &jwt.Headers{Extra: map[string]any{"jku": "https://example.com"}})
	assert.ErrorContains(t, err, "jku")
	claims["exp"] = time.Now().Add(48 * time.Hour).Unix()
	_, _, err = id.Generate(t.Context(), claims, &jwt.Headers{})
	assert.ErrorIs(t, err, fleetkey.ErrInvalidClaims, "longer than a replaced key is trusted")
}
