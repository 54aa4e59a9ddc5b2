package fleetkey_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// Every instance of the fleet does this, with the same path or secret.
func ExampleNewSigner() {
	ctx := context.Background()
	store := fleetkey.NewFileStore("/var/lib/openid-server/keys.pem")
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer:   "https://id.example.com",
		Rotation: fleetkey.Rotation{Every: 90 * 24 * time.Hour},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer signer.Close()

	token, err := signer.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web"})
	fmt.Println(token, err)
}

// Once the fleet has its keys, set MustExist: a server then never creates other keys, even if
// the store is lost or the wrong one is configured.
func ExampleNewSigner_mustExist() {
	ctx, store := context.Background(), fleetkeytest.NewStore() // empty
	_, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{Issuer: "https://id.example.com", MustExist: true})
	fmt.Println(errors.Is(err, fleetkey.ErrNotExist), errors.Is(err, fs.ErrNotExist))
	// Output: true true
}

// An instance that had its own key joins the fleet.
func ExampleNewSigner_adopt() {
	ctx := context.Background()
	store, err := fleetkey.OpenStore(ctx, "appsettings.json")
	if err != nil {
		log.Fatal(err)
	}
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer: "https://id.example.com",
		Adopt:  fleetkey.NewFileStore("/var/lib/openid-server/keys.pem"), // its own key until now
	})
	if err != nil {
		log.Fatal(err)
	}
	defer signer.Close()
}

// The tokens of another system stay valid while you move from it.
func ExampleNewSigner_former() {
	ctx, store := context.Background(), fleetkey.NewFileStore("/var/lib/openid-server/keys.pem")
	var der []byte // the old system's certificate
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer:   "https://id.example.com",
		Audience: []string{"https://id.example.com"}, // also list the audience of the old tokens
		Former:   []fleetkey.Former{{Certificate: certificate, Issuer: "https://old.example.com"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer signer.Close()
}

// The file is provided and replaced from outside, as with a Kubernetes Secret.
func ExampleNewFileStore_readOnly() {
	ctx := context.Background()
	store := fleetkey.NewFileStore("/etc/openid-server/keys/keys.pem", func(o *fleetkey.FileOptions) {
		o.ReadOnly = true
	})
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer:   "https://id.example.com",
		Rotation: fleetkey.Rotation{Every: 90 * 24 * time.Hour}, // as where the keys are rotated
	})
	if err != nil {
		log.Fatal(err)
	}
	defer signer.Close()
}

