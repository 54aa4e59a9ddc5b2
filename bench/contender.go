package main

import (
	"context"
	"fmt"

	"github.com/fleetkey/fleetkey"
)

// A contender is one way to issue and to verify access tokens.
type contender struct {
	name string
	// issue returns a fresh token with the claims of the fixture; nil: cannot.
	issue func() (string, error)
	// verify returns the subject of a token whose signature, algorithm, key,
	// issuer, audience and times are right.
	verify func(token string) (string, error)
}

// contenders are configured as a careful user would: the algorithm pinned, the
// key chosen by kid, and issuer, audience and expiry required, wherever a
// library can.
var contenders = []struct {
	name   string
	module string
	open   func(ctx context.Context, f *fixture) (contender, error)
}{
	{"bare crypto", "", openBare},
	{"fleetkey", "", openFleetkey(-1)},
	{"golang-jwt", "github.com/golang-jwt/jwt/v5", openGolangJWT},
	{"keyfunc", "github.com/MicahParks/keyfunc/v3", openKeyfunc},
	{"go-jose", "github.com/go-jose/go-jose/v4", openGoJOSE},
	{"jwx", "github.com/lestrrat-go/jwx/v3", openJWX},
	{"go-oidc", "github.com/coreos/go-oidc/v3", openGoOIDC},
}

const (
	bare      = 0 // of contenders
	ours      = 1
	golangJWT = 2
)

// openAll opens every contender, and sees to it that each takes the good tokens
// and none takes a bad one.
func openAll(ctx context.Context, f *fixture) ([]contender, error) {
	var all []contender
	for _, c := range contenders {
		opened, err := c.open(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", c.name, f.algorithm, err)
		}
		opened.name = c.name
		if err := opened.check(f); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", c.name, f.algorithm, err)
		}
		all = append(all, opened)
	}
	return all, nil
}

func (c contender) check(f *fixture) error {
	good := f.tokens
	if c.issue != nil && c.name != contenders[bare].name {
		token, err := c.issue()
		if err != nil {
			return fmt.Errorf("issue: %w", err)
		}
		good = append([]string{token}, good...)
	}
	for _, token := range good {
		if sub, err := c.verify(token); err != nil || sub != subject {
			return fmt.Errorf("does not take a good token: subject %q, error %w", sub, err)
		}
	}
	bad := append(hostile(f), f.refused...)
	if c.name == contenders[bare].name {
		bad = bad[:1] // it looks at nothing but the signature
	}
	for _, h := range bad {
		if _, err := c.verify(h.token); err == nil {
			return fmt.Errorf("takes a bad token: %s", h.name)
		}
	}
	return nil
}

func openFleetkey(cachedTokens int) func(context.Context, *fixture) (contender, error) {
	return func(ctx context.Context, f *fixture) (contender, error) {
		cfg := config(f.algorithm)
		cfg.CachedTokens = cachedTokens
		signer, err := fleetkey.NewSigner(ctx, f.store.Open(), cfg)
		if err != nil {
			return contender{}, err
		}
		context.AfterFunc(ctx, func() { _ = signer.Close() })
		return contender{
			issue: func() (string, error) { return signer.Issue(ctx, claims()) },
			verify: func(token string) (string, error) {
				t, err := signer.Verify(ctx, token)
				if err != nil {
					return "", err
				}
				return t.Subject(), nil
			},
		}, nil
	}
}
