package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/fleetkey/fleetkey"
)

// A contender is one way to issue and to verify access tokens. Only verify is
// required: openAll fills in guard and again.
type contender struct {
	name string
	// issue returns a new token with the claims of the fixture.
	issue func() (string, error)
	// verify returns the subject of a token whose signature, algorithm, key,
	// issuer, audience and times are right.
	verify func(token string) (string, error)
	// guard is middleware that lets only requests with good tokens through.
	guard func(http.Handler) http.Handler
	// again is the contender with a cache of verified tokens, if it has one.
	again *contender
	// jwks serves the public keys.
	jwks http.HandlerFunc
	// asked counts how often the contender has looked for keys.
	asked func() int
}

// contenders are configured as a careful user would: the algorithm pinned, the
// key chosen by kid, and issuer, audience and expiry required, wherever a
// library can.
var contenders = []struct {
	name   string
	module string
	open   func(ctx context.Context, f *fixture) contender
}{
	{"bare crypto", "", openBare},
	{"fleetkey", "", openFleetkey},
	{"fleetkey.Verifier", "", openVerifiers},
	{"golang-jwt", "github.com/golang-jwt/jwt/v5", openGolangJWT},
	{"keyfunc", "github.com/MicahParks/keyfunc/v3", openKeyfunc},
	{"go-jose", "github.com/go-jose/go-jose/v4", openGoJOSE},
	{"jwx", "github.com/lestrrat-go/jwx/v3", openJWX},
	{"go-oidc", "github.com/coreos/go-oidc/v3", openGoOIDC},
}

const (
	bare = 0 // of contenders
	ours = 1
)

// openAll opens every contender, and requires that each accepts the good tokens
// and refuses the bad ones. They end with ctx.
func openAll(ctx context.Context, algorithm string) (*fixture, []contender) {
	f := newFixture(ctx, algorithm)
	var all []contender
	for _, c := range contenders {
		opened := c.open(ctx, f)
		opened.name = c.name
		if opened.guard == nil {
			opened.guard = guarding(opened.verify)
		}
		if opened.again == nil {
			opened.again = &opened
		}
		opened.again.name = c.name
		opened.prove(f)
		opened.again.prove(f)
		all = append(all, opened)
	}
	return f, all
}

// prove panics if the contender accepts what it should refuse, or the reverse.
func (c contender) prove(f *fixture) {
	good, bad := f.tokens, append(hostile(f), f.refused...)
	if c.name == contenders[bare].name {
		bad = bad[:1] // it checks only the signature
	} else if c.issue != nil {
		good = append([]string{must(c.issue())}, good...)
	}
	for _, token := range good {
		if sub, err := c.verify(token); err != nil || sub != subject {
			panic(fmt.Sprintf("%s, %s, refuses a good token: subject %q, error %v", c.name, f.algorithm, sub, err))
		}
	}
	for _, h := range bad {
		if _, err := c.verify(h.token); err == nil {
			panic(fmt.Sprintf("%s, %s, accepts a bad token: %s", c.name, f.algorithm, h.name))
		}
	}
	if c.jwks != nil {
		answer := httptest.NewRecorder()
		c.jwks(answer, httptest.NewRequest(http.MethodGet, "/", nil))
		if !bytes.Contains(answer.Body.Bytes(), []byte(f.keyID)) {
			panic(fmt.Sprintf("%s, %s, does not serve the key", c.name, f.algorithm))
		}
	}
}

// guarding is Signer.Require for another verifier.
func guarding(verify func(string) (string, error)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if _, err := verify(token); err != nil {
				http.Error(w, "", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func openFleetkey(ctx context.Context, f *fixture) contender {
	first, again := openSigner(ctx, f, -1), openSigner(ctx, f, 0)
	first.again = &again
	return first
}

func openSigner(ctx context.Context, f *fixture, cachedTokens int) contender {
	cfg := config(f.algorithm)
	cfg.CachedTokens = cachedTokens
	store := f.store.Open()
	signer := must(fleetkey.NewSigner(ctx, store, cfg))
	context.AfterFunc(ctx, func() { _ = signer.Close() })
	return contender{
		issue:  func() (string, error) { return signer.Issue(ctx, claims()) },
		verify: subjectOf(ctx, signer),
		guard:  signer.Require(),
		jwks:   signer.JWKS().ServeHTTP,
		asked:  store.Loads,
	}
}

// openVerifiers only verify: they fetch the keys of a URL.
func openVerifiers(ctx context.Context, f *fixture) contender {
	first, again := openVerifier(ctx, f, -1), openVerifier(ctx, f, 0)
	first.again = &again
	return first
}

func openVerifier(ctx context.Context, f *fixture, cachedTokens int) contender {
	verifier := must(fleetkey.NewVerifier(ctx, fleetkey.VerifierConfig{Issuer: issuer, JWKSURL: f.jwksURL, Audience: []string{audience},
		ClockSkew: clockSkew, MaxTokenTTL: tokenTTL, CachedTokens: cachedTokens, Logger: noLog}))
	context.AfterFunc(ctx, func() { _ = verifier.Close() })
	return contender{verify: subjectOf(ctx, verifier), guard: verifier.Require(), asked: f.fetched}
}

func subjectOf(ctx context.Context, v interface {
	Verify(context.Context, string) (*fleetkey.Token, error)
}) func(string) (string, error) {
	return func(token string) (string, error) {
		t, err := v.Verify(ctx, token)
		if err != nil {
			return "", err
		}
		return t.Subject(), nil
	}
}