// On a machine with a role, the name is enough. This example also sets a client with another
// profile, and a customer managed key.
func ExampleNewAWSStore() {
	ctx := context.Background()
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithSharedConfigProfile("keys"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := fleetkey.NewAWSStore(ctx, "indicium/openid-server-prod", func(o *fleetkey.AWSOptions) {
		o.Client = secretsmanager.NewFromConfig(cfg)
		o.KMSKeyID = "alias/openid-server"
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Print("keys are in ", store)
}

// newExampleSigner returns the Signer of the other examples.
func newExampleSigner() *fleetkey.Signer {
	return must(fleetkey.NewSigner(context.Background(), fleetkeytest.NewStore(), fleetkey.Config{
		Issuer:    "https://id.example.com",
		Audience:  []string{"https://api.example.com"},
		Algorithm: "ES256",
		Logger:    slog.New(slog.DiscardHandler),
	}))
}

// A token endpoint's response (RFC 6749 section 5.1). Its expires_in is the lifetime of the
// token.
func ExampleSigner_Issue() {
	signer := newExampleSigner()
	defer signer.Close()
	ctx := context.Background()

	const lifetime = 10 * time.Minute
	access, err := signer.Issue(ctx, fleetkey.Claims{
		Subject:   "alice",
		ClientID:  "web", // required by RFC 9068
		Scope:     "orders.read",
		ExpiresAt: time.Now().Add(lifetime), // default: Config.TokenTTL from now
		Extra:     map[string]any{"tenant": "acme"},
	})
	if err != nil {
		panic(err)
	}
	answer := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(lifetime.Seconds())}

	token := must(signer.Verify(ctx, access))
	var own struct {
		Tenant string `json:"tenant"`
	}
	err = token.Decode(&own)
	fmt.Println(token.Subject(), token.ClientID(), token.Audience(), token.HasScope("orders.read"), own.Tenant, err, answer["expires_in"])
	// Output: alice web [https://api.example.com] true acme <nil> 600
}

func ExampleSigner_Verify() {
	signer := newExampleSigner()
	defer signer.Close()

	raw := must(signer.Issue(context.Background(), fleetkey.Claims{
		Subject: "alice", ClientID: "web", IssuedAt: time.Now().Add(-time.Hour), ExpiresAt: time.Now().Add(-time.Minute * 30),
	}))
	token, err := signer.Verify(context.Background(), raw)
	fmt.Println(token == nil, errors.Is(err, fleetkey.ErrExpired), errors.Is(err, jwt.ErrTokenExpired)) // of golang-jwt
	// Output: true true true
}

// An ID token (OpenID Connect Core 1.0 section 2) is for a client. It is not an access token.
func ExampleSigner_Sign() {
	signer := newExampleSigner()
	defer signer.Close()
	ctx := context.Background()

	idToken, err := signer.Sign(ctx, "JWT", map[string]any{
		"iss": "https://id.example.com", "sub": "alice", "aud": "web",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"nonce": "n-0S6_WzA2Mj", // from the authentication request
	})
	if err != nil {
		panic(err)
	}
	_, err = signer.Verify(ctx, idToken)
	fmt.Println(err)
	// Output: fleetkey: token is not an access token: typ is not at+jwt
}

func ExampleSigner_Require() {
	signer := newExampleSigner()
	defer signer.Close()

	api := signer.Require("orders.read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := fleetkey.FromContext(r.Context())
		fmt.Fprintln(w, "hello,", token.Subject())
	}))

	raw := must(signer.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "orders.read"}))
	for _, authorization := range []string{"Bearer " + raw, "Bearer nonsense"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"), strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200  hello, alice
	// 401 Bearer error="invalid_token", error_description="the token is invalid" Unauthorized
}

// One document serves OpenID Connect and OAuth 2.0 clients.
func ExampleSigner_Discovery() {
	signer := newExampleSigner()
	defer signer.Close()

	mux := http.NewServeMux()
	discovery := signer.Discovery(map[string]any{
		"token_endpoint":        "https://id.example.com/token",
		"grant_types_supported": []string{"client_credentials"},
	})
	mux.Handle(fleetkey.JWKSPath, signer.JWKS())
	mux.Handle(fleetkey.DiscoveryPath, discovery)
	mux.Handle(fleetkey.OAuthDiscoveryPath, discovery)

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", fleetkey.OAuthDiscoveryPath, nil))
	fmt.Println(strings.ReplaceAll(w.Body.String(), ",", "\n"))
	// Output:
	// {"grant_types_supported":["client_credentials"]
	// "id_token_signing_alg_values_supported":["ES256"
	// "RS256"]
	// "issuer":"https://id.example.com"
	// "jwks_uri":"https://id.example.com/.well-known/jwks.json"
	// "subject_types_supported":["public"]
	// "token_endpoint":"https://id.example.com/token"}
}

// Code that parses tokens with golang-jwt can continue to do so.
func ExampleSigner_Keyfunc() {
	signer := newExampleSigner()
	defer signer.Close()

	raw := must(signer.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web"}))
	token, err := jwt.Parse(raw, signer.Keyfunc,
		jwt.WithValidMethods([]string{"RS256", "ES256"}),
		jwt.WithIssuer("https://id.example.com"),
		jwt.WithAudience("https://api.example.com"),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding())
	fmt.Println(token.Valid, err)
	// Output: true <nil>
}
