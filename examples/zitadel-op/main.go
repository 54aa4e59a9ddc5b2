package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/fleetkey/fleetkey"
)

func main() {
	if err := demonstrate(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "zitadel-op:", err)
		os.Exit(1)
	}
}

// demonstrate logs in at one instance and shows the tokens to the other, before
// and after a rotation.
func demonstrate(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "zitadel-op-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f, err := startFleet(ctx, func() fleetkey.KeyStore { return fleetkey.NewFileStore(filepath.Join(dir, "keys.pem")) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()

	old, err := f.demonstrateLogin(ctx, out, 0, 1)
	if err != nil {
		return err
	}
	if err := f.rotate(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "The key has been replaced.")
	if _, err := f.demonstrateLogin(ctx, out, 1, 0); err != nil {
		return err
	}
	if err := f.check(ctx, 1, old); err != nil {
		return err
	}
	fmt.Fprintln(out, "Instance 2 accepts the token from before, too.")
	return nil
}

func (f *fleet) demonstrateLogin(ctx context.Context, out io.Writer, issuing, checking int) (*oauth2.Token, error) {
	token, err := f.login(ctx, issuing)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "Instance %d issues tokens, signed with key %s.\n", issuing+1, f.instances[issuing].signer.SigningKey().KeyID)
	if err := f.check(ctx, checking, token); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "Instance %d accepts them.\n", checking+1)
	return token, nil
}

// rotate announces a new key at one instance, and returns when it signs at all.
func (f *fleet) rotate(ctx context.Context) error {
	before := f.instances[0].signer.SigningKey().KeyID
	if err := f.instances[0].signer.Rotate(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, i := range f.instances {
		for i.signer.SigningKey().KeyID == before {
			select {
			case <-ctx.Done():
				return fmt.Errorf("the new key does not sign: %w", ctx.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// login runs the authorization code flow with PKCE, as a web application does
// with golang.org/x/oauth2 and go-oidc. The last step, which issues the tokens,
// is at the given instance; the others are at any.
func (f *fleet) login(ctx context.Context, issuing int) (*oauth2.Token, error) {
	defer f.balance()
	provider, err := oidc.NewProvider(ctx, f.issuer)
	if err != nil {
		return nil, err
	}
	config := oauth2.Config{ClientID: clientID, Endpoint: provider.Endpoint(), RedirectURL: redirectURI, Scopes: []string{oidc.ScopeOpenID}}
	verifier := oauth2.GenerateVerifier()
	code, err := browse(ctx, config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	if err != nil {
		return nil, err
	}
	f.choose(issuing)
	return config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
}

// browse is the user's browser: it follows redirects until one leaves for the
// application, and returns the code in it.
func browse(ctx context.Context, url string) (code string, err error) {
	browser := &http.Client{CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if code = r.URL.Query().Get("code"); code != "" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := browser.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if code == "" {
		body, _ := io.ReadAll(resp.Body)
		return "", fmt.Errorf("the login ended at %s with status %d: %s", resp.Request.URL, resp.StatusCode, body)
	}
	return code, nil
}

// check shows tokens to one instance: go-oidc verifies the ID token by that
// instance's JWKS, and the instance itself the access token at its userinfo
// endpoint.
func (f *fleet) check(ctx context.Context, instance int, token *oauth2.Token) error {
	f.choose(instance)
	defer f.balance()
	provider, err := oidc.NewProvider(ctx, f.issuer)
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
