package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"
)

// scopedClaims are the fixture's claims that the libraries have no field for.
type scopedClaims struct {
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

type golangJWTClaims struct {
	jwt.RegisteredClaims
	scopedClaims
}

func openGolangJWT(_ context.Context, f *fixture) contender {
	method := jwt.GetSigningMethod(f.algorithm)
	keys := map[string]any{f.keyID: f.private.Public()}
	c := verifyWithGolangJWT(f, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key, ok := keys[kid]
		if !ok {
			return nil, errors.New("unknown kid")
		}
		return key, nil
	})
	c.issue = func() (string, error) {
		now := time.Now()
		t := jwt.NewWithClaims(method, golangJWTClaims{
			RegisteredClaims: jwt.RegisteredClaims{Issuer: issuer, Subject: subject, Audience: jwt.ClaimStrings{audience}, ID: rand.Text(),
				IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(tokenTTL))},
			scopedClaims: scopedClaims{clientID, scope},
		})
		t.Header["typ"], t.Header["kid"] = tokenType, f.keyID
		return t.SignedString(f.private)
	}
	return c
}

// openKeyfunc only verifies: keyfunc gives golang-jwt the keys of a URL.
func openKeyfunc(ctx context.Context, f *fixture) contender {
	k := must(keyfunc.NewDefaultCtx(ctx, []string{f.jwksURL}))
	c := verifyWithGolangJWT(f, k.Keyfunc)
	c.asked = f.fetched
	c.jwks = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(must(k.Storage().JSONPublic(ctx))) }
	return c
}

func golangJWTParser(algorithm string) *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{algorithm}), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(clockSkew), jwt.WithStrictDecoding())
}

func verifyWithGolangJWT(f *fixture, key jwt.Keyfunc) contender {
	parser := golangJWTParser(f.algorithm)
	return contender{verify: func(token string) (string, error) {
		var c golangJWTClaims
		t, err := parser.ParseWithClaims(token, &c, key)
		if err != nil {
			return "", err
		}
		if typ, _ := t.Header["typ"].(string); typ != tokenType {
			return "", errors.New("wrong typ")
		}
		return c.Subject, nil
	}}
}

type joseClaims struct {
	josejwt.Claims
	scopedClaims
}

func openGoJOSE(_ context.Context, f *fixture) contender {
	algorithm := jose.SignatureAlgorithm(f.algorithm)
	var keys jose.JSONWebKeySet
	check(json.Unmarshal(f.jwks, &keys))
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: f.private, KeyID: f.keyID}},
		(&jose.SignerOptions{}).WithType(tokenType)))
	return contender{
		issue: func() (string, error) {
			now := time.Now()
			return josejwt.Signed(signer).Claims(joseClaims{
				josejwt.Claims{Issuer: issuer, Subject: subject, Audience: josejwt.Audience{audience}, ID: rand.Text(),
					IssuedAt: josejwt.NewNumericDate(now), Expiry: josejwt.NewNumericDate(now.Add(tokenTTL))},
				scopedClaims{clientID, scope},
			}).Serialize()
		},
		verify: func(token string) (string, error) {
			t, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{algorithm})
			if err != nil {
				return "", err
			}
			if typ, _ := t.Headers[0].ExtraHeaders[jose.HeaderType].(string); typ != tokenType {
				return "", errors.New("wrong typ")
			}
			var c joseClaims
			if err := t.Claims(keys, &c); err != nil {
				return "", err
			}
			if c.Expiry == nil {
				return "", errors.New("no exp")
			}
			expected := josejwt.Expected{Issuer: issuer, AnyAudience: josejwt.Audience{audience}, Time: time.Now()}
			return c.Subject, c.ValidateWithLeeway(expected, clockSkew)
		},
		jwks: func(w http.ResponseWriter, _ *http.Request) { check(json.NewEncoder(w).Encode(keys)) },
	}
}

func openJWX(_ context.Context, f *fixture) contender {
	algorithm, ok := jwa.LookupSignatureAlgorithm(f.algorithm)
	if !ok {
		panic("jwx does not know " + f.algorithm)
	}
	keys, private, header := must(jwk.Parse(f.jwks)), must(jwk.Import(f.private)), jws.NewHeaders()
	check(private.Set(jwk.KeyIDKey, f.keyID))
	check(header.Set(jws.TypeKey, tokenType))
	return contender{
		issue: func() (string, error) {
			now := time.Now()
			t, err := jwxjwt.NewBuilder().Issuer(issuer).Subject(subject).Audience([]string{audience}).JwtID(rand.Text()).
				IssuedAt(now).Expiration(now.Add(tokenTTL)).Claim("client_id", clientID).Claim("scope", scope).Build()
			if err != nil {
				return "", err
			}
			token, err := jwxjwt.Sign(t, jwxjwt.WithKey(algorithm, private, jws.WithProtectedHeaders(header)))
			return string(token), err
		},
		verify: func(token string) (string, error) {
			t, err := jwxjwt.ParseString(token, jwxjwt.WithKeySet(keys), jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience),
				jwxjwt.WithRequiredClaim("exp"), jwxjwt.WithAcceptableSkew(clockSkew))
			if err != nil {
				return "", err
			}
			sub, _ := t.Subject()
			return sub, nil
		},
		jwks: func(w http.ResponseWriter, _ *http.Request) { check(json.NewEncoder(w).Encode(keys)) },
	}
}

// openGoOIDC only verifies. It does not check typ.
func openGoOIDC(ctx context.Context, f *fixture) contender {
	verifier := oidc.NewVerifier(issuer, oidc.NewRemoteKeySet(ctx, f.jwksURL),
		&oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{f.algorithm}})
	return contender{asked: f.fetched, verify: func(token string) (string, error) {
		t, err := verifier.Verify(ctx, token)
		if err != nil {
			return "", err
		}
		var c scopedClaims
		if err := t.Claims(&c); err != nil {
			return "", err
		}
		return t.Subject, nil
	}}
}
