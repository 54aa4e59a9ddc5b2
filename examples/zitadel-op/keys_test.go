package zitadelop

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/oauth2"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

const (
	issuer   = "http://id.example.com" // https in a real server
	clientID = "web"
	user     = "id1" // of zitadel/oidc's example
)

// An opStorage is the storage of one instance. Its keys hide those of the embedded storage of
// zitadel/oidc's example, which the instances share like a real database.
type opStorage struct {
	keys
	database
}

type database struct{ *storage.Storage }

// GetPrivateClaimsFromScopes adds the scope to an access token. zitadel/oidc leaves it out,
// but a service needs it to distinguish the token from an ID token.
func (opStorage) GetPrivateClaimsFromScopes(_ context.Context, _, _ string, scopes []string) (map[string]any, error) {
	return map[string]any{"scope": strings.Join(scopes, " ")}, nil
}

func (s opStorage) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.database.GetClientByClientID(ctx, id)
	return jwtClient{c}, err
}

// A jwtClient gets JWTs as access tokens.
type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// A server is one instance, and the transport of its clients, which need no network.
type server struct {
	signer *fleetkey.Signer
	http.Handler
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	response := w.Result()
	response.Request = r
	return response, nil
}

func start(t *testing.T, store fleetkey.KeyStore, db database) *server {
	quiet := slog.New(slog.DiscardHandler)
	signer, err := fleetkey.NewSigner(t.Context(), store, fleetkey.Config{Issuer: issuer, Algorithm: "ES256", Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, signer.Close()) })
	return &server{signer, exampleop.SetupServer(issuer, opStorage{keys{signer}, db}, quiet, false)}
}

// provider returns the issuer as go-oidc discovers it at one instance.
func (s *server) provider(t *testing.T) (context.Context, *oidc.Provider) {
	ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: s})
	provider, err := oidc.NewProvider(ctx, issuer)
	require.NoError(t, err)
	return ctx, provider
}

// login runs the authorization code flow with PKCE, as a web application does with
// golang.org/x/oauth2 and go-oidc. The user logs in at one instance, and the other
// issues the tokens.
func login(t *testing.T, first, issuing *server) *oauth2.Token {
	ctx, provider := issuing.provider(t)
	config := oauth2.Config{ClientID: clientID, Endpoint: provider.Endpoint(), RedirectURL: "http://localhost/auth/callback",
		Scopes: []string{oidc.ScopeOpenID, storage.CustomScope}}
	verifier := oauth2.GenerateVerifier()

	var code string
	browser := &http.Client{Transport: first, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if code = r.URL.Query().Get("code"); code != "" { // the redirect back to the application
			return http.ErrUseLastResponse
		}
		return nil
	}}
	page, err := browser.Get(config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	require.NoError(t, err)
	form := url.Values{"id": {page.Request.URL.Query().Get("authRequestID")}, "username": {"test-user@id.example.com"}, "password": {"verysecure"}}
	_, err = browser.PostForm(page.Request.URL.String(), form)
	require.NoError(t, err)
	token, err := config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	return token
}

// accepts reports whether a server accepts another one's tokens: the ID token with the JWKS,
// which go-oidc reads, and the access token at the userinfo endpoint.
func accepts(t *testing.T, s *server, token *oauth2.Token) bool {
	ctx, provider := s.provider(t)
	id, err := provider.Verifier(&oidc.Config{ClientID: clientID}).Verify(ctx, token.Extra("id_token").(string))
	info, refused := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	require.Equal(t, err == nil, refused == nil, "%v, %v", err, refused)
	return err == nil && id.Subject == user && info.Subject == user
}

// TestRotation checks that each instance accepts the other's tokens before and after a
// rotation, and rejects those of a revoked key. A service needs only the issuer's address,
// Legacy for the typ JWT that zitadel/oidc writes, and InsecureHTTP for this issuer.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients := map[string]*storage.Client{clientID: storage.NativeClient(clientID)}
		store, db := fleetkeytest.NewStore(), database{storage.NewStorageWithClients(storage.NewUserStore(issuer), clients)}
		a, b := start(t, store, db), start(t, store, db)
		service := func(legacy bool) *fleetkey.Verifier {
			v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer, Audience: []string{clientID},
				Legacy: legacy, InsecureHTTP: true, HTTPClient: &http.Client{Transport: b}, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, v.Close()) })
			return v
		}
		v, strict := service(true), service(false)

		oldKey := a.signer.SigningKey().KeyID
		require.NoError(t, a.signer.Rotate(t.Context()))
		time.Sleep(time.Until(a.signer.Status().NextActivation) - time.Minute)
		old := login(t, b, a)
		time.Sleep(2 * time.Minute)
		fresh := login(t, a, b)
		require.True(t, accepts(t, b, old))
		require.True(t, accepts(t, a, fresh))

		got, err := v.Verify(t.Context(), old.AccessToken)
		require.NoError(t, err)
		require.Equal(t, []string{oldKey, user, clientID, "openid custom_scope"}, []string{got.KeyID(), got.Subject(), got.ClientID(), got.Scope()})
		_, err = v.Verify(t.Context(), old.Extra("id_token").(string))
		require.ErrorIs(t, err, fleetkey.ErrWrongType)
		_, err = strict.Verify(t.Context(), old.AccessToken)
		require.ErrorIs(t, err, fleetkey.ErrWrongType)

		require.NoError(t, a.signer.Revoke(t.Context(), oldKey))
		require.NoError(t, b.signer.Refresh(t.Context()))
		require.NoError(t, v.Refresh(t.Context()))
		require.False(t, accepts(t, b, old))
		require.True(t, accepts(t, b, fresh))
		_, err = v.Verify(t.Context(), old.AccessToken)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
		_, err = v.Verify(t.Context(), fresh.AccessToken)
		require.NoError(t, err)
	})
}
