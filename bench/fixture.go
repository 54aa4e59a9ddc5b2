package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// What the tokens of every contender say: an access token as RFC 9068 has it.
const (
	issuer    = "https://id.example.com"
	jwksURL   = issuer + fleetkey.JWKSPath
	audience  = "https://api.example.com"
	subject   = "248289761001"
	clientID  = "web-application"
	scope     = "openid profile orders:read orders:write"
	tokenType = "at+jwt"
	clockSkew = time.Minute

	tokensInUse = 100 // that are verified in turn
)

var (
	algorithms = []string{"RS256", "ES256", "EdDSA"}
	claims     = fleetkey.Claims{Subject: subject, ClientID: clientID, Scope: scope}
	noLog      = slog.New(slog.DiscardHandler)
)

// config is fleetkey's as a server would have it.
func config(algorithm string) fleetkey.Config {
	return fleetkey.Config{Issuer: issuer, Audience: []string{audience}, Algorithm: algorithm, Logger: noLog}
}

// payload is what Issue writes, for libraries that are handed all claims.
func payload() map[string]any {
	now := time.Now()
	return map[string]any{"iss": issuer, "sub": subject, "aud": audience, "jti": rand.Text(), "client_id": clientID, "scope": scope,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
}

// A fixture is one key, tokens that it signed, and an issuer that publishes its public
// half: what all contenders of one algorithm work with.
type fixture struct {
	algorithm string
	client    *http.Client // that reaches the issuer
	store     *fleetkeytest.Store
	keyID     string
	private   crypto.Signer
	jwks      []byte
	good      []string
	bad       map[string]string
}

// newFixture makes a key as fleetkey does at its first start.
func newFixture(ctx context.Context, algorithm string) *fixture {
	f := &fixture{algorithm: algorithm, store: fleetkeytest.NewStore()}
	f.client = &http.Client{Transport: f}
	signer := must(fleetkey.NewSigner(ctx, f.store, config(algorithm)))
	defer signer.Close()
	key := signer.SigningKey()
	f.keyID, f.private = key.KeyID, key.Signer

	answer := httptest.NewRecorder()
	signer.JWKS().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
	f.jwks = answer.Body.Bytes()
	for range tokensInUse {
		f.good = append(f.good, must(signer.Issue(ctx, claims)))
	}

	text, signature := signed(f.good[0])
	signature[len(signature)-8] ^= 4 // so far in front that the number stays in range
	f.bad = map[string]string{"signature": text + "." + base64.RawURLEncoding.EncodeToString(signature)}
	for claim, wrong := range map[string]any{"exp": time.Now().Add(-time.Hour).Unix(), "iss": "https://other.example.com", "aud": "other"} {
		all := payload()
		all["iat"], all[claim] = time.Now().Add(-2*time.Hour).Unix(), wrong
		f.bad[claim] = must(signer.Sign(ctx, tokenType, all))
	}
	return f
}

// RoundTrip answers as the issuer does, without a network.
func (f *fixture) RoundTrip(r *http.Request) (*http.Response, error) {
	body := string(f.jwks)
	if r.URL.Path != fleetkey.JWKSPath {
		body = fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, jwksURL)
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// signed returns what a token's signature covers, and the signature.
func signed(token string) (text string, signature []byte) {
	dot := strings.LastIndexByte(token, '.')
	return token[:dot], must(base64.RawURLEncoding.DecodeString(token[dot+1:]))
}
