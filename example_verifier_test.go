package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A service verifies the tokens of an issuer without holding a private key.
func ExampleNewVerifier() {
	orders := func(w http.ResponseWriter, r *http.Request) {
		token, _ := fleetkey.FromContext(r.Context())
		fmt.Fprintln(w, "orders of", token.Subject())
	}
	verifier, err := fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
		Issuer:   "https://id.example.com",
		Audience: []string{"https://orders.example.com"}, // this service
	})
	if err != nil {
		log.Fatal(err)
	}
	defer verifier.Close()

	mux := http.NewServeMux()
	mux.Handle("GET /healthz", verifier.Health())
	mux.Handle("GET /orders", verifier.Require("orders.read")(http.HandlerFunc(orders)))
	log.Print(http.ListenAndServe("localhost:8081", mux))
}

// Issuers that do not follow RFC 9068 require Legacy. docs/verifying.md gives the Issuer and
// Audience for each: for Keycloak, the realm and the audience that its mapper adds.
func ExampleNewVerifier_legacy() {
	verifier, err := fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
		Issuer:   "https://sso.example.com/realms/shop",
		Audience: []string{"orders"},
		Legacy:   true,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer verifier.Close()
}

// A Verifier serves one issuer. For several issuers, choose the Verifier by the token's iss.
// This is safe although the iss is not verified yet: the choice is limited to Verifiers that
// the program has made, and each accepts only the tokens of its issuer.
func ExampleNewVerifier_severalIssuers() {
	verifiers, tokens := map[string]*fleetkey.Verifier{}, []string{}
	for _, issuer := range []string{"https://staff.example.com", "https://partners.example.com", "https://attacker.example"} {
		idp, client := newExampleIssuer(issuer)
		defer idp.Close()
		tokens = append(tokens, must(idp.Issue(context.Background(), fleetkey.Claims{
			Subject: "alice", ClientID: "shop", Audience: []string{"https://orders.example.com"}})))
		if issuer != "https://attacker.example" {
			verifiers[issuer] = must(fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
				Issuer: issuer, Audience: []string{"https://orders.example.com"}, HTTPClient: client}))
			defer verifiers[issuer].Close()
		}
	}

	verify := func(ctx context.Context, token string) (*fleetkey.Token, error) {
		if len(token) > fleetkey.MaxTokenSize {
			return nil, fleetkey.ErrMalformed
		}
		var unverified jwt.RegisteredClaims
		if _, _, err := jwt.NewParser().ParseUnverified(token, &unverified); err != nil {
			return nil, fleetkey.ErrMalformed
		}
		v, ok := verifiers[unverified.Issuer]
		if !ok { // never make a Verifier for an issuer that a token names
			return nil, fleetkey.ErrWrongIssuer
		}
		return v.Verify(ctx, token)
	}

	for _, raw := range tokens {
		token, err := verify(context.Background(), raw)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(token.Subject(), "of", token.Issuer())
	}
	// Output:
	// alice of https://staff.example.com
	// alice of https://partners.example.com
	// token has the wrong issuer
}

// If the token is not in an Authorization header, call Verify and pass the token on with
// NewContext. examples/frameworks does this for gRPC.
func ExampleNewContext() {
	var verifier *fleetkey.Verifier // from NewVerifier
	fromCookie := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			cookie, err := r.Cookie("token")
			if err != nil {
				http.Error(w, "not logged in", http.StatusUnauthorized)
				return
			}
			token, err := verifier.Verify(r.Context(), cookie.Value)
			switch {
			case errors.Is(err, fleetkey.ErrUnavailable): // the token may be valid; on 401 the client would discard it
				http.Error(w, "try again", http.StatusServiceUnavailable)
			case err != nil || token.SenderConstrained():
				http.Error(w, "not logged in", http.StatusUnauthorized)
			default:
				next.ServeHTTP(w, r.WithContext(fleetkey.NewContext(r.Context(), token)))
			}
		})
	}
	hello := func(w http.ResponseWriter, r *http.Request) {
		token, _ := fleetkey.FromContext(r.Context())
		fmt.Fprintln(w, "hello,", token.Subject())
	}
	http.Handle("GET /hello", fromCookie(http.HandlerFunc(hello)))
}

// newExampleIssuer returns an identity provider, and a client that reaches it without a
// network. In a test, use fleetkeytest.NewIssuer.
func newExampleIssuer(issuer string) (*fleetkey.Signer, *http.Client) {
	signer := must(fleetkey.NewSigner(context.Background(), fleetkeytest.NewStore(), fleetkey.Config{
		Issuer: issuer, Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)}))
	mux := http.NewServeMux()
	mux.Handle(fleetkey.DiscoveryPath, signer.Discovery(nil))
	mux.Handle(fleetkey.JWKSPath, signer.JWKS())
	return signer, &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Result(), nil
	})}
}
