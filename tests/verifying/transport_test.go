package verifying

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestConnectionsEnd: a Verifier closes its own connections when it ends, or when its
// constructor fails, but not those of the program's client. This needs sockets.
func TestConnectionsEnd(t *testing.T) {
	for name, test := range map[string]struct {
		own, fails bool
		open       int64
	}{"its own": {own: true}, "of a failed constructor": {own: true, fails: true}, "the program's": {open: 1}} {
		t.Run(name, func(t *testing.T) {
			var open atomic.Int64
			key, mux := testkit.NewForger("ES256"), http.NewServeMux()
			server := httptest.NewUnstartedServer(mux)
			server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				switch s {
				case http.StateNew:
					open.Add(1)
				case http.StateClosed:
					open.Add(-1)
				}
			}
			server.Start()
			defer server.Close()
			issuer := server.URL
			if test.fails {
				issuer += "/other"
			}
			mux.Handle(fleetkey.DiscoveryPath, document(issuer, server.URL+"/keys"))
			mux.Handle("/keys", testkit.Page(testkit.JWKS(key.JWK())))
			cfg := testkit.NewProvider().Config(func(c *fleetkey.VerifierConfig) { c.Issuer, c.HTTPClient = server.URL, nil })
			if !test.own {
				cfg.HTTPClient = server.Client()
			}
			v, err := fleetkey.NewVerifier(t.Context(), cfg)
			require.Equal(t, test.fails, err != nil)
			if err == nil {
				require.EqualValues(t, 1, open.Load(), "both documents come over one connection")
				require.NoError(t, v.Status().Err)
				require.NoError(t, v.Close())
			}
			for deadline := time.Now().Add(10 * time.Second); open.Load() > test.open && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			require.Equal(t, test.open, open.Load())
		})
	}
}

// behindProxy is an issuer that only the proxy of the environment can reach.
const behindProxy = "http://issuer.invalid"

// TestMain starts that proxy before any test, because package net/http reads the environment
// once. Addresses of this machine need no proxy.
func TestMain(m *testing.M) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == behindProxy+fleetkey.DiscoveryPath { // the form for proxies
			document(behindProxy, behindProxy+"/keys")(w, r)
		} else {
			testkit.Page(testkit.JWKS(testkit.NewForger("ES256").JWK()))(w, r)
		}
	}))
	defer proxy.Close()
	for name, value := range map[string]string{"HTTP_PROXY": proxy.URL, "http_proxy": proxy.URL, "NO_PROXY": "", "no_proxy": ""} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	m.Run()
}

// TestProxyOfTheEnvironment: a service behind a proxy needs no HTTPClient.
func TestProxyOfTheEnvironment(t *testing.T) {
	v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: behindProxy, Audience: []string{jwstest.API}, InsecureHTTP: true})
	require.NoError(t, err)
	defer v.Close()
	require.NoError(t, v.Status().Err)
}
