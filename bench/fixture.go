package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// The claims of every contender's access tokens, which follow RFC 9068.
const (
	issuer    = "https://id.example.com"
	jwksURL   = issuer + fleetkey.JWKSPath
	audience  = "https://api.example.com"
	subject   = "248289761001"
	clientID  = "web-application"
	scope     = "openid profile orders:read orders:write"
	tokenType = "at+jwt"
	clockSkew = time.Minute

	tokensInUse = 100 // good tokens, verified in turn
)

var (
	algorithms = []string{"RS256", "ES256", "EdDSA"}
	claims     = fleetkey.Claims{Subject: subject, ClientID: clientID, Scope: scope}
	noLog      = slog.New(slog.DiscardHandler)
)

// config returns the Config that a server would use.
func config(algorithm string) fleetkey.Config {
	return fleetkey.Config{Issuer: issuer, Audience: []string{audience}, Algorithm: algorithm, Logger: noLog}
}

// payload returns the claims that Issue writes, for libraries that need all of them.
func payload() map[string]any {
	now := time.Now()
	return map[string]any{"iss": issuer, "sub": subject, "aud": audience, "jti": rand.Text(), "client_id": clientID, "scope": scope,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
}

// A fixture is what all contenders of one algorithm share: one key, tokens that it signed,
// and an issuer that publishes its public half.
type fixture struct {
	algorithm string
	client    *http.Client // reaches the issuer
	store     *fleetkeytest.Store
	keyID     string
	private   crypto.Signer
	jwks      []byte
	good      []string
	bad       map[string]string
}

// newFixture makes a key as fleetkey does at its first start.
func newFixture(ctx context.Context, algorithm string) *fixture {
	published := testkit.NewProvider() // answers without a network
	f := &fixture{algorithm: algorithm, store: fleetkeytest.NewStore(), client: &http.Client{Transport: published}}
	signer := must(fleetkey.NewSigner(ctx, f.store, config(algorithm)))
	defer signer.Close()
	key := signer.SigningKey()
	f.keyID, f.private = key.KeyID, key.Signer

	published.Serve(issuer+fleetkey.DiscoveryPath, signer.Discovery(nil).ServeHTTP)
	published.Serve(jwksURL, signer.JWKS().ServeHTTP)
	f.jwks = must(io.ReadAll(must(f.client.Get(jwksURL)).Body))
	for range tokensInUse {
		f.good = append(f.good, must(signer.Issue(ctx, claims)))
	}

	text, signature := signed(f.good[0])
	signature[len(signature)-8] ^= 4 // far enough from both ends that the number stays in range
	f.bad = map[string]string{"signature": text + "." + base64.RawURLEncoding.EncodeToString(signature)}
	for claim, wrong := range map[string]any{"exp": time.Now().Add(-time.Hour).Unix(), "iss": "https://other.example.com", "aud": "other"} {
		all := payload()
		all["iat"], all[claim] = time.Now().Add(-2*time.Hour).Unix(), wrong
		f.bad[claim] = must(signer.Sign(ctx, tokenType, all))
	}
	return f
}

// signed returns what a token's signature covers, and the signature.
func signed(token string) (text string, signature []byte) {
	dot := strings.LastIndexByte(token, '.')
	return token[:dot], must(base64.RawURLEncoding.DecodeString(token[dot+1:]))
}
