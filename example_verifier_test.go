package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A service verifies the tokens of an issuer, and holds no private key.
func ExampleNewVerifier() {
	idp := newExampleIssuer("https://id.example.com")
	defer idp.Close()

	verifier, err := fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
		Issuer:     "https://id.example.com",
		Audience:   []string{"https://orders.example.com"}, // this service
		HTTPClient: idp.client,                             // left out in production
	})
	if err != nil {
		panic(err)
	}
	defer verifier.Close()

	mux := http.NewServeMux()
	mux.Handle("GET /healthz", verifier.Health())
	mux.Handle("GET /orders", verifier.Require("orders.read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := fleetkey.FromContext(r.Context())
		fmt.Fprint(w, "orders of ", token.Subject())
	})))

	token, err := idp.Issue(context.Background(), fleetkey.Claims{
		Subject: "alice", ClientID: "shop", Scope: "orders.read", Audience: []string{"https://orders.example.com"}})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest("GET", "/orders", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output: 200 orders of alice
}

// One Verifier is for one issuer. With several, the token's iss says which one to ask.
// That is safe although the iss is not verified at that point: it selects among Verifiers
// that the program has made, and each accepts tokens of one issuer only.
func ExampleNewVerifier_severalIssuers() {
	verifiers := map[string]*fleetkey.Verifier{}
	staff, partners := newExampleIssuer("https://staff.example.com"), newExampleIssuer("https://partners.example.com")
	for _, idp := range []*exampleIssuer{staff, partners} {
		defer idp.Close()
		v, err := fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
			Issuer: idp.issuer, Audience: []string{"https://orders.example.com"}, HTTPClient: idp.client})
		if err != nil {
			panic(err)
		}
		defer v.Close()
		verifiers[idp.issuer] = v
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

	stranger := newExampleIssuer("https://attacker.example")
	defer stranger.Close()
	for _, idp := range []*exampleIssuer{staff, partners, stranger} {
		raw, err := idp.Issue(context.Background(), fleetkey.Claims{
			Subject: "alice", ClientID: "shop", Audience: []string{"https://orders.example.com"}})
		if err != nil {
			panic(err)
		}
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
	// token has another issuer
}

// Access tokens of Amazon Cognito have no aud. They are accepted for the app clients that
// Audience names.
func ExampleNewVerifier_cognito() {
	verifyLegacy(fleetkey.VerifierConfig{
		Issuer:   "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example",
		Audience: []string{"1example23456789"}, // the app client's id
		Legacy:   true,
	}, map[string]any{
		"sub": "alice", "token_use": "access", "client_id": "1example23456789", "scope": "orders/read",
	}, map[string]any{ // an ID token
		"sub": "alice", "token_use": "id", "aud": "1example23456789",
	})
	// Output:
	// alice, scope "orders/read"
	// fleetkey: token is not an access token: its claims are those of another kind of token
}

// Entra ID (Azure AD) has an issuer for each tenant. Audience is the Application ID URI or,
// in tokens of version 2.0, the application's id. The issuer of version 1.0 is
// https://sts.windows.net/TENANT/.
func ExampleNewVerifier_entraID() {
	verifyLegacy(fleetkey.VerifierConfig{
		Issuer:   "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0",
		Audience: []string{"66666666-7777-8888-9999-000000000000"},
		Legacy:   true,
	}, map[string]any{
		"sub": "alice", "azp": "shop", "scp": "Orders.Read", "ver": "2.0", "aud": "66666666-7777-8888-9999-000000000000",
	}, map[string]any{ // an ID token
		"sub": "alice", "ver": "2.0", "aud": "66666666-7777-8888-9999-000000000000",
	})
	// Output:
	// alice, scope "Orders.Read"
	// fleetkey: token is not an access token: it has no scope, scp, or roles with azp or appid, and its audience may be a client, as in an ID token
}

// Keycloak has an issuer for each realm. Its tokens are for a service if an audience mapper
// says so.
func ExampleNewVerifier_keycloak() {
	verifyLegacy(fleetkey.VerifierConfig{
		Issuer:   "https://sso.example.com/realms/shop",
		Audience: []string{"orders"},
		Legacy:   true,
	}, map[string]any{
		"sub": "alice", "typ": "Bearer", "azp": "web", "aud": []string{"orders", "account"}, "scope": "orders.read",
	}, map[string]any{ // a refresh token
		"sub": "alice", "typ": "Refresh", "azp": "web", "aud": "orders", "scope": "orders.read",
	})
	// Output:
	// alice, scope "orders.read"
	// fleetkey: token is not an access token: its claims are those of another kind of token
}

