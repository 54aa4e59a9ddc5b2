package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"

	"github.com/fleetkey/fleetkey"
)

const (
	issuer   = "https://id.example.com"
	clientID = "batch"
	scope    = "api.read"

	// tokenTTL is at most Config.MaxTokenTTL; fleetkey refuses to sign more.
	tokenTTL = 10 * time.Minute
)

// An instance is a server with its signer, on a port of its own. Instances have
// nothing in common but the key store and their configuration.
type instance struct {
	url    string
	signer *fleetkey.Signer
	server *http.Server
}

func startInstance(ctx context.Context, store fleetkey.KeyStore, secret string) (*instance, error) {
	signer, err := fleetkey.NewSigner(ctx, store, quick(issuer))
	if err != nil {
		return nil, err
	}
	provider, err := newProvider(ctx, signer, secret)
	if err != nil {
		return nil, errors.Join(err, signer.Close())
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, signer.Close())
	}
	server := &http.Server{Handler: handler(provider, signer), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // until close
	return &instance{url: "http://" + l.Addr().String(), signer: signer, server: server}, nil
}

func (i *instance) close() error { return errors.Join(i.server.Close(), i.signer.Close()) }

// quick lets a rotation take seconds instead of a day, to be watched. Leave all
// but the Issuer and the Logger to fleetkey's defaults.
func quick(issuer string) fleetkey.Config {
	return fleetkey.Config{
		Issuer:       issuer,
		Logger:       slog.New(slog.DiscardHandler),
		RefreshEvery: time.Second,
		JWKSMaxAge:   time.Second,
		ClockSkew:    100 * time.Millisecond,
		Rotation:     fleetkey.Rotation{Announce: 4 * time.Second},
	}
}

// newProvider puts fosite together, for the client credentials grant and for
// introspection. Access tokens are JWTs as in RFC 9068, which fleetkey's own
// Verify accepts.
func newProvider(ctx context.Context, signer *fleetkey.Signer, secret string) (fosite.OAuth2Provider, error) {
	config := &fosite.Config{
		AccessTokenIssuer:   issuer,
		AccessTokenLifespan: tokenTTL,
		JWTScopeClaimKey:    jwt.JWTScopeFieldString,                // one string, as RFC 9068 has it
		HashCost:            4,                                      // the secret is random
		GlobalSecret:        []byte(rand.Text() + rand.Text())[:32], // for opaque tokens, which this server has none of
	}
	hash, err := (&fosite.BCrypt{Config: config}).Hash(ctx, []byte(secret))
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

// handler serves the endpoints, and an API that takes the tokens.
func handler(provider fosite.OAuth2Provider, signer *fleetkey.Signer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) { issueToken(w, r, provider) })
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		response, err := provider.NewIntrospectionRequest(r.Context(), r, &oauth2.JWTSession{})
		if err != nil {
			provider.WriteIntrospectionError(r.Context(), w, err)
			return
		}
		provider.WriteIntrospectionResponse(r.Context(), w, response)
	})
	mux.Handle("GET "+fleetkey.JWKSPath, signer.JWKS())
	mux.Handle("GET /hello", signer.Require(scope)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := fleetkey.FromContext(r.Context())
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"hello": token.ClientID()})
	})))
	return mux
}

func issueToken(w http.ResponseWriter, r *http.Request, provider fosite.OAuth2Provider) {
	ctx := r.Context()
	session := &oauth2.JWTSession{}
	request, err := provider.NewAccessRequest(ctx, r, session)
	if err != nil {
		provider.WriteAccessError(ctx, w, request, err)
		return
	}
	id := request.GetClient().GetID()
	session.JWTClaims = &jwt.JWTClaims{Subject: id, Extra: map[string]any{"client_id": id}}
	for _, s := range request.GetRequestedScopes() { // checked by NewAccessRequest
		request.GrantScope(s)
	}
	request.GrantAudience(issuer)
	response, err := provider.NewAccessResponse(ctx, request)
	if err != nil {
		provider.WriteAccessError(ctx, w, request, err)
		return
	}
	provider.WriteAccessResponse(ctx, w, request, response)
}
