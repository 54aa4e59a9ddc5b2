package fleetkeytest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A test of a service that verifies tokens needs two lines: one makes an issuer, the other a
// token.
func ExampleNewIssuer() {
	_ = func(t *testing.T) { // as TestService in orders_test.go
		issuer := fleetkeytest.NewIssuer(t)
		token := issuer.Token(fleetkey.Claims{ClientID: "web", Scope: "orders.read", Audience: []string{"https://api.example.com"}})

		verifier, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{ // in the service
			Issuer: issuer.URL, HTTPClient: issuer.HTTPClient, Audience: []string{"https://api.example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		defer verifier.Close()
		service := verifier.Require("orders.read")(http.NotFoundHandler())

		r := httptest.NewRequest("GET", "/orders/1", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound { // the answer of the handler behind Require
			t.Error(w.Code, w.Header())
		}
	}
}

// A test of a program that issues tokens. The signer has a fixed key, so none is generated.
func ExampleNewSigner() {
	_ = func(t *testing.T) { // as TestLogin in login_test.go
		signer := fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: "https://id.example.com"})
		token, err := signer.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
}

// A running server continues during an outage of the store.
func ExampleStore_SetHook() {
	ctx, store := context.Background(), fleetkeytest.NewStore()
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer: "https://id.example.com", Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer signer.Close()

	store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault {
		return fleetkeytest.Fault{Err: fleetkey.ErrUnavailable}
	})
	fmt.Println(errors.Is(signer.Refresh(ctx), fleetkey.ErrUnavailable))
	_, err = signer.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web"})
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// A test of your own store looks like this one of FileStore.
func ExampleTestKeyStore() {
	_ = func(t *testing.T) { // as TestFileStore in filestore_test.go
		fleetkeytest.TestKeyStore(t, func(t *testing.T) func() fleetkey.KeyStore {
			path := filepath.Join(t.TempDir(), "keys.pem") // a new store for each call, still empty
			return func() fleetkey.KeyStore { return fleetkey.NewFileStore(path) }
		})
	}
}
