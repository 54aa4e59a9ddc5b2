package main

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func start(t *testing.T, store fleetkey.KeyStore, db *database) *server {
	s, err := newServer(t.Context(), store, db)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.signer.Close()) })
	return s
}

func mustLogin(t *testing.T, first, issuing *server) *oauth2.Token {
	token, err := login(t.Context(), first, issuing)
	require.NoError(t, err)
	return token
}

func TestDemonstration(t *testing.T) {
	var out strings.Builder
	require.NoError(t, demonstrate(t.Context(), &out))
	assert.Regexp(t, `^Instance 1 issues tokens, signed with key .{43}\.\nInstance 2 accepts them\.\n$`, out.String())
}

// TestRotation shows what each instance issues to the other before and after a
// rotation, and takes the old key away. go-oidc accepts no algorithm that discovery does
// not announce.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, db := fleetkeytest.NewStore(), new(database)
		a, b := start(t, store, db), start(t, store, db)
		oldKey := a.signer.SigningKey().KeyID
		require.NoError(t, a.signer.Rotate(t.Context()))
		var old *oauth2.Token
		for a.signer.SigningKey().KeyID == oldKey { // for a day
			old = mustLogin(t, b, a)
			time.Sleep(5 * time.Minute)
		}
		require.NoError(t, check(t.Context(), b, old))
		fresh := mustLogin(t, a, b)
		require.NoError(t, check(t.Context(), a, fresh))

		require.NoError(t, a.signer.Revoke(t.Context(), oldKey))
		require.NoError(t, b.signer.Refresh(t.Context()))
		require.ErrorContains(t, check(t.Context(), b, old), "signature")
		require.NoError(t, check(t.Context(), b, fresh))
	})
}

// TestVerifier is a service that knows the issuer's address and no more. It requires
// Legacy for the typ JWT that zitadel/oidc writes, and InsecureHTTP for this issuer.
func TestVerifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, fleetkeytest.NewStore(), new(database))
		cfg := fleetkey.VerifierConfig{Issuer: issuer, Audience: []string{clientID}, Legacy: true, InsecureHTTP: true,
			HTTPClient: s.client(), Logger: slog.New(slog.DiscardHandler)}
		v, err := fleetkey.NewVerifier(t.Context(), cfg)
		require.NoError(t, err)
		defer func() { assert.NoError(t, v.Close()) }()
		cfg.Legacy = false
		strict, err := fleetkey.NewVerifier(t.Context(), cfg)
		require.NoError(t, err)
		defer func() { assert.NoError(t, strict.Close()) }()

		old := mustLogin(t, s, s)
		got, err := v.Verify(t.Context(), old.AccessToken)
		require.NoError(t, err)
		assert.Equal(t, []string{user, clientID, "openid " + scope}, []string{got.Subject(), got.ClientID(), got.Scope()})
		_, err = v.Verify(t.Context(), old.Extra("id_token").(string))
		require.ErrorIs(t, err, fleetkey.ErrWrongType)
		_, err = strict.Verify(t.Context(), old.AccessToken)
		require.ErrorIs(t, err, fleetkey.ErrWrongType)

		time.Sleep(10 * time.Second) // the first fetch has taken the slot
		require.NoError(t, s.signer.Revoke(t.Context(), got.KeyID()))
		fresh, err := v.Verify(t.Context(), mustLogin(t, s, s).AccessToken)
		require.NoError(t, err)
		require.NotEqual(t, got.KeyID(), fresh.KeyID())
		_, err = v.Verify(t.Context(), old.AccessToken)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
	})
}
