package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
	oauth2client "golang.org/x/oauth2"

	"github.com/fleetkey/fleetkey"
)

const (
	issuer   = "https://id.example.com"
	clientID = "batch"
	scope    = "api.read"

	// tokenTTL is at most Config.MaxTokenTTL; fleetkey refuses to sign more.
	tokenTTL = 10 * time.Minute
)

// clientSecret and globalSecret are the same in all instances, and in a real server
// part of the configuration. fosite needs globalSecret for opaque tokens, which this
// server has none of.
var clientSecret, globalSecret = rand.Text(), []byte(rand.Text() + rand.Text())[:32]

// A server is one instance.
type server struct {
	signer *fleetkey.Signer
	fosite fosite.OAuth2Provider
	http.Handler
}

func newServer(ctx context.Context, store fleetkey.KeyStore) (*server, error) {
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{Issuer: issuer, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	provider, err := newProvider(ctx, signer)
	if err != nil {
		return nil, errors.Join(err, signer.Close())
	}
	mux := http.NewServeMux()
	s := &server{signer, provider, mux}
	mux.HandleFunc("POST /token", s.issueToken)
	mux.HandleFunc("POST /introspect", s.introspect)
	mux.Handle("GET "+fleetkey.JWKSPath, signer.JWKS())
	mux.Handle("GET /hello", signer.Require(scope)(http.HandlerFunc(hello))) // an API that takes the tokens
	return s, nil
}

// reach returns a context in which clients of golang.org/x/oauth2 reach this instance,
// without a network.
func (s *server) reach(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2client.HTTPClient, &http.Client{Transport: s})
}

// RoundTrip answers a client's request.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

// newProvider puts fosite together, for the client credentials grant and for
// introspection. Access tokens are JWTs as in RFC 9068, which fleetkey's own
// Verify accepts.
func newProvider(ctx context.Context, signer *fleetkey.Signer) (fosite.OAuth2Provider, error) {
	config := &fosite.Config{
		AccessTokenIssuer:   issuer,
		AccessTokenLifespan: tokenTTL,
		JWTScopeClaimKey:    jwt.JWTScopeFieldString, // one string, as RFC 9068 has it
		HashCost:            4,                       // the secret is random
		GlobalSecret:        globalSecret,
	}
	hash, err := (&fosite.BCrypt{Config: config}).Hash(ctx, []byte(clientSecret))
	if err != nil {
		return nil, fmt.Errorf("hash the client's secret: %w", err)
	}
	clients := storage.NewMemoryStore()
	clients.Clients[clientID] = &fosite.DefaultClient{
		ID: clientID, Secret: hash, Scopes: []string{scope}, GrantTypes: []string{"client_credentials"},
	}
	tokens := &tokenSigner{keys: signer, typ: "at+jwt"}
	strategy := &compose.CommonStrategy{
		CoreStrategy: &oauth2.DefaultJWTStrategy{Signer: tokens, HMACSHAStrategy: compose.NewOAuth2HMACStrategy(config), Config: config},
		Signer:       tokens,
	}
	return compose.Compose(config, clients, strategy,
		compose.OAuth2ClientCredentialsGrantFactory, compose.OAuth2StatelessJWTIntrospectionFactory), nil
}

func (s *server) introspect(w http.ResponseWriter, r *http.Request) {
	response, err := s.fosite.NewIntrospectionRequest(r.Context(), r, &oauth2.JWTSession{})
	if err != nil {
		s.fosite.WriteIntrospectionError(r.Context(), w, err)
		return
	}
	s.fosite.WriteIntrospectionResponse(r.Context(), w, response)
}

func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	fmt.Fprintf(w, "hello, %s\n", token.ClientID())
}

func (s *server) issueToken(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	session := &oauth2.JWTSession{}
	request, err := s.fosite.NewAccessRequest(ctx, r, session)
	if err != nil {
		s.fosite.WriteAccessError(ctx, w, request, err)
		return
	}
	id := request.GetClient().GetID()
	session.JWTClaims = &jwt.JWTClaims{Subject: id, Extra: map[string]any{"client_id": id}}
	for _, s := range request.GetRequestedScopes() { // checked by NewAccessRequest
		request.GrantScope(s)
	}
	request.GrantAudience(issuer)
	response, err := s.fosite.NewAccessResponse(ctx, request)
	if err != nil {
		s.fosite.WriteAccessError(ctx, w, request, err)
		return
	}
	s.fosite.WriteAccessResponse(ctx, w, request, response)
}
