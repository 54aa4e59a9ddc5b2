package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	capjwt "github.com/hashicorp/cap/jwt"
	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"
)

// scopedClaims are the claims for which the libraries have no fields. go-jwt-middleware
// requires Validate.
type scopedClaims struct {
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

func (*scopedClaims) Validate(context.Context) error { return nil }

func openGolangJWT(_ context.Context, f *fixture) contender {
	method, keys := jwt.GetSigningMethod(f.algorithm), map[any]any{f.keyID: f.private.Public()}
	byKid := func(t *jwt.Token) (any, error) {
		if key, ok := keys[t.Header["kid"]]; ok {
			return key, nil
		}
		return nil, errors.New("unknown kid")
	}
	c := verifyWithGolangJWT(f, func(context.Context) jwt.Keyfunc { return byKid })
	c.issue = func() (string, error) {
		t := jwt.NewWithClaims(method, jwt.MapClaims(payload()))
		t.Header["typ"], t.Header["kid"] = tokenType, f.keyID
		return t.SignedString(f.private)
	}
	return c
}

func openKeyfunc(ctx context.Context, f *fixture) contender {
	return verifyWithGolangJWT(f, must(keyfunc.NewDefaultOverrideCtx(ctx, []string{jwksURL}, keyfunc.Override{
		Client:                  f.client,
		RefreshErrorHandlerFunc: func(string) func(context.Context, error) { return func(context.Context, error) {} },
	})).KeyfuncCtx)
}

func verifyWithGolangJWT(f *fixture, keys func(context.Context) jwt.Keyfunc) contender {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{f.algorithm}), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(clockSkew), jwt.WithStrictDecoding())
	return contender{verify: func(ctx context.Context, token string) error {
		var c struct {
			jwt.RegisteredClaims
			scopedClaims
		}
		_, err := parser.ParseWithClaims(token, &c, keys(ctx))
		return err
	}}
}

func openGoJOSE(_ context.Context, f *fixture) contender {
	algorithm := jose.SignatureAlgorithm(f.algorithm)
	var keys jose.JSONWebKeySet
	check(json.Unmarshal(f.jwks, &keys))
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: f.private, KeyID: f.keyID}},
		(&jose.SignerOptions{}).WithType(tokenType)))
	return contender{
		issue: func() (string, error) { return josejwt.Signed(signer).Claims(payload()).Serialize() },
		jwks:  func(w http.ResponseWriter, _ *http.Request) { check(json.NewEncoder(w).Encode(keys)) },
		verify: func(_ context.Context, token string) error {
			t, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{algorithm})
			if err != nil {
				return err
			}
			var c struct {
				josejwt.Claims
				scopedClaims
			}
			if err := t.Claims(keys, &c); err != nil {
				return err
			}
			expected := josejwt.Expected{Issuer: issuer, AnyAudience: josejwt.Audience{audience}, Time: time.Now()}
			return c.ValidateWithLeeway(expected, clockSkew)
		},
	}
}

func openJWX(_ context.Context, f *fixture) contender {
	algorithm, _ := jwa.LookupSignatureAlgorithm(f.algorithm)
	keys, private, header := must(jwk.Parse(f.jwks)), must(jwk.Import(f.private)), jws.NewHeaders()
	check(private.Set(jwk.KeyIDKey, f.keyID))
	check(header.Set(jws.TypeKey, tokenType))
	c := verifyWithJWX(keys)
	c.issue = func() (string, error) {
		t := jwxjwt.New()
		for name, value := range payload() {
			check(t.Set(name, value))
		}
		token, err := jwxjwt.Sign(t, jwxjwt.WithKey(algorithm, private, jws.WithProtectedHeaders(header)))
		return string(token), err
	}
	c.jwks = func(w http.ResponseWriter, _ *http.Request) { check(json.NewEncoder(w).Encode(keys)) }
	return c
}

func openJWKCache(ctx context.Context, f *fixture) contender {
	cache := must(jwk.NewCache(ctx, httprc.NewClient()))
	check(cache.Register(ctx, jwksURL, jwk.WithHTTPClient(f.client)))
	return verifyWithJWX(must(cache.CachedSet(jwksURL)))
}

func verifyWithJWX(keys jwk.Set) contender {
	return contender{verify: func(_ context.Context, token string) error {
		_, err := jwxjwt.ParseString(token, jwxjwt.WithKeySet(keys), jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience),
			jwxjwt.WithRequiredClaim("exp"), jwxjwt.WithAcceptableSkew(clockSkew))
		return err
	}}
}

func openGoOIDC(ctx context.Context, f *fixture) contender {
	provider := must(oidc.NewProvider(oidc.ClientContext(ctx, f.client), issuer))
	v := provider.Verifier(&oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{f.algorithm}})
	return contender{verify: func(ctx context.Context, token string) error {
		t, err := v.Verify(ctx, token)
		if err != nil {
			return err
		}
		return t.Claims(&scopedClaims{})
	}}
}

func openMiddleware(_ context.Context, f *fixture) contender {
	provider := must(jwks.NewCachingProvider(jwks.WithIssuerURL(must(url.Parse(issuer))), jwks.WithCustomClient(f.client)))
	v := must(validator.New(validator.WithKeyFunc(provider.KeyFunc), validator.WithAlgorithm(validator.SignatureAlgorithm(f.algorithm)),
		validator.WithIssuer(issuer), validator.WithAudience(audience), validator.WithAllowedClockSkew(clockSkew),
		validator.WithCustomClaims(func() *scopedClaims { return &scopedClaims{} })))
	return contender{guard: must(jwtmiddleware.New(jwtmiddleware.WithValidator(v))).CheckJWT, verify: only(v.ValidateToken)}
}

func openCap(ctx context.Context, f *fixture) contender {
	v := must(capjwt.NewValidator(must(capjwt.NewOIDCDiscoveryKeySet(oidc.ClientContext(ctx, f.client), issuer, ""))))
	expected := capjwt.Expected{Issuer: issuer, Audiences: []string{audience}, SigningAlgorithms: []capjwt.Alg{capjwt.Alg(f.algorithm)}}
	return contender{verify: only(func(ctx context.Context, token string) (map[string]any, error) {
		return v.Validate(ctx, token, expected)
	})}
}
