package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

// A create makes a verifier, which ends with ctx.
type create func(ctx context.Context, browser *http.Client, r request) (verifier, error)

// A verifier returns the sub claim of a token that it accepts.
type verifier func(token string) (subject string, err error)

// startGoLibraries returns clients that trust the server's certificate.
func startGoLibraries(ctx context.Context, browser *http.Client) []*client {
	browser.Timeout = clientTimeout
	var clients []*client
	for _, l := range goLibraries {
		verifiers := make(map[string]verifier)
		verify := func(r request) (answer, error) {
			id := r.Issuer + " " + r.Verifier
			if verifiers[id] == nil {
				made, err := l.create(ctx, browser, r)
				if err != nil {
					return answer{}, fmt.Errorf("cannot make a verifier: %w", err)
				}
				verifiers[id] = made
			}
			subject, err := verifiers[id](r.Token)
			a := answer{Subject: subject}
			if err != nil {
				a.Error = err.Error()
			}
			return a, nil
		}
		clients = append(clients, &client{name: l.name, version: moduleVersion(l.module), language: "Go", verify: verify})
	}
	return clients
}

// moduleVersion returns the version of a module that this program is built with.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version[1:]
			}
		}
	}
	panic("the program is not built with module " + path)
}

// newGoOIDC uses go-oidc, which is for ID tokens and calls the audience the
// client ID.
func newGoOIDC(ctx context.Context, browser *http.Client, r request) (verifier, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, browser), r.Issuer)
	if err != nil {
		return nil, err
	}
	tokens := provider.Verifier(&oidc.Config{ClientID: r.Audience, SupportedSigningAlgs: []string{r.Algorithm}})
	return func(token string) (string, error) {
		t, err := tokens.Verify(ctx, token)
		if err != nil {
			return "", err
		}
		return t.Subject, nil
	}, nil
}

// newKeyfunc uses keyfunc, which gives golang-jwt the keys of a JWKS.
func newKeyfunc(ctx context.Context, browser *http.Client, r request) (verifier, error) {
	jwksURI, err := discover(ctx, browser, r.Issuer)
	if err != nil {
		return nil, err
	}
	keys, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{jwksURI}, keyfunc.Override{Client: browser})
	if err != nil {
		return nil, err
	}
	parser := gojwt.NewParser(gojwt.WithValidMethods([]string{r.Algorithm}), gojwt.WithIssuer(r.Issuer),
		gojwt.WithAudience(r.Audience), gojwt.WithExpirationRequired())
	return func(token string) (string, error) {
		t, err := parser.Parse(token, keys.KeyfuncCtx(ctx))
		if err != nil {
			return "", err
		}
		return t.Claims.GetSubject()
	}, nil
}

// newJWX uses jwx with its cache of key sets, which fetches by the clock alone.
// It takes the algorithm from the key in the set.
func newJWX(ctx context.Context, browser *http.Client, r request) (verifier, error) {
	jwksURI, err := discover(ctx, browser, r.Issuer)
	if err != nil {
		return nil, err
	}
	cache, err := jwk.NewCache(ctx, httprc.NewClient())
	if err != nil {
		return nil, err
	}
	first, cancel := context.WithTimeout(ctx, clientTimeout) // Register waits for the first fetch
	defer cancel()
	if err := cache.Register(first, jwksURI, jwk.WithHTTPClient(browser)); err != nil {
		return nil, err
	}
	keys, err := cache.CachedSet(jwksURI)
	if err != nil {
		return nil, err
	}
	return func(token string) (string, error) {
		t, err := jwt.ParseString(token, jwt.WithKeySet(keys), jwt.WithIssuer(r.Issuer), jwt.WithAudience(r.Audience),
			jwt.WithRequiredClaim(jwt.ExpirationKey))
		if err != nil {
			return "", err
		}
		subject, _ := t.Subject()
		return subject, nil
	}, nil
}

// discover returns the jwks_uri of an issuer, for libraries that know JWKS
// but not discovery.
func discover(ctx context.Context, browser *http.Client, issuer string) (string, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, browser), issuer)
	if err != nil {
		return "", err
	}
	var metadata struct {
		JWKSURI string `json:"jwks_uri"`
	}
	err = provider.Claims(&metadata)
	return metadata.JWKSURI, err
}
