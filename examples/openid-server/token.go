package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file is the token endpoint: a client shows its secret and gets an access
// token for itself (RFC 6749 section 4.4, the client credentials grant).

const clientCredentials = "client_credentials"

// A client is a program that may ask for tokens.
type client struct {
	id string
	// secretHash is SHA-256 of the secret. That is enough for secrets made by a
	// random generator; what people choose needs a slow hash, such as argon2id.
	secretHash [sha256.Size]byte
}

// A tokenResponse is the answer to a good request (RFC 6749 section 5.1).
type tokenResponse struct {
	AccessToken string `json:"access_token"` // first, which makes it easy to cut out in a shell
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"` // seconds
	Scope       string `json:"scope"`
}

// token is the endpoint. It reads the secret from the Authorization header and the
// parameters from the body, and nothing from the URL, because URLs end up in logs.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	id, secret, _ := r.BasicAuth()
	sum := sha256.Sum256([]byte(secret))
	known := subtle.ConstantTimeCompare(sum[:], s.client.secretHash[:]) == 1 && id == s.client.id
	switch {
	case !known:
		w.Header().Set("WWW-Authenticate", `Basic realm="token endpoint"`)
		tokenError(w, http.StatusUnauthorized, "invalid_client")
		return
	case r.PostFormValue("grant_type") != clientCredentials:
		tokenError(w, http.StatusBadRequest, "unsupported_grant_type")
		return
	case r.PostFormValue("scope") != "" && r.PostFormValue("scope") != scope:
		tokenError(w, http.StatusBadRequest, "invalid_scope")
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

// tokenError answers a bad request (section 5.2).
func tokenError(w http.ResponseWriter, status int, code string) {
	writeJSON(w, status, map[string]string{"error": code})
}
