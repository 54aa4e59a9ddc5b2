package unittest

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

// Three tests that an application can copy: who gets in, time passing, and the
// key store failing. None touches a disk or a network, and none waits.

var config = fleetkey.Config{Issuer: "https://app.example", TokenTTL: 10 * time.Minute}

// get calls the application with a token; "" is no token.
func get(app http.Handler, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/notes", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
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
	signer := fleetkeytest.NewSigner(t, config)
	app := Notes(signer)
	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"may read":      {issue(t, signer, "profile notes.read"), http.StatusOK},
		"may not read":  {issue(t, signer, "profile"), http.StatusForbidden},
		"no token":      {"", http.StatusUnauthorized},
		"not a token":   {"x", http.StatusUnauthorized},
		"changed token": {issue(t, signer, "notes.read") + "A", http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			w := get(app, c.token)
			if w.Code != c.code {
				t.Errorf("status %d, want %d; %s", w.Code, c.code, w.Header().Get("WWW-Authenticate"))
			}
			if want := "notes of alice: buy milk\n"; c.code == http.StatusOK && w.Body.String() != want {
				t.Errorf("body %q, want %q", w.Body, want)
			}
		})
	}
}

// TestExpiry sleeps in virtual time: inside the bubble the clock jumps as soon
// as everyone waits for it.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer := fleetkeytest.NewSigner(t, config)
		app := Notes(signer)
		token := issue(t, signer, "notes.read")

		time.Sleep(config.TokenTTL)
		if w := get(app, token); w.Code != http.StatusOK {
			t.Errorf("status %d within the leeway for clocks that disagree, want 200", w.Code)
		}
		time.Sleep(time.Minute) // the default of Config.ClockSkew
		w := get(app, token)
		if challenge := w.Header().Get("WWW-Authenticate"); w.Code != http.StatusUnauthorized ||
			challenge != `Bearer error="invalid_token", error_description="the token is expired"` {
			t.Errorf("status %d, %s; want 401 and the reason", w.Code, challenge)
		}
	})
}

// TestStoreOutage takes the store away for a day: the application must not
// notice, and operators must.
func TestStoreOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		signer, err := fleetkey.NewSigner(t.Context(), store, fleetkey.Config{
			Issuer:    config.Issuer,
			Algorithm: "ES256",                       // its keys are made faster than RSA's
			Logger:    slog.New(slog.DiscardHandler), // which would report every failure
		})
		if err != nil {
			t.Fatal(err)
		}
		defer signer.Close()
		app := Notes(signer)

		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault {
			return fleetkeytest.Fault{Err: fleetkey.ErrUnavailable}
		})
		time.Sleep(24 * time.Hour)
		if w := get(app, issue(t, signer, "notes.read")); w.Code != http.StatusOK {
			t.Errorf("status %d during the outage, want 200", w.Code)
		}
		if status := signer.Status(); status.LoadErr == nil || status.Failures == 0 {
			t.Errorf("the status does not show the outage: %+v", status)
		}

		store.SetHook(nil)
		time.Sleep(6 * time.Minute) // over Config.RefreshEvery, 5 minutes by default
		if status := signer.Status(); status.LoadErr != nil {
			t.Errorf("the status still shows an outage: %v", status.LoadErr)
		}
	})
}
