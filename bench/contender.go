package main

import (
	"context"
	"net/http"

	"github.com/fleetkey/fleetkey"
	story "github.com/fleetkey/fleetkey/tests/verifying"
)

// A contender is one way to verify access tokens, and perhaps to issue them.
type contender struct {
	// verify checks a token's signature, algorithm, key, issuer, audience and times.
	verify story.Verify
	issue  func() (string, error)
	guard  func(http.Handler) http.Handler // middleware
	jwks   http.HandlerFunc
}

const seen = ", seen before" // with a cache of verified tokens

// contenders are configured as a careful user would: the algorithm pinned, the key chosen
// by kid, and issuer, audience and expiry required, wherever a library can. Each keeps
// its defaults for when to fetch keys.
var contenders = []struct {
	name    string
	fetches bool // the keys; so it takes part in the story
	open    func(ctx context.Context, f *fixture) contender
}{
	{"fleetkey Signer", false, openSigner(-1)},
	{"fleetkey Signer" + seen, false, openSigner(0)},
	{"fleetkey Verifier", false, openVerifier(-1)},
	{"fleetkey Verifier" + seen, true, openVerifier(0)},
	{"golang-jwt", false, openGolangJWT},
	{"keyfunc", true, openKeyfunc},
	{"go-jose", false, openGoJOSE},
	{"jwx", false, openJWX},
	{"jwx jwk.Cache", true, openJWKCache},
	{"go-oidc", true, openGoOIDC},
	{"go-jwt-middleware", true, openMiddleware},
	{"hashicorp/cap", true, openCap},
}

func openSigner(cachedTokens int) func(context.Context, *fixture) contender {
	return func(ctx context.Context, f *fixture) contender {
		cfg := config(f.algorithm)
		cfg.CachedTokens = cachedTokens
		s := must(fleetkey.NewSigner(ctx, f.store.Open(), cfg))
		c := open(ctx, s)
		if cachedTokens < 0 { // it makes no difference to these
			c.issue, c.jwks = func() (string, error) { return s.Issue(ctx, claims) }, s.JWKS().ServeHTTP
		}
		return c
	}
}

func openVerifier(cachedTokens int) func(context.Context, *fixture) contender {
	return func(ctx context.Context, f *fixture) contender {
		return open(ctx, must(fleetkey.NewVerifier(ctx, fleetkey.VerifierConfig{Issuer: issuer, Audience: []string{audience},
			HTTPClient: f.client, CachedTokens: cachedTokens, Logger: noLog})))
	}
}

func open(ctx context.Context, v interface {
	Verify(context.Context, string) (*fleetkey.Token, error)
	Require(...string) func(http.Handler) http.Handler
	Close() error
}) contender {
	context.AfterFunc(ctx, func() { _ = v.Close() })
	return contender{guard: v.Require(), verify: only(v.Verify)}
}

// only drops what a library says of a good token.
func only[T any](verify func(context.Context, string) (T, error)) story.Verify {
	return func(ctx context.Context, token string) error {
		_, err := verify(ctx, token)
		return err
	}
}
