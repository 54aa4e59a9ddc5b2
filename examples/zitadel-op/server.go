package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/fleetkey/fleetkey"
)

const (
	issuer    = "http://id.example.com" // https in a real server
	loginPath = "/login"
)

// cryptoKey encrypts codes. It is the same in all instances, and in a real server
// part of the configuration.
var cryptoKey = [32]byte([]byte(rand.Text() + rand.Text())[:32])

// A server is one instance.
type server struct {
	signer *fleetkey.Signer
	http.Handler
}

func newServer(ctx context.Context, store fleetkey.KeyStore, db *database) (*server, error) {
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{Issuer: issuer, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	s := &storage{keys: keys{signer}, database: db}
	provider, err := op.NewProvider(&op.Config{CryptoKey: cryptoKey, CodeMethodS256: true}, s, op.StaticIssuer(issuer),
		op.WithAllowInsecure(), // for an issuer that is not https
		op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, errors.Join(err, signer.Close())
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
	return &server{signer, mux}, nil
}

// client returns a client whose requests this instance answers, without a network.
func (s *server) client() *http.Client { return &http.Client{Transport: s} }

// RoundTrip answers a client's request.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}
