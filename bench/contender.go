package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net/http"
	"net/http/httptest"
	"time"

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

// contenders are configured as a careful user would do it: the algorithm is pinned, the key
// is chosen by kid, and issuer, audience and expiry are required if the library can do so.
// Each uses its default rules for fetching keys.
var contenders = []struct {
	name    string
	fetches bool // it fetches the keys, so it takes part in the story
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
		if cachedTokens < 0 { // the cache makes no difference to these
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

// only drops what a library returns for a good token.
func only[T any](verify func(context.Context, string) (T, error)) story.Verify {
	return func(ctx context.Context, token string) error {
		_, err := verify(ctx, token)
		return err
	}
}

// A task is an operation of one contender: Verify, Issue, Require or JWKS. run ends the
// program if the answer is wrong. Its i counts from 0 and selects a token.
type task struct {
	operation, contender string
	run                  func(i int)
}

// tasks panics if a contender refuses a good token, or accepts a bad one.
func (c contender) tasks(ctx context.Context, name string, f *fixture) []task {
	verify := func(i int) { check(c.verify(ctx, f.good[i%tokensInUse])) }
	for i := range f.good {
		verify(i)
	}
	for what, token := range f.bad {
		if c.verify(ctx, token) == nil {
			panic(name + " accepts a token with a wrong " + what + " by " + f.algorithm)
		}
	}
	all := []task{{"Verify", name, verify}}
	if c.issue != nil {
		check(c.verify(ctx, must(c.issue())))
		all = append(all, task{"Issue", name, func(int) { must(c.issue()) }})
	}
	if c.guard != nil {
		handler := c.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		all = append(all, task{"Require", name, answering(handler, f)})
	}
	if c.jwks != nil {
		all = append(all, task{"JWKS", name, answering(c.jwks, f)})
	}
	return all
}

const bare = "bare call"

// bareTasks are the work that no library can avoid: signing or verifying a prepared text with
// Go's crypto packages, and http.ServeContent.
func bareTasks(f *fixture) []task {
	texts, signatures := make([][]byte, tokensInUse), make([][]byte, tokensInUse)
	for i, token := range f.good {
		text, signature := signed(token)
		if f.algorithm == "ES256" { // RFC 7518 section 3.4 concatenates r and s, without ASN.1
			var rs struct{ R, S *big.Int }
			rs.R, rs.S = new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
			signature = must(asn1.Marshal(rs))
		}
		texts[i], signatures[i] = []byte(text), signature
	}
	public := x509.Certificate{PublicKey: f.private.Public()} // only selects the algorithm by the type of the key
	algorithm, hash := x509.PureEd25519, crypto.Hash(0)
	switch f.algorithm {
	case "RS256":
		algorithm, hash = x509.SHA256WithRSA, crypto.SHA256
	case "ES256":
		algorithm, hash = x509.ECDSAWithSHA256, crypto.SHA256
	}
	return []task{
		{"Verify", bare, func(i int) {
			check(public.CheckSignature(algorithm, texts[i%tokensInUse], signatures[i%tokensInUse]))
		}},
		{"Issue", bare, func(i int) { must(crypto.SignMessage(f.private, rand.Reader, texts[i%tokensInUse], hash)) }},
		{"JWKS", bare, answering(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.jwks))
		}), f)},
	}
}

// answering returns a function that sends requests with the good tokens, in turn, to a handler.
func answering(handler http.Handler, f *fixture) func(i int) {
	var requests []*http.Request
	for _, token := range f.good {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		requests = append(requests, r)
	}
	w := &nowhere{header: http.Header{}}
	return func(i int) {
		w.status = http.StatusOK
		if handler.ServeHTTP(w, requests[i%tokensInUse]); w.status != http.StatusOK {
			panic(http.StatusText(w.status))
		}
	}
}

// nowhere is a ResponseWriter that keeps only the status.
type nowhere struct {
	header http.Header
	status int
}

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(status int)      { n.status = status }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
