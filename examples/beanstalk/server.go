package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"

	"github.com/fleetkey/fleetkey"
)

// This file defines what an instance serves: a token endpoint, one protected API, the
// documents that clients need to verify tokens, and the load balancer's health check.

const (
	tokenPath  = "/connect/token"
	helloPath  = "/api/hello"
	healthPath = "/healthz"

	scope   = "api.read"
	maxBody = 16 << 10
)

type server struct {
	signer *fleetkey.Signer
	environment
}

func newHandler(signer *fleetkey.Signer, env environment) http.Handler {
	s := &server{signer, env}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tokenPath, s.token)
	mux.Handle("GET "+helloPath, signer.Require(scope)(http.HandlerFunc(hello)))
	mux.Handle("GET "+fleetkey.JWKSPath, signer.JWKS())
	mux.Handle("GET "+fleetkey.DiscoveryPath, signer.Discovery(map[string]any{
		"token_endpoint":                        strings.TrimSuffix(env.config.Issuer, "/") + tokenPath,
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		"grant_types_supported":                 []string{"client_credentials"},
		"scopes_supported":                      []string{scope},
	}))
	mux.Handle("GET "+healthPath, notForClients(signer.Health()))
	return http.MaxBytesHandler(mux, maxBody)
}

// notForClients hides a handler from everyone except the load balancer, because the health
// answer names the store and its errors. A load balancer sets X-Forwarded-Proto on each
// request that it forwards, even if the client sent one (Application Load Balancers User
// Guide, HTTP headers), but not on its own health checks.
func notForClients(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header.Values("X-Forwarded-Proto")) > 0 {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// token is the client credentials grant (RFC 6749 section 4.4) for one client,
// which authenticates by HTTP Basic.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	id, secret, _ := r.BasicAuth()
	sum := sha256.Sum256([]byte(secret))
	known := subtle.ConstantTimeCompare(sum[:], s.secretHash[:]) == 1 && id == s.clientID
	switch {
	case !known:
		w.Header().Set("WWW-Authenticate", `Basic realm="token endpoint"`)
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	case r.PostFormValue("grant_type") != "client_credentials":
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "unsupported_grant_type"})
		return
	case r.PostFormValue("scope") != "" && r.PostFormValue("scope") != scope:
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_scope"})
		return
	}
	token, err := s.signer.Issue(r.Context(), fleetkey.Claims{ClientID: id, Scope: scope})
	if err != nil {
		slog.Error("cannot issue a token", "err", err)
		http.Error(w, "no token can be issued now", http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "token_type": "Bearer", "expires_in": int(s.config.TokenTTL.Seconds()), "scope": scope,
	})
}

// hello is the protected API. Require has already verified the token.
func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	writeJSON(w, http.StatusOK, map[string]any{"message": "hello, " + token.Subject(), "kid": token.KeyID()})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // fails if the client is gone
}
