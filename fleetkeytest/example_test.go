package fleetkeytest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A service verifies the tokens of an issuer. Its test needs two lines: one makes the
// issuer, and one a token.
func ExampleNewIssuer() {
	// newService stands for the constructor of the service under test.
	newService := func(t *testing.T, cfg fleetkey.VerifierConfig) http.Handler {
		cfg.Audience = []string{"https://api.example.com"}
		verifier, err := fleetkey.NewVerifier(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = verifier.Close() })
		return verifier.Require("orders.read")(http.NotFoundHandler())
	}

	_ = func(t *testing.T) { // as TestService in orders_test.go
		issuer := fleetkeytest.NewIssuer(t)
		token := issuer.Token(fleetkey.Claims{ClientID: "web", Scope: "orders.read", Audience: []string{"https://api.example.com"}})

		service := newService(t, fleetkey.VerifierConfig{Issuer: issuer.URL, HTTPClient: issuer.HTTPClient})
		r := httptest.NewRequest("GET", "/orders/1", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound { // it was let through
			t.Error(w.Code, w.Header())
		}
	}
}
