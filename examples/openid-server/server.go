package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file is one OpenID server. Nothing in it knows that it is one of several; only
// the signer knows that the fleet shares a key.

const (
	tokenPath  = "/connect/token"
	helloPath  = "/api/hello"
	healthPath = "/healthz"

	clientCredentials = "client_credentials"
	scope             = "api.read"
	maxBody           = 16 << 10 // bytes; a token request has a few hundred

	// instanceHeader names the instance that answered, so that users can watch the proxy at work.
	instanceHeader = "X-Instance"
)

// A server is one OpenID server.
type server struct {
	name   string
	issuer string
	signer *fleetkey.Signer
	client client
}

// A client is a program that may ask for tokens.
type client struct {
	id string
	// secretHash is the SHA-256 of the secret. That is enough for randomly generated secrets;
	// secrets that people choose need a slow hash, such as argon2id.
	secretHash [sha256.Size]byte
}

// handler returns everything that the server serves. There is no authorization
// endpoint, so the discovery document names no response type.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tokenPath, s.token)
	mux.Handle("GET "+helloPath, s.signer.Require(scope)(http.HandlerFunc(hello)))
	mux.Handle("GET "+healthPath, s.signer.Health())
	mux.Handle("GET "+fleetkey.JWKSPath, s.signer.JWKS())
	discovery := s.signer.Discovery(map[string]any{
		"token_endpoint":                        s.issuer + tokenPath,
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		"grant_types_supported":                 []string{clientCredentials},
		"scopes_supported":                      []string{scope},
	})
	mux.Handle("GET "+fleetkey.DiscoveryPath, discovery)
	mux.Handle("GET "+fleetkey.OAuthDiscoveryPath, discovery)
	named := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(instanceHeader, s.name)
		mux.ServeHTTP(w, r)
	})
	return http.MaxBytesHandler(named, maxBody)
}

// A tokenResponse is the answer to a successful token request (RFC 6749 section 5.1).
type tokenResponse struct {
	AccessToken string `json:"access_token"` // first, so that it is easy to extract in a shell
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"` // seconds
	Scope       string `json:"scope"`
}

// token is the token endpoint: a client shows its secret and gets an access token for
// itself (RFC 6749 section 4.4, the client credentials grant). The secret is in the
// Authorization header, never in the URL, because URLs end up in logs.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	id, secret, _ := r.BasicAuth()
	sum := sha256.Sum256([]byte(secret))
	known := subtle.ConstantTimeCompare(sum[:], s.client.secretHash[:]) == 1 && id == s.client.id
	switch {
	case !known:
		w.Header().Set("WWW-Authenticate", `Basic realm="token endpoint"`)
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	case r.PostFormValue("grant_type") != clientCredentials:
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "unsupported_grant_type"})
		return
	case r.PostFormValue("scope") != "" && r.PostFormValue("scope") != scope:
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_scope"})
		return
	}
	token, err := s.signer.Issue(r.Context(), fleetkey.Claims{ClientID: id, Scope: scope})
	if err != nil {
		slog.Error("cannot issue a token", "instance", s.name, "err", err)
		http.Error(w, "no token can be issued now", http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, http.StatusOK, tokenResponse{token, "Bearer", int(tokenTTL / time.Second), scope})
}

type greeting struct {
	Message string `json:"message"`
	KeyID   string `json:"kid"` // of the key that verified the token
}

// hello is the protected API. Require has already verified the token.
func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	writeJSON(w, http.StatusOK, greeting{"hello, " + token.Subject(), token.KeyID()})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // fails if the client is gone
}
