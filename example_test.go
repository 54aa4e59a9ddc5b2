package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func ExampleNewSigner() {
	dir, err := os.MkdirTemp("", "fleetkey")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	// Every instance of the fleet does this, with the same path or secret.
	store := fleetkey.NewFileStore(filepath.Join(dir, "keys", "bundle.pem"))
	signer, err := fleetkey.NewSigner(context.Background(), store, fleetkey.Config{
		Issuer: "https://op.example.com",
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	defer signer.Close()

	fmt.Println(signer.SigningKey().Algorithm, signer.SigningKey().Certificate.Subject)
	// Output: RS256 CN=https://op.example.com
}

// On a machine with a role, the name is enough.
func ExampleNewAWSStore() {
	ctx := context.Background()
	store, err := fleetkey.NewAWSStore(ctx, "indicium/openid-server-production")
	if err != nil {
		log.Fatal(err)
	}
	log.Print("keys are in ", store)
}

// A client of one's own, here with another profile, and a customer managed key.
func ExampleNewAWSStore_options() {
	ctx := context.Background()
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithSharedConfigProfile("keys"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := fleetkey.NewAWSStore(ctx, "indicium/openid-server-production", func(o *fleetkey.AWSOptions) {
		o.Client = secretsmanager.NewFromConfig(cfg)
		o.KMSKeyID = "alias/openid-server"
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Print("keys are in ", store)
}

// newExampleSigner saves the other examples from the same lines.
func newExampleSigner() *fleetkey.Signer {
	signer, err := fleetkey.NewSigner(context.Background(), fleetkeytest.NewStore(), fleetkey.Config{
		Issuer:    "https://op.example.com",
		Audience:  []string{"https://api.example.com"},
		Algorithm: "ES256",
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	return signer
}

func ExampleSigner_Issue() {
	signer := newExampleSigner()
	defer signer.Close()

	raw, err := signer.Issue(context.Background(), fleetkey.Claims{
		Subject:  "alice",
		ClientID: "web",
		Scope:    "read write",
		Extra:    map[string]any{"tenant": "acme"},
	})
	if err != nil {
		panic(err)
	}

	token, err := signer.Verify(context.Background(), raw)
	if err != nil {
		panic(err)
	}
	var own struct {
		Tenant string `json:"tenant"`
	}
	if err := token.Decode(&own); err != nil {
		panic(err)
	}
	fmt.Println(token.Subject(), token.Audience(), token.HasScope("write"), own.Tenant)
	fmt.Println(token.ExpiresAt().Sub(token.IssuedAt()))
	// Output:
	// alice [https://api.example.com] true acme
	// 1h0m0s
}

func ExampleSigner_Verify() {
	signer := newExampleSigner()
	defer signer.Close()

	raw, err := signer.Issue(context.Background(), fleetkey.Claims{
		Subject: "alice", ClientID: "web",
		IssuedAt:  time.Now().Add(-time.Hour),
		ExpiresAt: time.Now().Add(-time.Minute * 30),
	})
	if err != nil {
		panic(err)
	}
	token, err := signer.Verify(context.Background(), raw)
	fmt.Println(token == nil)
	fmt.Println(errors.Is(err, fleetkey.ErrExpired))
	fmt.Println(errors.Is(err, jwt.ErrTokenExpired)) // golang-jwt's error matches as well
	// Output:
	// true
	// true
	// true
}

func ExampleSigner_Sign() {
	signer := newExampleSigner()
	defer signer.Close()

	idToken, err := signer.Sign(context.Background(), "JWT", map[string]any{
		"iss": "https://op.example.com", "sub": "alice", "aud": "web",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"nonce": "n-0S6_WzA2Mj",
	})
	if err != nil {
		panic(err)
	}
	_, err = signer.Verify(context.Background(), idToken)
	fmt.Println(strings.Count(idToken, "."), "dots; as an access token:", err)
	// Output: 2 dots; as an access token: fleetkey: token is not an access token: its typ is not at+jwt
}

func ExampleSigner_Require() {
	signer := newExampleSigner()
	defer signer.Close()

	api := signer.Require("read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := fleetkey.FromContext(r.Context())
		fmt.Fprintln(w, "hello,", token.Subject())
	}))

	raw, err := signer.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "read"})
	if err != nil {
		panic(err)
	}
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

func ExampleSigner_JWKS() {
	signer := newExampleSigner()
	defer signer.Close()

	mux := http.NewServeMux()
	mux.Handle(fleetkey.JWKSPath, signer.JWKS())
	mux.Handle(fleetkey.DiscoveryPath, signer.Discovery(map[string]any{
		"token_endpoint": "https://op.example.com/token",
	}))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", fleetkey.JWKSPath, nil))
	fmt.Println(w.Code, w.Header().Get("Cache-Control"))
	fmt.Println(strings.Contains(w.Body.String(), signer.SigningKey().KeyID))
	// Output:
	// 200 public, max-age=900
	// true
}

// Code that parses with golang-jwt continues to do so.
func ExampleSigner_Keyfunc() {
	signer := newExampleSigner()
	defer signer.Close()

	raw, err := signer.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
	if err != nil {
		panic(err)
	}
	token, err := jwt.Parse(raw, signer.Keyfunc,
		jwt.WithValidMethods([]string{"RS256", "ES256"}),
		jwt.WithIssuer("https://op.example.com"),
		jwt.WithAudience("https://api.example.com"),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding())
	if err != nil {
		panic(err)
	}
	subject, err := token.Claims.GetSubject()
	fmt.Println(token.Valid, subject, err)
	// Output: true alice <nil>
}
