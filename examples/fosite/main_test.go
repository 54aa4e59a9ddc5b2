package main

import (
	"log/slog"
	"net/http"
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

func start(t *testing.T, store fleetkey.KeyStore) *server {
	s, err := newServer(t.Context(), store)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.signer.Close()) })
	return s
}

func mustIssue(t *testing.T, s *server) *oauth2.Token {
	token, err := issue(t.Context(), s)
	require.NoError(t, err)
	return token
}

// refuses requires that a server takes a token neither at its API nor at introspection.
func refuses(t *testing.T, s *server, token *oauth2.Token) {
	require.ErrorContains(t, check(t.Context(), s, token), "401")
	answer, err := introspect(t.Context(), s, token)
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
		a, b := start(t, store), start(t, store)
		oldKey := a.signer.SigningKey().KeyID
		require.NoError(t, a.signer.Rotate(t.Context()))
		var old *oauth2.Token
		for a.signer.SigningKey().KeyID == oldKey { // for a day
			old = mustIssue(t, a)
			time.Sleep(5 * time.Minute)
		}
		require.NoError(t, check(t.Context(), b, old))
		fresh := mustIssue(t, b)
		require.NoError(t, check(t.Context(), a, fresh))

		require.NoError(t, a.signer.Revoke(t.Context(), oldKey))
		require.NoError(t, b.signer.Refresh(t.Context()))
		refuses(t, b, old)
		require.NoError(t, check(t.Context(), b, fresh))
	})
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

// TestVerifier is a service that knows where the keys are: this server has no discovery
// document. Its tokens follow RFC 9068, so nothing else is required.
func TestVerifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, fleetkeytest.NewStore())
		v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer, JWKSURL: issuer + fleetkey.JWKSPath,
			Audience: []string{issuer}, HTTPClient: &http.Client{Transport: s}, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer func() { assert.NoError(t, v.Close()) }()
		old := mustIssue(t, s)
		got, err := v.Verify(t.Context(), old.AccessToken)
		require.NoError(t, err)
		assert.Equal(t, []string{clientID, clientID, scope}, []string{got.Subject(), got.ClientID(), got.Scope()})

		time.Sleep(10 * time.Second) // the first fetch has taken the slot
		require.NoError(t, s.signer.Revoke(t.Context(), got.KeyID()))
		fresh, err := v.Verify(t.Context(), mustIssue(t, s).AccessToken)
		require.NoError(t, err)
		require.NotEqual(t, got.KeyID(), fresh.KeyID())
		_, err = v.Verify(t.Context(), old.AccessToken)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
	})
}
