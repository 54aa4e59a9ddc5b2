package fleetkeytest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/fleetkey/fleetkey"
)

// An Issuer is an OpenID issuer for tests of services that verify tokens. It serves
// discovery and JWKS from memory, without a socket, so it works in testing/synctest. All
// methods are safe for concurrent use.
type Issuer struct {
	URL        string           // issuer identifier
	HTTPClient *http.Client     // for [fleetkey.VerifierConfig]; without Loopback it reaches only the Issuer
	Signer     *fleetkey.Signer // signs its tokens; Rotate and Revoke change what it serves

	t    testing.TB
	base *url.URL // URL without the slash at its end
}

// IssuerOptions configures [NewIssuer].
type IssuerOptions struct {
	// Config configures the Signer. Default: as in [NewSigner].
	Config fleetkey.Config
	// Loopback serves the Issuer on a loopback port, for programs that cannot use its
	// HTTPClient. Config.Issuer is then ignored. Default: false.
	Loopback bool
}

// NewIssuer returns an issuer that is closed at the end of the test. Its key is the
// published test key of [NewSigner] for IssuerOptions.Config.Algorithm. There is one such
// key for each algorithm, so give issuers different algorithms if they need different keys.
// Use Signer.Sign for tokens that Token cannot sign, such as ID
// tokens and those of systems that do not follow RFC 9068.
func NewIssuer(t testing.TB, options ...func(*IssuerOptions)) *Issuer {
	t.Helper()
	var o IssuerOptions
	for _, option := range options {
		option(&o)
	}
	i := &Issuer{t: t}
	if o.Loopback {
		server := httptest.NewServer(http.HandlerFunc(i.serve))
		t.Cleanup(server.Close)
		i.HTTPClient, o.Config.Issuer = server.Client(), server.URL
	} else {
		i.HTTPClient = &http.Client{Transport: inProcess{i}}
	}
	i.URL = cmp.Or(o.Config.Issuer, defaultIssuer)
	i.Signer = NewSigner(t, o.Config)
	var err error
	if i.base, err = url.Parse(strings.TrimSuffix(i.URL, "/")); err != nil {
		t.Fatalf("fleetkeytest: %v", err)
	}
	return i
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case i.base.Path + fleetkey.DiscoveryPath:
		i.Signer.Discovery(nil).ServeHTTP(w, r)
	case i.base.Path + fleetkey.JWKSPath:
		i.Signer.JWKS().ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

// Token returns a token signed by the issuer. It fails the test on an error.
func (i *Issuer) Token(claims fleetkey.Claims) string {
	i.t.Helper()
	token, err := i.Signer.Issue(i.t.Context(), claims)
	if err != nil {
		i.t.Fatalf("fleetkeytest: %v", err)
	}
	return token
}

// inProcess answers the requests to an Issuer without a network.
type inProcess struct{ issuer *Issuer }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if u := p.issuer.base; r.URL.Scheme != u.Scheme || r.URL.Host != u.Host {
		return nil, fmt.Errorf("fleetkeytest: this client reaches only the issuer %q", p.issuer.URL)
	}
	recorder := httptest.NewRecorder()
	p.issuer.serve(recorder, r)
	response := recorder.Result()
	response.Request = r
	return response, nil
}