// A Kubernetes service account token is for the audience of its projected volume or of the
// TokenRequest. Give it a URL: a plain name could be a client's, and these tokens have no
// scope that shows that they are access tokens. Without a public issuer, as EKS has one,
// set JWKSURL to https://kubernetes.default.svc/openid/v1/jwks, and an HTTPClient that
// trusts the cluster's authority and sends the pod's own token.
func ExampleNewVerifier_kubernetes() {
	verifyLegacy(fleetkey.VerifierConfig{
		Issuer:   "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE",
		Audience: []string{"https://orders.example.com"},
		Legacy:   true,
	}, map[string]any{
		"sub": "system:serviceaccount:shop:web", "aud": []string{"https://orders.example.com"},
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "web"}},
	}, map[string]any{ // a token for the cluster's own API
		"sub": "system:serviceaccount:shop:web", "aud": []string{"https://kubernetes.default.svc"},
	})
	// Output:
	// system:serviceaccount:shop:web, scope ""
	// fleetkey: token is for another audience: ["https://kubernetes.default.svc"]
}

// Where the token is not in an Authorization header, as in the metadata of a gRPC call, call
// Verify and hand the token on by NewContext.
func ExampleNewContext() {
	idp := newExampleIssuer("https://id.example.com")
	defer idp.Close()
	verifier, err := fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
		Issuer: idp.issuer, Audience: []string{"https://orders.example.com"}, HTTPClient: idp.client})
	if err != nil {
		panic(err)
	}
	defer verifier.Close()

	hello := func(ctx context.Context) string {
		token, _ := fleetkey.FromContext(ctx)
		return "hello, " + token.Subject()
	}
	// As in a grpc.UnaryServerInterceptor; metadata.MD is such a map.
	intercept := func(ctx context.Context, metadata map[string][]string, handler func(context.Context) string) string {
		values := metadata["authorization"]
		if len(values) != 1 {
			return "Unauthenticated"
		}
		token, err := verifier.Verify(ctx, strings.TrimPrefix(values[0], "Bearer "))
		switch {
		case errors.Is(err, fleetkey.ErrUnavailable): // nobody knows whether it is good: the client keeps it
			return "Unavailable"
		case err != nil || token.SenderConstrained():
			return "Unauthenticated"
		}
		return handler(fleetkey.NewContext(ctx, token))
	}

	token, err := idp.Issue(context.Background(), fleetkey.Claims{
		Subject: "alice", ClientID: "shop", Audience: []string{"https://orders.example.com"}})
	if err != nil {
		panic(err)
	}
	fmt.Println(intercept(context.Background(), map[string][]string{"authorization": {"Bearer " + token}}, hello))
	fmt.Println(intercept(context.Background(), map[string][]string{"authorization": {"Bearer " + token + "x"}}, hello))
	// Output:
	// hello, alice
	// Unauthenticated
}

// verifyLegacy prints what a Verifier says of two tokens of its issuer.
func verifyLegacy(cfg fleetkey.VerifierConfig, tokens ...map[string]any) {
	idp := newExampleIssuer(cfg.Issuer)
	defer idp.Close()
	cfg.HTTPClient, cfg.Logger = idp.client, slog.New(slog.DiscardHandler)
	verifier, err := fleetkey.NewVerifier(context.Background(), cfg)
	if err != nil {
		panic(err)
	}
	defer verifier.Close()
	for _, claims := range tokens {
		claims["iss"], claims["iat"], claims["exp"] = cfg.Issuer, time.Now().Unix(), time.Now().Add(time.Hour).Unix()
		raw, err := idp.Sign(context.Background(), "JWT", claims)
		if err != nil {
			panic(err)
		}
		token, err := verifier.Verify(context.Background(), raw)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s, scope %q\n", token.Subject(), token.Scope())
	}
}

// An exampleIssuer stands for an identity provider, reached without a network. In a test,
// fleetkeytest.NewIssuer gives one.
type exampleIssuer struct {
	*fleetkey.Signer
	issuer string
	client *http.Client
}

func newExampleIssuer(issuer string) *exampleIssuer {
	signer, err := fleetkey.NewSigner(context.Background(), fleetkeytest.NewStore(), fleetkey.Config{
		Issuer: issuer, Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	address := strings.TrimPrefix(issuer, "https://")
	mux.Handle(address+fleetkey.DiscoveryPath, signer.Discovery(nil))
	mux.Handle(address+fleetkey.JWKSPath, signer.JWKS())
	return &exampleIssuer{signer, issuer, &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Result(), nil
	})}}
}
