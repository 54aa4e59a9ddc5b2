package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
)

// This file is the server side: per algorithm a fleet of two instances on one
// store. One issues the tokens and changes the keys, the other answers the
// clients, so that whatever a client accepts has gone through the store.

const (
	subject  = "alice"
	audience = "https://api.example.com"
	tokenTTL = 10 * time.Minute
)

// A fleet is two instances of an OpenID server, with a clock of their own.
//
// Keys take turns by the fleet's clock, which can be set ahead by days at once.
// Clients judge tokens by the true time, so tokens carry that: see issue.
type fleet struct {
	issuer     string
	issuing    *fleetkey.Signer
	publishing *fleetkey.Signer

	ahead       atomic.Int64 // of the true time, as a time.Duration
	unreachable atomic.Bool  // clients get 503 for the JWKS
	fetches     atomic.Int64 // of the JWKS
}

func newFleet(ctx context.Context, issuer, algorithm string) (*fleet, error) {
	f := &fleet{issuer: issuer}
	cfg := fleetkey.Config{
		Issuer: issuer, Audience: []string{audience}, Algorithm: algorithm, TokenTTL: tokenTTL,
		Logger: slog.New(slog.DiscardHandler),
	}
	ctx = clock.With(ctx, clock.Wall(func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }))
	store := fleetkeytest.NewStore()
	var err error
	if f.issuing, err = fleetkey.NewSigner(ctx, store, cfg); err != nil {
		return nil, err
	}
	if f.publishing, err = fleetkey.NewSigner(ctx, store.Open(), cfg); err != nil {
		return nil, errors.Join(err, f.issuing.Close())
	}
	return f, nil
}

func (f *fleet) close() error { return errors.Join(f.issuing.Close(), f.publishing.Close()) }

// serve adds what clients ask of an issuer whose URL has a path.
func (f *fleet) serve(mux *http.ServeMux, path string) {
	mux.Handle(path+fleetkey.DiscoveryPath, f.publishing.Discovery(nil))
	jwks := f.publishing.JWKS()
	mux.HandleFunc(path+fleetkey.JWKSPath, func(w http.ResponseWriter, r *http.Request) {
		f.fetches.Add(1)
		if f.unreachable.Load() {
			http.Error(w, "the test plays dead", http.StatusServiceUnavailable)
			return
		}
		jwks.ServeHTTP(w, r)
	})
}

// issue returns a token by the key that signs now, and the key's id.
func (f *fleet) issue(ctx context.Context) (token, kid string, err error) {
	now := time.Now() // the true one, see fleet
	token, err = f.issuing.Issue(ctx, fleetkey.Claims{Subject: subject, ClientID: "web", IssuedAt: now, ExpiresAt: now.Add(tokenTTL)})
	return token, f.issuing.SigningKey().KeyID, err
}

// advance sets the fleet's clock ahead, and lets both instances notice.
func (f *fleet) advance(ctx context.Context, d time.Duration) error {
	f.ahead.Add(int64(d))
	return f.refresh(ctx)
}

// refresh does what each instance does every few minutes.
func (f *fleet) refresh(ctx context.Context) error {
	return errors.Join(f.issuing.Refresh(ctx), f.publishing.Refresh(ctx))
}

func (f *fleet) rotate(ctx context.Context) error {
	return errors.Join(f.issuing.Rotate(ctx), f.refresh(ctx))
}

func (f *fleet) revoke(ctx context.Context, kid string) error {
	return errors.Join(f.issuing.Revoke(ctx, kid), f.refresh(ctx))
}

// published returns the kids of the JWKS that clients get, the newest first.
func (f *fleet) published() ([]string, error) {
	w := httptest.NewRecorder()
	f.publishing.JWKS().ServeHTTP(w, httptest.NewRequest(http.MethodGet, fleetkey.JWKSPath, nil))
	var document struct{ Keys []struct{ Kid string } }
	if err := json.Unmarshal(w.Body.Bytes(), &document); err != nil {
		return nil, fmt.Errorf("the JWKS: status %d: %w", w.Code, err)
	}
	var kids []string
	for _, k := range document.Keys {
		kids = append(kids, k.Kid)
	}
	return kids, nil
}
