package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/fleetkey/fleetkey"
)

func main() {
	if err := demonstrate(context.Background(), os.Stdout); err != nil {
		log.Fatal("zitadel-op: ", err)
	}
}

// demonstrate logs in at one instance and shows the tokens to the other. The two have
// nothing in common but the key store, a database, and their configuration.
func demonstrate(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "zitadel-op-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db := new(database)
	var instances [2]*server
	for i := range instances {
		store := fleetkey.NewFileStore(filepath.Join(dir, "keys.pem"))
		if instances[i], err = newServer(ctx, store, db); err != nil {
			return err
		}
		defer func() { _ = instances[i].signer.Close() }()
	}
	token, err := login(ctx, instances[1], instances[0])
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Instance 1 issues tokens, signed with key %s.\n", instances[0].signer.SigningKey().KeyID)
	if err := check(ctx, instances[1], token); err != nil {
		return err
	}
	fmt.Fprintln(out, "Instance 2 accepts them.")
	return nil
}

// login runs the authorization code flow with PKCE, as a web application does with
// golang.org/x/oauth2 and go-oidc. The user logs in at one instance, and the other
// issues the tokens.
func login(ctx context.Context, first, issuing *server) (*oauth2.Token, error) {
	ctx = oidc.ClientContext(ctx, issuing.client())
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, err
	}
	config := oauth2.Config{ClientID: clientID, Endpoint: provider.Endpoint(), RedirectURL: redirectURI, Scopes: []string{oidc.ScopeOpenID, scope}}
	verifier := oauth2.GenerateVerifier()
	code, err := browse(first, config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	if err != nil {
		return nil, err
	}
	return config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
}

// browse is the user's browser: it follows redirects until one leaves for the
// application, and returns the code in it.
func browse(s *server, url string) (code string, err error) {
	browser := s.client()
	browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if code = r.URL.Query().Get("code"); code != "" {
			return http.ErrUseLastResponse
		}
		return nil
	}
	resp, err := browser.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if code == "" {
		body, _ := io.ReadAll(resp.Body)
		return "", fmt.Errorf("the login ended without a code: %s: %s", resp.Status, body)
	}
	return code, nil
}

// check shows tokens to one instance: go-oidc verifies the ID token by that
// instance's JWKS, and the instance itself the access token at its userinfo
// endpoint.
func check(ctx context.Context, s *server, token *oauth2.Token) error {
	ctx = oidc.ClientContext(ctx, s.client())
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return err
	}
	raw, _ := token.Extra("id_token").(string)
	idToken, err := provider.Verifier(&oidc.Config{ClientID: clientID}).Verify(ctx, raw)
	if err != nil {
		return fmt.Errorf("the ID token: %w", err)
	}
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return fmt.Errorf("the access token: %w", err)
	}
	if idToken.Subject != user || info.Subject != user {
		return fmt.Errorf("the subjects are %q and %q, not %q", idToken.Subject, info.Subject, user)
	}
	return nil
}
