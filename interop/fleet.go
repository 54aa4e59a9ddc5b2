package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
)

const (
	subject  = "alice"
	audience = "https://api.example.com"
	tokenTTL = time.Hour
)

// A fleet is two instances of an OpenID server on one store. One issues the tokens and
// changes the keys, and the other answers the clients, so that every key that a client gets
// has gone through the store.
//
// Rotation follows the fleet's clock, which can jump ahead by days. Clients check tokens by
// the real time, so tokens have real times: see issue.
type fleet struct {
	issuer, algorithm string
	dir               string // for files that clients read
	plain, secure     *httptest.Server
	issuing           *fleetkey.Signer
	publishing        *fleetkey.Signer
	ahead             atomic.Int64 // of the real time, as a time.Duration
	unreachable       atomic.Bool  // clients get 503 for the JWKS
}

// newFleet starts a fleet that serves by http and https, on this machine.
func newFleet(ctx context.Context, algorithm string) *fleet {
	mux := http.NewServeMux()
	f := &fleet{algorithm: algorithm, dir: must(os.MkdirTemp("", "interop-")), plain: httptest.NewServer(mux), secure: httptest.NewTLSServer(mux)}
	f.issuer = f.plain.URL
	cfg := fleetkey.Config{
		Issuer: f.issuer, Audience: []string{audience}, Algorithm: algorithm, TokenTTL: tokenTTL,
		Logger: slog.New(slog.DiscardHandler),
	}
	ctx = clock.With(ctx, clock.Wall(func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }))
	store := fleetkeytest.NewStore()
	f.issuing = must(fleetkey.NewSigner(ctx, store, cfg))
	f.publishing = must(fleetkey.NewSigner(ctx, store.Open(), cfg))

	mux.Handle(fleetkey.DiscoveryPath, f.publishing.Discovery(nil))
	jwks := f.publishing.JWKS()
	mux.HandleFunc(fleetkey.JWKSPath, func(w http.ResponseWriter, r *http.Request) {
		if f.unreachable.Load() {
			http.Error(w, "the test plays dead", http.StatusServiceUnavailable)
			return
		}
		jwks.ServeHTTP(w, r)
	})
	return f
}

func (f *fleet) close() {
	f.plain.Close()
	f.secure.Close()
	check(f.issuing.Close())
	check(f.publishing.Close())
	check(os.RemoveAll(f.dir))
}

// variables returns a client's environment variables.
func (f *fleet) variables(c *client, dir string) map[string]string {
	vars := map[string]string{"NAME": c.name, "PORT": freePort(), "ISSUER": f.issuer, "ISSUER_PORT": must(url.Parse(f.issuer)).Port(),
		"JWKS_URI": f.issuer + fleetkey.JWKSPath, "AUDIENCE": audience, "ALGORITHM": f.algorithm}
	if c.https {
		vars["JWKS_URI"] = f.secure.URL + fleetkey.JWKSPath
		vars["NODE_EXTRA_CA_CERTS"] = filepath.Join(dir, "authority.pem")
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.secure.Certificate().Raw})
		check(os.WriteFile(vars["NODE_EXTRA_CA_CERTS"], certificate, 0o600))
	}
	return vars
}

// keyFiles writes the current public keys, as fleetkey export --public-key does.
func (f *fleet) keyFiles(dir string) (files []string) {
	for _, k := range f.publishing.PublicKeys() {
		files = append(files, filepath.Join(dir, k.KeyID+".pem"))
		block := &pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(k.Key))}
		check(os.WriteFile(files[len(files)-1], pem.EncodeToMemory(block), 0o600))
	}
	return files
}

// issue returns a token signed with the current signing key, and the key's ID.
func (f *fleet) issue(ctx context.Context) (token, kid string) {
	now := time.Now() // the real time, see fleet
	token = must(f.issuing.Issue(ctx, fleetkey.Claims{Subject: subject, ClientID: "web", IssuedAt: now, ExpiresAt: now.Add(tokenTTL)}))
	return token, f.issuing.SigningKey().KeyID
}

// sign returns a token that differs from those of issue in typ and some claims.
func (f *fleet) sign(ctx context.Context, typ string, change map[string]any) string {
	now := time.Now()
	claims := map[string]any{"iss": f.issuer, "sub": subject, "aud": audience, "client_id": "web", "jti": "1",
		"iat": now.Unix(), "exp": now.Add(tokenTTL).Unix()}
	maps.Copy(claims, change)
	return must(f.issuing.Sign(ctx, typ, claims))
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

// breakSignature changes one bit in the middle of a token's signature.
func breakSignature(token string) string {
	dot := strings.LastIndexByte(token, '.') + 1
	signature := must(base64.RawURLEncoding.DecodeString(token[dot:]))
	signature[len(signature)/2] ^= 1
	return token[:dot] + base64.RawURLEncoding.EncodeToString(signature)
}
