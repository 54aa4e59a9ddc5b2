package main

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
)

const (
	subject  = "alice"
	audience = "https://api.example.com"
	tokenTTL = 10 * time.Minute
)

// A fleet is two instances of an OpenID server on one store. One issues the tokens and
// changes the keys, the other answers the clients, so that whatever a client accepts
// has gone through the store.
//
// Keys take turns by the fleet's clock, which can be set ahead by days at once.
// Clients judge tokens by the true time, so tokens carry that: see issue.
type fleet struct {
	issuer      string
	issuing     *fleetkey.Signer
	publishing  *fleetkey.Signer
	ahead       atomic.Int64 // of the true time, as a time.Duration
	unreachable atomic.Bool  // clients get 503 for the JWKS
}

// newFleet starts a fleet, and adds what clients ask of it to the mux, under the path
// of the issuer's URL.
func newFleet(ctx context.Context, url, path, algorithm string, mux *http.ServeMux) *fleet {
	f := &fleet{issuer: url + path}
	cfg := fleetkey.Config{
		Issuer: f.issuer, Audience: []string{audience}, Algorithm: algorithm, TokenTTL: tokenTTL,
		Logger: slog.New(slog.DiscardHandler),
	}
	ctx = clock.With(ctx, clock.Wall(func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }))
	store := fleetkeytest.NewStore()
	f.issuing = must(fleetkey.NewSigner(ctx, store, cfg))
	f.publishing = must(fleetkey.NewSigner(ctx, store.Open(), cfg))

	mux.Handle(path+fleetkey.DiscoveryPath, f.publishing.Discovery(nil))
	jwks := f.publishing.JWKS()
	mux.HandleFunc(path+fleetkey.JWKSPath, func(w http.ResponseWriter, r *http.Request) {
		if f.unreachable.Load() {
			http.Error(w, "the test plays dead", http.StatusServiceUnavailable)
			return
		}
		jwks.ServeHTTP(w, r)
	})
	return f
}

func (f *fleet) close() {
	check(f.issuing.Close())
	check(f.publishing.Close())
}

// issue returns a token by the key that signs now, and the key's id.
func (f *fleet) issue(ctx context.Context) (token, kid string) {
	now := time.Now() // the true one, see fleet
	token = must(f.issuing.Issue(ctx, fleetkey.Claims{Subject: subject, ClientID: "web", IssuedAt: now, ExpiresAt: now.Add(tokenTTL)}))
	return token, f.issuing.SigningKey().KeyID
}

// advance sets the fleet's clock ahead.
func (f *fleet) advance(ctx context.Context, d time.Duration) {
	f.ahead.Add(int64(d))
	f.refresh(ctx)
}

// refresh does what each instance does every few minutes.
func (f *fleet) refresh(ctx context.Context) {
	check(f.issuing.Refresh(ctx))
	check(f.publishing.Refresh(ctx))
}

// published returns the kids that clients get, the newest first.
func (f *fleet) published() (kids []string) {
	for _, k := range f.publishing.PublicKeys() {
		kids = append(kids, k.KeyID)
	}
	return kids
}
