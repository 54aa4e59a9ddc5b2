package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
	"github.com/coreos/go-oidc/v3/oidc"
	capjwt "github.com/hashicorp/cap/jwt"
	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/fleetkey/fleetkey"
	story "github.com/fleetkey/fleetkey/tests/verifying"
)

// jwksVerifiers fetch the keys of an issuer. Each keeps the defaults of its library for when
// it does that.
var jwksVerifiers = []struct {
	name, module string
	open         func(ctx context.Context, issuer story.Issuer) (story.Verify, error)
}{
	{"fleetkey", "", fetchFleetkey},
	{"keyfunc", "github.com/MicahParks/keyfunc/v3", fetchKeyfunc},
	{"go-oidc", "github.com/coreos/go-oidc/v3", fetchGoOIDC},
	{"jwx, jwk.Cache", "github.com/lestrrat-go/jwx/v3", fetchJWX},
	{"go-jwt-middleware", "github.com/auth0/go-jwt-middleware/v3", fetchMiddleware},
	{"hashicorp/cap", "github.com/hashicorp/cap", fetchCap},
}

// measureFleet runs TestFleet, which tells the story and writes its section, since Go has
// virtual time in tests only.
func measureFleet(p plan, out io.Writer) {
	if p.verifiers == 0 {
		return
	}
	section := filepath.Join(must(os.MkdirTemp("", "fleetkey-bench")), "section.md")
	defer os.RemoveAll(filepath.Dir(section))
	test := exec.Command("go", "test", "-count=1", "-run=^TestFleet$", ".", "-verifiers", strconv.Itoa(p.verifiers), "-section", section)
	if output, err := test.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, output))
	}
	must(out.Write(must(os.ReadFile(section))))
}

// fleetKinds are count verifiers of ours, and a tenth as many of each other library.
func fleetKinds(count int) (kinds []story.Kind) {
	for _, v := range jwksVerifiers {
		k := story.Kind{Name: v.name, Count: count, Open: v.open}
		if v.module != "" {
			k.Name, k.Count = v.name+" "+moduleVersion(v.module), max(1, count/10)
		}
		kinds = append(kinds, k)
	}
	return kinds
}

// fleetSection writes what the story has come to.
func fleetSection(tallies []story.Tally) string {
	var out strings.Builder
	fmt.Fprintf(&out, `
## A fleet that rotates and revokes, an outage and a flood

Two instances of fleetkey's Signer, with Rotation.Every of 48 hours and defaults otherwise,
replace their key by rotation, and twice by Revoke, as after a theft. Around the moment
when the rotated key begins to sign, their JWKS is out of reach for %v: a third
of that with status 503, a third without a connection, a third without an answer. Each
verifier fetches the JWKS for itself, with its library's defaults and an HTTP client with a
timeout of 30 seconds. It gets good tokens and tokens of the revoked keys, and around these
events half as many with made-up kids, up to one a second, in requests that wait for 5
seconds. All of this is in one process and in virtual time, two days of it, so the table
does not depend on the machine.

After Revoke, the other instance serves the old JWKS until its next refresh, 5 minutes
at most. Good tokens of the fresh key that are refused until 10 seconds after that are
counted apart, since every verifier may have to ask that instance; how many they are depends
on when it refreshes. Tokens of a revoked key that are accepted later than that count
as stolen.

| verifier | instances | good tokens | refused | refused within 5 min 10 s of a revocation | stolen tokens accepted | fetches of the JWKS, each | most in a minute | longest wait |
|---|---|---|---|---|---|---|---|---|
`, story.Outage)
	for _, t := range tallies {
		fmt.Fprintf(&out, "| %s | %d | %d | %s | %s | %d | %d | %d | %v |\n", t.Name, t.Verifiers, t.Tokens, share(t.Refused, t.Tokens),
			share(t.RefusedInWindow, t.Tokens), t.Revoked, t.Fetches/t.Verifiers, t.MostInAMinute, t.Longest.Round(time.Millisecond))
	}
	return out.String()
}

