package fositefleet

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	client "golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

const (
	issuer = "https://id.example.com"
	scope  = "api.read"
)

// A server is one instance, and the transport of its clients, which need no network.
type server struct {
	http.ServeMux
	signer *fleetkey.Signer
	fosite fosite.OAuth2Provider
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

// start configures fosite for the client credentials grant and introspection. Access tokens
// are JWTs as in RFC 9068, which fleetkey's own Verify accepts.
func start(t *testing.T, store fleetkey.KeyStore) *server {
	signer, err := fleetkey.NewSigner(t.Context(), store,
		fleetkey.Config{Issuer: issuer, Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, signer.Close()) })
	config := &fosite.Config{
		AccessTokenIssuer:   issuer,
		AccessTokenLifespan: 10 * time.Minute,        // at most Config.MaxTokenTTL; fleetkey does not sign for longer
		JWTScopeClaimKey:    jwt.JWTScopeFieldString, // one string, as RFC 9068 requires
		GlobalSecret:        make([]byte, 32),        // for opaque tokens, which this server does not issue
	}
	hash, err := (&fosite.BCrypt{Config: &fosite.Config{HashCost: 4}}).Hash(t.Context(), []byte("secret"))
	require.NoError(t, err)
	clients := storage.NewMemoryStore()
	clients.Clients["batch"] = &fosite.DefaultClient{ID: "batch", Secret: hash, Scopes: []string{scope}, GrantTypes: []string{"client_credentials"}}

	tokens := &tokenSigner{keys: signer, typ: "at+jwt"}
	strategy := &compose.CommonStrategy{
		CoreStrategy: &oauth2.DefaultJWTStrategy{Signer: tokens, HMACSHAStrategy: compose.NewOAuth2HMACStrategy(config), Config: config},
		Signer:       tokens,
	}
	s := &server{signer: signer, fosite: compose.Compose(config, clients, strategy,
		compose.OAuth2ClientCredentialsGrantFactory, compose.OAuth2StatelessJWTIntrospectionFactory)}
	s.HandleFunc("POST /token", s.issueToken)
	s.Handle("GET "+fleetkey.JWKSPath, signer.JWKS())
	s.Handle("GET /hello", signer.Require(scope)(http.HandlerFunc(hello))) // an API that accepts the tokens
	return s
}

func (s *server) issueToken(w http.ResponseWriter, r *http.Request) {
	ctx, session := r.Context(), &oauth2.JWTSession{}
	request, err := s.fosite.NewAccessRequest(ctx, r, session)
	if err != nil {
		s.fosite.WriteAccessError(ctx, w, request, err)
		return
	}
	id := request.GetClient().GetID()
	session.JWTClaims = &jwt.JWTClaims{Subject: id, Extra: map[string]any{"client_id": id}}
	for _, requested := range request.GetRequestedScopes() { // checked by NewAccessRequest
		request.GrantScope(requested)
	}
	request.GrantAudience(issuer)
	response, err := s.fosite.NewAccessResponse(ctx, request)
	if err != nil {
		s.fosite.WriteAccessError(ctx, w, request, err)
		return
	}
	s.fosite.WriteAccessResponse(ctx, w, request, response)
}

func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	fmt.Fprintf(w, "hello, %s\n", token.ClientID())
}

// issue gets a token with golang.org/x/oauth2, as a program would.
func issue(t *testing.T, s *server) string {
	config := clientcredentials.Config{ClientID: "batch", ClientSecret: "secret", TokenURL: issuer + "/token", Scopes: []string{scope}}
	token, err := config.Token(context.WithValue(t.Context(), client.HTTPClient, &http.Client{Transport: s}))
	require.NoError(t, err)
	return token.AccessToken
}

// accepts reports whether a server's API and its introspection endpoint accept a token.
func accepts(t *testing.T, s *server, token string) bool {
	r := httptest.NewRequest(http.MethodGet, "/hello", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	_, request, err := s.fosite.IntrospectToken(t.Context(), token, fosite.AccessToken, &oauth2.JWTSession{}, scope)
	require.Equal(t, err == nil, w.Code == http.StatusOK, "%v, %d", err, w.Code)
	return err == nil && request.GetSession().GetSubject() == "batch"
}

// TestRotation checks that each instance accepts the other's tokens before and after a
// rotation, and rejects those of a revoked key. A service needs JWKSURL, since this server
// has no discovery document, but nothing else, since the tokens follow RFC 9068.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		a, b := start(t, store), start(t, store)
		service, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer, JWKSURL: issuer + fleetkey.JWKSPath,
			Audience: []string{issuer}, HTTPClient: &http.Client{Transport: b}, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer func() { assert.NoError(t, service.Close()) }()

		oldKey := a.signer.SigningKey().KeyID
		require.NoError(t, a.signer.Rotate(t.Context()))
		time.Sleep(time.Until(a.signer.Status().NextActivation) - time.Minute)
		old := issue(t, a)
		time.Sleep(2 * time.Minute)
		fresh := issue(t, b)
		require.True(t, accepts(t, b, old))
		require.True(t, accepts(t, a, fresh))
		for token, isOld := range map[string]bool{old: true, fresh: false} {
			got, err := service.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, []any{isOld, "batch", "batch", scope}, []any{got.KeyID() == oldKey, got.Subject(), got.ClientID(), got.Scope()})
		}

		require.NoError(t, a.signer.Revoke(t.Context(), oldKey))
		require.NoError(t, b.signer.Refresh(t.Context()))
		require.False(t, accepts(t, b, old))
		require.True(t, accepts(t, b, fresh))
	})
}

// TestTokenSigner checks the cases that the flow above does not reach.
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
	assert.ErrorContains(t, err, "type", "an ID token is not an access token")
	_, err = id.Validate(t.Context(), token[:len(token)-8]+"AAAAAAAA")
	assert.Error(t, err, "a broken signature")

	_, _, err = id.Generate(t.Context(), claims, &jwt.Headers{Extra: map[string]any{"jku": "https://example.com"}})
	assert.ErrorContains(t, err, "jku")
	claims["exp"] = time.Now().Add(48 * time.Hour).Unix()
	_, _, err = id.Generate(t.Context(), claims, &jwt.Headers{})
	assert.ErrorIs(t, err, fleetkey.ErrInvalidClaims, "longer than a replaced key is trusted")
}
