package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file is one OpenID server: what it serves and where. Nothing in it knows
// that it is one of several; only the signer knows that the fleet shares a key.

const (
	tokenPath  = "/connect/token"
	helloPath  = "/api/hello"
	healthPath = "/healthz"

	scope    = "api.read"
	tokenTTL = 10 * time.Minute
	maxBody  = 16 << 10 // bytes; a token request has some hundred

	// instanceHeader says who answered, so that one can watch the proxy at work.
	instanceHeader = "X-Instance"
)

// A server is one OpenID server.
type server struct {
	name   string
	issuer string
	signer *fleetkey.Signer
	client client
}

// handler returns everything that the server serves.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tokenPath, s.token)
	mux.Handle("GET "+fleetkey.JWKSPath, s.signer.JWKS())
	mux.Handle("GET "+fleetkey.DiscoveryPath, s.signer.Discovery(s.metadata()))
	mux.Handle("GET "+helloPath, s.signer.Require(scope)(http.HandlerFunc(s.hello)))
	mux.Handle("GET "+healthPath, s.signer.Health())
	named := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(instanceHeader, s.name)
		mux.ServeHTTP(w, r)
	})
	return http.MaxBytesHandler(named, maxBody)
}

// metadata is what the discovery document says besides what the signer fills in
// (OpenID Connect Discovery 1.0 section 3). There is no authorization endpoint,
// so no response type either.
func (s *server) metadata() map[string]any {
	return map[string]any{
		"token_endpoint":                        s.issuer + tokenPath,
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		"grant_types_supported":                 []string{clientCredentials},
		"response_types_supported":              []string{},
		"scopes_supported":                      []string{scope},
	}
}

type greeting struct {
	Message string `json:"message"`
	KeyID   string `json:"kid"` // that the token was verified with
}

// hello is the protected API. Require has verified the token before.
func (s *server) hello(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	writeJSON(w, http.StatusOK, greeting{"hello, " + token.Subject(), token.KeyID()})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Debug("the client went away", "err", err)
	}
}
