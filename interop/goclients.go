package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/fleetkey/fleetkey"
)

// goClients returns the clients that are Go libraries. They trust the authority.
func goClients(ctx context.Context, authority []byte) ([]client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("the authority is not a certificate in PEM")
	}
	browser := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		Timeout:   clientTimeout,
	}
	var clients []client
	for _, c := range []struct {
		name, module string
		create       func(ctx context.Context, browser *http.Client, r request) (checker, error)
	}{
		{"coreos/go-oidc", "github.com/coreos/go-oidc/v3", newGoOIDC},
		{"MicahParks/keyfunc", "github.com/MicahParks/keyfunc/v3", newKeyfunc},
		{"lestrrat-go/jwx", "github.com/lestrrat-go/jwx/v3", newJWX},
	} {
		version, err := moduleVersion(c.module)
		if err != nil {
			return nil, err
		}
		clients = append(clients, newGoClient(ctx, about{name: c.name, version: version}, func(ctx context.Context, r request) (checker, error) {
			return c.create(ctx, browser, r)
		}))
	}
	return clients, nil
}

// moduleVersion returns the version of a module that this program is built with.
func moduleVersion(path string) (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", errors.New("the program does not know its modules")
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version[1:], nil
		}
	}
	return "", fmt.Errorf("the program is not built with module %s", path)
}

// newGoOIDC uses go-oidc, which is for ID tokens and calls the audience a
// client's ID.
func newGoOIDC(ctx context.Context, browser *http.Client, r request) (checker, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, browser), r.Issuer)
	if err != nil {
		return nil, err
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: r.Audience, SupportedSigningAlgs: []string{r.Algorithm}})
	return func(ctx context.Context, token string) (string, error) {
		t, err := verifier.Verify(ctx, token)
		if err != nil {
			return "", err
		}
		return t.Subject, nil
	}, nil
}

// newKeyfunc uses keyfunc, which brings golang-jwt the keys of a JWKS.
func newKeyfunc(ctx context.Context, browser *http.Client, r request) (checker, error) {
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
	return func(ctx context.Context, token string) (string, error) {
		t, err := parser.Parse(token, keys.KeyfuncCtx(ctx))
		if err != nil {
			return "", err
		}
		return t.Claims.GetSubject()
	}, nil
}

// newJWX uses jwx with its cache of key sets, which fetches by the clock alone.
// It takes the algorithm from the key in the set.
func newJWX(ctx context.Context, browser *http.Client, r request) (checker, error) {
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
	return func(_ context.Context, token string) (string, error) {
		t, err := jwt.ParseString(token, jwt.WithKeySet(keys), jwt.WithIssuer(r.Issuer), jwt.WithAudience(r.Audience),
			jwt.WithRequiredClaim(jwt.ExpirationKey))
		if err != nil {
			return "", err
		}
		subject, _ := t.Subject()
		return subject, nil
	}, nil
}

// discover returns the jwks_uri of an issuer, for libraries that know of JWKS
// but not of discovery.
func discover(ctx context.Context, browser *http.Client, issuer string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer+fleetkey.DiscoveryPath, nil)
	if err != nil {
		return "", err
	}
	resp, err := browser.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var metadata struct {
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&metadata); err != nil {
		return "", fmt.Errorf("discovery of %s: status %d: %w", issuer, resp.StatusCode, err)
	}
	return metadata.JWKSURI, nil
}
