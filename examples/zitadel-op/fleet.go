package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/fleetkey/fleetkey"
)

const (
	loginPath = "/login"
	fleetSize = 2
)

// A fleet is two instances behind one URL, which is the issuer. They share a key
// store, a database, and the secret by which zitadel/oidc encrypts codes.
type fleet struct {
	issuer    string
	instances [fleetSize]*instance
	front     *http.Server
	chosen    atomic.Int32 // the instance that answers; more than any: all in turn
	turn      atomic.Int32
}

type instance struct {
	signer *fleetkey.Signer
	http.Handler
}

// startFleet starts the instances. open opens the store for one of them.
func startFleet(ctx context.Context, open func() fleetkey.KeyStore) (*fleet, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &fleet{issuer: "http://" + l.Addr().String()}
	f.front = &http.Server{Handler: http.HandlerFunc(f.route), ReadHeaderTimeout: 10 * time.Second}
	db := newDatabase()
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	for i := range f.instances {
		signer, err := fleetkey.NewSigner(ctx, open(), quick(f.issuer))
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		f.instances[i] = &instance{signer: signer}
		if f.instances[i].Handler, err = newServer(f.issuer, newStorage(signer, db), secret); err != nil {
			return nil, errors.Join(fmt.Errorf("instance %d: %w", i+1, err), f.close())
		}
	}
	f.balance()
	go func() { _ = f.front.Serve(l) }() // until close
	return f, nil
}

// quick lets a rotation take seconds instead of a day, to be watched. Leave all
// but the Issuer and the Logger to fleetkey's defaults.
func quick(issuer string) fleetkey.Config {
	return fleetkey.Config{
		Issuer:       issuer,
		Logger:       slog.New(slog.DiscardHandler),
		RefreshEvery: time.Second,
		JWKSMaxAge:   time.Second,
		ClockSkew:    100 * time.Millisecond,
		Rotation:     fleetkey.Rotation{Announce: 4 * time.Second},
	}
}

func (f *fleet) close() error {
	errs := []error{f.front.Close()}
	for _, i := range f.instances {
		if i != nil {
			errs = append(errs, i.signer.Close())
		}
	}
	return errors.Join(errs...)
}

// choose lets one instance answer everything, and balance all in turn.
func (f *fleet) choose(instance int) { f.chosen.Store(int32(instance)) }
func (f *fleet) balance()            { f.chosen.Store(fleetSize) }

func (f *fleet) route(w http.ResponseWriter, r *http.Request) {
	i := f.chosen.Load()
	if i == fleetSize {
		i = f.turn.Add(1) % fleetSize
	}
	f.instances[i].ServeHTTP(w, r)
}

// newServer puts zitadel/oidc together.
func newServer(issuer string, s *storage, secret [32]byte) (http.Handler, error) {
	provider, err := op.NewProvider(&op.Config{CryptoKey: secret, CodeMethodS256: true}, s, op.StaticIssuer(issuer),
		op.WithAllowInsecure(), // plain http on the loopback interface
		op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	callback := op.NewIssuerInterceptor(provider.IssuerFromRequest)
	mux.Handle(loginPath, callback.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A real server asks who it is.
		id := r.FormValue("id")
		s.login(id, user)
		http.Redirect(w, r, op.AuthCallbackURL(provider)(r.Context(), id), http.StatusFound)
	}))
	return mux, nil
}
