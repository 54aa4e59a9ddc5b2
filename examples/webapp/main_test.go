package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// Three tests that an application can copy: access, expiry, and an outage of the key store.
// They use no disk and no network, and do not wait.

// get calls the application with a token, or without one if it is "".
func get(signer *fleetkey.Signer, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/hello", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	routes(signer).ServeHTTP(w, r)
	return w
}

func issue(t *testing.T, signer *fleetkey.Signer, scope string) string {
	t.Helper()
	token, err := signer.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: scope})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestWhoGetsIn(t *testing.T) {
	signer, other := fleetkeytest.NewSigner(t, fleetkey.Config{}), fleetkeytest.NewSigner(t, fleetkey.Config{})
	for name, c := range map[string]struct {
		token string
		code  int
		body  string
	}{
		"may":              {issue(t, signer, "profile greet"), http.StatusOK, "hello, alice\n"},
		"another instance": {issue(t, other, "greet"), http.StatusOK, "hello, alice\n"},
		"may not":          {issue(t, signer, "profile"), http.StatusForbidden, "Forbidden\n"},
		"no token":         {"", http.StatusUnauthorized, "Unauthorized\n"},
		"changed token":    {issue(t, signer, "greet") + "A", http.StatusUnauthorized, "Unauthorized\n"},
	} {
		if w := get(signer, c.token); w.Code != c.code || w.Body.String() != c.body {
			t.Errorf("%s: status %d, body %q", name, w.Code, w.Body)
		}
	}
}

// TestExpiry sleeps in virtual time: in the bubble, the clock jumps as soon as all goroutines
// wait for it.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer := fleetkeytest.NewSigner(t, fleetkey.Config{TokenTTL: 10 * time.Minute})
		token := issue(t, signer, "greet")

		time.Sleep(10 * time.Minute)
		if w := get(signer, token); w.Code != http.StatusOK {
			t.Errorf("status %d within the leeway for clocks that disagree, want 200", w.Code)
		}
		time.Sleep(time.Minute) // the default of Config.ClockSkew
		w := get(signer, token)
		if challenge := w.Header().Get("WWW-Authenticate"); w.Code != http.StatusUnauthorized ||
			challenge != `Bearer error="invalid_token", error_description="the token is expired"` {
			t.Errorf("status %d, %s; want 401 and the reason", w.Code, challenge)
		}
	})
}

// TestStoreOutage makes the store fail for a day: the application must not notice, and
// operators must.
func TestStoreOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		signer, err := fleetkey.NewSigner(t.Context(), store, fleetkey.Config{
			Issuer:    "https://webapp.example",
			Algorithm: "ES256",                       // its keys are generated faster than RSA keys
			Logger:    slog.New(slog.DiscardHandler), // the default would report the outage
		})
		if err != nil {
			t.Fatal(err)
		}
		defer signer.Close()

		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault {
			return fleetkeytest.Fault{Err: fleetkey.ErrUnavailable}
		})
		time.Sleep(24 * time.Hour)
		if w := get(signer, issue(t, signer, "greet")); w.Code != http.StatusOK {
			t.Errorf("status %d during the outage, want 200", w.Code)
		}
		if status := signer.Status(); status.LoadErr == nil || status.Failures == 0 {
			t.Errorf("the status does not show the outage: %+v", status)
		}

		store.SetHook(nil)
		time.Sleep(6 * time.Minute) // longer than Config.RefreshEvery, 5 minutes by default
		if status := signer.Status(); status.LoadErr != nil {
			t.Errorf("the status still shows an outage: %v", status.LoadErr)
		}
	})
}