// share writes a number and what part of the whole it is.
func share(n, of int) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s %%)", n, figure(100*float64(n)/float64(of)))
}

// moduleVersion returns the version of a module that this program is built with.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	panic("the program is not built with module " + path)
}

func fetchFleetkey(ctx context.Context, issuer story.Issuer) (story.Verify, error) {
	v, err := fleetkey.NewVerifier(ctx, fleetkey.VerifierConfig{Issuer: issuer.URL, Audience: []string{issuer.Audience},
		HTTPClient: issuer.HTTPClient, Logger: noLog})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = v.Close() })
	return func(ctx context.Context, token string) error {
		_, err := v.Verify(ctx, token)
		return err
	}, nil
}

func fetchKeyfunc(ctx context.Context, issuer story.Issuer) (story.Verify, error) {
	keys, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{issuer.JWKSURL}, keyfunc.Override{Client: issuer.HTTPClient,
		RefreshErrorHandlerFunc: func(string) func(context.Context, error) { return func(context.Context, error) {} }})
	if err != nil {
		return nil, err
	}
	parser := golangJWTParser(story.Algorithm)
	return func(ctx context.Context, token string) error {
		_, err := parser.Parse(token, keys.KeyfuncCtx(ctx))
		return err
	}, nil
}

func fetchGoOIDC(ctx context.Context, issuer story.Issuer) (story.Verify, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, issuer.HTTPClient), issuer.URL)
	if err != nil {
		return nil, err
	}
	v := provider.Verifier(&oidc.Config{ClientID: issuer.Audience, SupportedSigningAlgs: []string{story.Algorithm}})
	return func(ctx context.Context, token string) error {
		_, err := v.Verify(ctx, token)
		return err
	}, nil
}

func fetchJWX(ctx context.Context, issuer story.Issuer) (story.Verify, error) {
	cache, err := jwk.NewCache(ctx, httprc.NewClient())
	if err != nil {
		return nil, err
	}
	if err := cache.Register(ctx, issuer.JWKSURL, jwk.WithHTTPClient(issuer.HTTPClient)); err != nil {
		return nil, err
	}
	keys, err := cache.CachedSet(issuer.JWKSURL)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, token string) error {
		_, err := jwxjwt.ParseString(token, jwxjwt.WithKeySet(keys), jwxjwt.WithIssuer(issuer.URL), jwxjwt.WithAudience(issuer.Audience),
			jwxjwt.WithRequiredClaim("exp"), jwxjwt.WithAcceptableSkew(clockSkew))
		return err
	}, nil
}

func fetchMiddleware(_ context.Context, issuer story.Issuer) (story.Verify, error) {
	address, err := url.Parse(issuer.URL)
	if err != nil {
		return nil, err
	}
	provider, err := jwks.NewCachingProvider(jwks.WithIssuerURL(address), jwks.WithCustomClient(issuer.HTTPClient))
	if err != nil {
		return nil, err
	}
	v, err := validator.New(validator.WithKeyFunc(provider.KeyFunc), validator.WithAlgorithm(story.Algorithm),
		validator.WithIssuer(issuer.URL), validator.WithAudience(issuer.Audience), validator.WithAllowedClockSkew(clockSkew))
	return func(ctx context.Context, token string) error {
		_, err := v.ValidateToken(ctx, token)
		return err
	}, err
}

func fetchCap(ctx context.Context, issuer story.Issuer) (story.Verify, error) {
	keys, err := capjwt.NewOIDCDiscoveryKeySet(oidc.ClientContext(ctx, issuer.HTTPClient), issuer.URL, "")
	if err != nil {
		return nil, err
	}
	v, err := capjwt.NewValidator(keys)
	expected := capjwt.Expected{Issuer: issuer.URL, Audiences: []string{issuer.Audience}, SigningAlgorithms: []capjwt.Alg{story.Algorithm}}
	return func(ctx context.Context, token string) error {
		_, err := v.Validate(ctx, token, expected)
		return err
	}, err
}
