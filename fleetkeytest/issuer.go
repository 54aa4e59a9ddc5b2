package fleetkeytest

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/fleetkey/fleetkey"
)

// An Issuer is an OpenID issuer for tests of services that verify tokens. It serves
// discovery and JWKS from memory, without a socket, so that it works in testing/synctest.
type Issuer struct {
	URL        string           // its issuer identifier
	HTTPClient *http.Client     // reaches the Issuer, and nothing else unless it is on loopback
	Signer     *fleetkey.Signer // signs its tokens; Rotate and Revoke change what it serves

	t testing.TB
}

// IssuerOptions change what [NewIssuer] returns.
type IssuerOptions struct {
	// Config is that of the Signer. Default: as in [NewSigner].
	Config fleetkey.Config
	// Loopback serves the Issuer on a port of this machine, for programs that cannot be
	// given its HTTPClient. Config.Issuer is then ignored. Default: false.
	Loopback bool
}

// NewIssuer returns an issuer that ends with the test. Its key is one of the published test
// keys of [NewSigner].
//
//	issuer := fleetkeytest.NewIssuer(t)
//	verifier, err := fleetkey.NewVerifier(ctx, fleetkey.VerifierConfig{
//		Issuer: issuer.URL, HTTPClient: issuer.HTTPClient, Audience: []string{"https://api.example.com"}})
//	token := issuer.Token(fleetkey.Claims{Subject: "alice", ClientID: "web", Audience: []string{"https://api.example.com"}})
func NewIssuer(t testing.TB, options ...func(*IssuerOptions)) *Issuer {
	t.Helper()
	var o IssuerOptions
	for _, option := range options {
		option(&o)
	}
	mux := http.NewServeMux()
	i := &Issuer{t: t, HTTPClient: &http.Client{Transport: inProcess{mux}}}
	if o.Loopback {
		server := httptest.NewServer(mux)
		t.Cleanup(server.Close)
		i.HTTPClient, o.Config.Issuer = server.Client(), server.URL
	}
	i.Signer = NewSigner(t, o.Config)
	i.URL = o.Config.Issuer
	if i.URL == "" {
		i.URL = defaultIssuer
	}
	mux.Handle(fleetkey.DiscoveryPath, i.Signer.Discovery(nil))
	mux.Handle(fleetkey.JWKSPath, i.Signer.JWKS())
	return i
}

// Token returns a token that the issuer has signed, and ends the test if it cannot.
func (i *Issuer) Token(claims fleetkey.Claims) string {
	i.t.Helper()
	token, err := i.Signer.Issue(i.t.Context(), claims)
	if err != nil {
		i.t.Fatalf("fleetkeytest: %v", err)
	}
	return token
}

// inProcess answers requests by a handler.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	recorder := httptest.NewRecorder()
	p.ServeHTTP(recorder, r)
	response := recorder.Result()
	response.Request = r
	return response, nil
}
