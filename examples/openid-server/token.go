package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file is the token endpoint: a client shows its secret and gets an access
// token for itself (RFC 6749 section 4.4, the client credentials grant).

const clientCredentials = "client_credentials"

// A client is a program that may ask for tokens.
type client struct {
	// secretHash is SHA-256 of the secret. That is enough for secrets made by a
	// random generator; what people choose needs a slow hash, such as argon2id.
	secretHash [sha256.Size]byte
	scopes     []string
}

// A tokenResponse is the answer to a good request (RFC 6749 section 5.1).
type tokenResponse struct {
	AccessToken string `json:"access_token"` // first, which makes it easy to cut out in a shell
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"` // seconds
	Scope       string `json:"scope"`
}

// A tokenError is the answer to a bad one (section 5.2). The description never
// repeats what the request said.
type tokenError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *tokenError) Error() string { return e.Code + ": " + e.Description }

// token is the endpoint. Section 5.1 asks that no answer be cached.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	answer, err := s.grant(r)
	var refused *tokenError
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, answer)
	case !errors.As(err, &refused):
		slog.Error("cannot issue a token", "instance", s.name, "err", err)
		http.Error(w, "no token can be issued now", http.StatusServiceUnavailable)
	case refused.Code == "invalid_client":
		w.Header().Set("WWW-Authenticate", `Basic realm="token endpoint"`)
		writeJSON(w, http.StatusUnauthorized, refused)
	default:
		writeJSON(w, http.StatusBadRequest, refused)
	}
}

// grant decides a token request.
func (s *server) grant(r *http.Request) (*tokenResponse, error) {
	if err := readForm(r); err != nil {
		return nil, err
	}
	id, c, err := s.authenticate(r)
	if err != nil {
		return nil, err
	}
	switch r.PostForm.Get("grant_type") {
	case clientCredentials:
	case "":
		return nil, &tokenError{"invalid_request", "grant_type is missing"}
	default:
		return nil, &tokenError{"unsupported_grant_type", "the only grant_type is " + clientCredentials}
	}
	scope, err := c.allow(r.PostForm.Get("scope"))
	if err != nil {
		return nil, err
	}
	token, err := s.signer.Issue(r.Context(), fleetkey.Claims{ClientID: id, Scope: scope})
	if err != nil {
		return nil, err
	}
	return &tokenResponse{token, "Bearer", int(tokenTTL / time.Second), scope}, nil
}

// readForm reads the parameters from the body, and only from there: a secret in
// a URL ends up in logs (section 2.3.1).
func readForm(r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return &tokenError{"invalid_request", "the body is not a form, or too long"}
	}
	for _, name := range []string{"grant_type", "scope", "client_id", "client_secret"} {
		if len(r.PostForm[name]) > 1 {
			return &tokenError{"invalid_request", name + " is given more than once"} // section 3.2
		}
	}
	return nil
}

// authenticate finds out which client is asking (section 2.3.1): by HTTP Basic
// authentication or by client_id and client_secret in the form, not by both.
func (s *server) authenticate(r *http.Request) (id string, c client, err error) {
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if header := r.Header.Values("Authorization"); len(header) > 0 {
		if len(header) > 1 || secret != "" {
			return "", c, &tokenError{"invalid_request", "the client authenticates in more than one way"}
		}
		inForm := id
		if id, secret = basicAuth(r); inForm != "" && inForm != id {
			return "", c, &tokenError{"invalid_request", "client_id differs from the Authorization header"}
		}
	}
	// For an unknown client too a hash is made and compared, so that the time
	// of the answer does not tell which clients exist.
	c, known := s.clients[id]
	sum := sha256.Sum256([]byte(secret))
	same := subtle.ConstantTimeCompare(sum[:], c.secretHash[:]) == 1
	if !known || !same {
		return "", client{}, &tokenError{"invalid_client", "the client is unknown or its secret is wrong"}
	}
	return id, c, nil
}

// basicAuth returns what the header says, or nothing that would match a client.
// Both halves are form-encoded within the header (section 2.3.1).
func basicAuth(r *http.Request) (id, secret string) {
	user, password, _ := r.BasicAuth()
	id, idErr := url.QueryUnescape(user)
	secret, secretErr := url.QueryUnescape(password)
	if idErr != nil || secretErr != nil {
		return "", ""
	}
	return id, secret
}

// allow returns the scope to grant: what was asked for, or all that the client
// may have if it asked for nothing (section 3.3).
func (c client) allow(requested string) (string, error) {
	if requested == "" {
		return strings.Join(c.scopes, " "), nil
	}
	for scope := range strings.SplitSeq(requested, " ") {
		if !slices.Contains(c.scopes, scope) {
			return "", &tokenError{"invalid_scope", "the client may have: " + strings.Join(c.scopes, " ")}
		}
	}
	return requested, nil
}
