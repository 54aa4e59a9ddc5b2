package verifying

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
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

// TestProxyOfTheEnvironment: a service behind a proxy needs no HTTPClient. Package net/http
// reads the environment once, so the Verifier runs in another process.
func TestProxyOfTheEnvironment(t *testing.T) {
	const child = "FLEETKEY_TEST_BEHIND_PROXY"
	const issuer = "http://issuer.invalid"
	if os.Getenv(child) != "" {
		v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer, Audience: []string{jwstest.API}, InsecureHTTP: true})
		require.NoError(t, err)
		defer v.Close()
		require.NoError(t, v.Status().Err)
		return
	}
	key, agent := testkit.NewForger("ES256"), atomic.Value{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent.Store(r.UserAgent())
		switch r.RequestURI { // in the form for proxies
		case issuer + fleetkey.DiscoveryPath:
			document(issuer, issuer+"/keys")(w, r)
		case issuer + "/keys":
			testkit.Page(testkit.JWKS(key.JWK()))(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	defer proxy.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfTheEnvironment$")
	cmd.Env = append(os.Environ(), child+"=1", "HTTP_PROXY="+proxy.URL, "http_proxy="+proxy.URL, "NO_PROXY=", "no_proxy=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, agent.Load(), "fleetkey")
}
