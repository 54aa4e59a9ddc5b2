package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// What the tokens of every contender say: an access token as RFC 9068 has it.
const (
	issuer   = "https://id.example.com"
	audience = "https://api.example.com"
	subject  = "248289761001"
	clientID = "web-application"
	scope    = "openid profile orders:read orders:write"

	tokenTTL  = time.Hour
	clockSkew = time.Minute
	tokenType = "at+jwt"

	tokensInUse = 100 // that are verified in turn
)

var noLog = slog.New(slog.DiscardHandler)

var algorithms = []string{"RS256", "ES256", "EdDSA"}

// A fixture is one key, tokens that it signed, and a server that publishes its
// public half: what all contenders of one algorithm work with.
type fixture struct {
	algorithm string
	store     *fleetkeytest.Store
	keyID     string
	private   crypto.Signer
	jwks      []byte
	jwksURL   string
	fetches   atomic.Int64
	tokens    []string       // good ones
	refused   []hostileToken // signed by the right key, and to be refused all the same
}

// newFixture makes a key as fleetkey does at its first start. It ends with ctx.
func newFixture(ctx context.Context, algorithm string) *fixture {
	f := &fixture{algorithm: algorithm, store: fleetkeytest.NewStore()}
	signer := must(fleetkey.NewSigner(ctx, f.store, config(algorithm)))
	defer signer.Close()
	key := signer.SigningKey()
	f.keyID, f.private = key.KeyID, key.Signer

	answer := httptest.NewRecorder()
	signer.JWKS().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
	f.jwks = answer.Body.Bytes()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.fetches.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(f.jwks)
	}))
	context.AfterFunc(ctx, server.Close)
	f.jwksURL = server.URL
	for range tokensInUse {
		f.tokens = append(f.tokens, must(signer.Issue(ctx, claims())))
	}
	f.makeRefused(ctx, signer)
	return f
}

// fetched counts the requests to jwksURL.
func (f *fixture) fetched() int { return int(f.fetches.Load()) }

// config is fleetkey's as a server would have it.
func config(algorithm string) fleetkey.Config {
	return fleetkey.Config{Issuer: issuer, Audience: []string{audience}, Algorithm: algorithm, TokenTTL: tokenTTL,
		ClockSkew: clockSkew, Logger: noLog}
}

func claims() fleetkey.Claims {
	return fleetkey.Claims{Subject: subject, ClientID: clientID, Scope: scope}
}

// signed returns what a token's signature covers, and the signature.
func signed(token string) (text string, signature []byte) {
	dot := strings.LastIndexByte(token, '.')
	return token[:dot], must(base64.RawURLEncoding.DecodeString(token[dot+1:]))
}

// A hostileToken must be refused.
type hostileToken struct{ name, token string }

// hostile returns tokens that anybody can make up. The first is in order except
// for its signature.
func hostile(f *fixture) []hostileToken {
	return []hostileToken{
		{"wrong signature", wrongSignature(f.tokens[0])},
		{"alg none", withHeader(f.tokens[0], fmt.Sprintf(`{"alg":"none","kid":%q,"typ":%q}`, f.keyID, tokenType))},
		{"header is no JSON", withHeader(f.tokens[0], `{"alg":`)},
		{"16 KiB of dots", strings.Repeat(".", 16<<10)},
	}
}

func (f *fixture) makeRefused(ctx context.Context, signer *fleetkey.Signer) {
	now := time.Now()
	for name, change := range map[string]map[string]any{
		"expired":        {"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()},
		"no exp":         {"exp": nil},
		"wrong issuer":   {"iss": "https://other.example.com"},
		"wrong audience": {"aud": "https://other.example.com"},
	} {
		all := map[string]any{"iss": issuer, "sub": subject, "aud": audience, "iat": now.Unix(), "exp": now.Add(tokenTTL).Unix()}
		maps.Copy(all, change)
		maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
		f.refused = append(f.refused, hostileToken{name, must(signer.Sign(ctx, tokenType, all))})
	}
}

// withHeader returns a token under another header.
func withHeader(token, header string) string {
	_, rest, _ := strings.Cut(token, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
}

// wrongSignature returns a token with one bit of its signature flipped.
func wrongSignature(token string) string {
	text, signature := signed(token)
	signature[len(signature)-8] ^= 4 // so far in front that the number stays in range
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// unknownKeys returns tokens that each name another made-up key.
func (f *fixture) unknownKeys(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = withHeader(f.tokens[0], fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":%q}`, f.algorithm, rand.Text(), tokenType))
	}
	return tokens
}
