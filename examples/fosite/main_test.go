package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ory/fosite/token/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func start(t *testing.T, stores ...fleetkey.KeyStore) (*fleet, context.Context) {
	f := new(fleet)
	for i := range f {
		var err error
		f[i], err = newServer(t.Context(), stores[i])
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, f[i].signer.Close()) })
	}
	return f, f.reach(t.Context())
}

func mustIssue(t *testing.T, ctx context.Context, host string) *oauth2.Token {
	token, err := issue(ctx, host)
	require.NoError(t, err)
	return token
}

// refuses requires that an instance takes a token neither at its API nor at introspection.
func refuses(t *testing.T, ctx context.Context, host string, token *oauth2.Token) {
	require.ErrorContains(t, check(ctx, host, token), "401")
	answer, err := introspect(ctx, host, token)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"active": false}, answer)
}

func TestDemonstration(t *testing.T) {
	var out strings.Builder
	require.NoError(t, demonstrate(t.Context(), &out))
	assert.Regexp(t, `^Instance 1 issues a token, signed with key .{43}\.\nInstance 2 accepts it\.\n$`, out.String())
}

// TestRotation shows what each instance issues to the other before and after a
// rotation, and takes the old key away.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		f, ctx := start(t, store, store)
		oldKey := f[0].signer.SigningKey().KeyID
		require.NoError(t, f[0].signer.Rotate(ctx))
		var old *oauth2.Token
		for f[0].signer.SigningKey().KeyID == oldKey { // for a day
			old = mustIssue(t, ctx, "instance-1")
			time.Sleep(5 * time.Minute)
		}
		require.NoError(t, check(ctx, "instance-2", old))
		fresh := mustIssue(t, ctx, "instance-2")
		require.NoError(t, check(ctx, "instance-1", fresh))

		require.NoError(t, f[0].signer.Revoke(ctx, oldKey))
		require.NoError(t, f[1].signer.Refresh(ctx))
		refuses(t, ctx, "instance-2", old)
		require.NoError(t, check(ctx, "instance-2", fresh))
	})
}

// TestKeysOfTheirOwn is what happens without a shared key.
func TestKeysOfTheirOwn(t *testing.T) {
	_, ctx := start(t, fleetkeytest.NewStore(), fleetkeytest.NewStore())
	token := mustIssue(t, ctx, "instance-1")
	require.NoError(t, check(ctx, "instance-1", token))
	refuses(t, ctx, "instance-2", token)
}

// TestTokenSigner checks what the flow above does not reach.
func TestTokenSigner(t *testing.T) {
	signer := fleetkeytest.NewSigner(t, fleetkey.Config{})
	access, id := &tokenSigner{keys: signer, typ: "at+jwt"}, &tokenSigner{keys: signer, typ: "JWT"}
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
