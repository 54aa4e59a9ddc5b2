// Command go serves over HTTP the client that the argument names: see ../README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
	"github.com/coreos/go-oidc/v3/oidc"
	gojwt "github.com/golang-jwt/jwt/v5"
	capjwt "github.com/hashicorp/cap/jwt"
	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

var (
	issuer, jwksURI     = os.Getenv("ISSUER"), os.Getenv("JWKS_URI")
	audience, algorithm = os.Getenv("AUDIENCE"), os.Getenv("ALGORITHM")
)

// A verifier checks a token and returns its sub claim.
type verifier func(ctx context.Context, token string) (subject string, err error)

var clients = map[string]func(context.Context) (verifier, error){
	"coreos/go-oidc":          newGoOIDC,
	"MicahParks/keyfunc":      newKeyfunc,
	"lestrrat-go/jwx":         newJWX,
	"auth0/go-jwt-middleware": newAuth0,
	"hashicorp/cap":           newCap,
}

func newGoOIDC(ctx context.Context) (verifier, error) {
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, err
	}
	tokens := provider.Verifier(&oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{algorithm}})
	return func(ctx context.Context, token string) (string, error) {
		t, err := tokens.Verify(ctx, token)
		if err != nil {
			return "", err
		}
		return t.Subject, nil
	}, nil
}

func newKeyfunc(ctx context.Context) (verifier, error) {
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{jwksURI})
	if err != nil {
		return nil, err
	}
	parser := gojwt.NewParser(gojwt.WithValidMethods([]string{algorithm}),
		gojwt.WithIssuer(issuer), gojwt.WithAudience(audience), gojwt.WithExpirationRequired())
	return func(_ context.Context, token string) (string, error) {
		t, err := parser.Parse(token, keys.Keyfunc)
		if err != nil {
			return "", err
		}
		if t.Header["typ"] != "at+jwt" {
			return "", errors.New("not an access token")
		}
		return t.Claims.GetSubject()
	}, nil
}

func newJWX(ctx context.Context) (verifier, error) {
	cache, err := jwk.NewCache(ctx, httprc.NewClient())
	if err != nil {
		return nil, err
	}
	if err := cache.Register(ctx, jwksURI); err != nil { // waits for the first fetch
		return nil, err
	}
	keys, err := cache.CachedSet(jwksURI)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, token string) (string, error) {
		t, err := jwt.ParseString(token, jwt.WithKeySet(keys), jwt.WithIssuer(issuer),
			jwt.WithAudience(audience), jwt.WithRequiredClaim(jwt.ExpirationKey))
		if err != nil {
			return "", err
		}
		subject, _ := t.Subject()
		return subject, nil
	}, nil
}

func newAuth0(context.Context) (verifier, error) {
	issuerURL, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	keys, err := jwks.NewCachingProvider(jwks.WithIssuerURL(issuerURL))
	if err != nil {
		return nil, err
	}
	tokens, err := validator.New(validator.WithKeyFunc(keys.KeyFunc), validator.WithIssuer(issuer),
		validator.WithAlgorithm(validator.SignatureAlgorithm(algorithm)), validator.WithAudience(audience))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, token string) (string, error) {
		claims, err := tokens.ValidateToken(ctx, token)
		if err != nil {
			return "", err
		}
		return claims.(*validator.ValidatedClaims).RegisteredClaims.Subject, nil
	}, nil
}

func newCap(ctx context.Context) (verifier, error) {
	keys, err := capjwt.NewOIDCDiscoveryKeySet(ctx, issuer, "")
	if err != nil {
		return nil, err
	}
	tokens, err := capjwt.NewValidator(keys)
	if err != nil {
		return nil, err
	}
	expected := capjwt.Expected{Issuer: issuer, Audiences: []string{audience},
		SigningAlgorithms: []capjwt.Alg{capjwt.Alg(algorithm)}}
	return func(ctx context.Context, token string) (string, error) {
		claims, err := tokens.Validate(ctx, token, expected)
		return fmt.Sprint(claims["sub"]), err
	}, nil
}

func main() {
	verify, err := clients[os.Args[1]](context.Background())
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject, err := verify(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, subject)
	})))
}
