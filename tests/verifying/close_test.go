package verifying

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file tests that a Verifier releases what it uses: memory, goroutines and connections.

// inUse returns the goroutines of the bubble, the caller's included, and the bytes of live
// objects.
func inUse() (goroutines, bytes int) {
	synctest.Wait()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var m runtime.MemStats
	for range 2 { // finalizers and pools
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return strings.Count(string(stacks), "synctest bubble"), int(m.HeapAlloc)
}

// nothingGrows requires that a number of rounds leave no goroutine, and less than 64 bytes
// each on the heap: the smallest leak would be larger.
func nothingGrows(t *testing.T, rounds int, round func()) {
	t.Helper()
	for range rounds / 10 {
		round()
	}
	goroutines, bytes := inUse()
	for range rounds {
		round()
	}
	after, bytesAfter := inUse()
	require.Equal(t, goroutines, after, "goroutines")
	require.Less(t, bytesAfter-bytes, 64*rounds+32<<10, "bytes on the heap")
}

// forgetful answers like the Provider, but does not remember the requests.
type forgetful struct{ *testkit.Provider }

func (f forgetful) RoundTrip(r *http.Request) (*http.Response, error) {
	defer f.Forget()
	return f.Provider.RoundTrip(r)
}

// TestNothingIsLeft (tilegroxy#964): a thousand Verifiers, with keys, without, or refused, leave nothing.
func TestNothingIsLeft(t *testing.T) {
	for name, ready := range map[string]bool{"with keys": true, "without": false, "refused": false} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
				cfg, token := p.Config(func(c *fleetkey.VerifierConfig) { c.HTTPClient = &http.Client{Transport: forgetful{p}} }), testkit.AccessToken(key)
				if !ready {
					p.Serve(testkit.JWKSURL, testkit.Answer(500, ""))
				}
				if name == "refused" {
					p.Serve(testkit.DiscoveryURL, document("https://evil.example", testkit.JWKSURL))
				}
				nothingGrows(t, 1000, func() {
					v, err := fleetkey.NewVerifier(t.Context(), cfg)
					if name == "refused" {
						require.Error(t, err)
						return
					}
					require.NoError(t, err)
					_, err = v.Verify(t.Context(), token)
					require.Equal(t, ready, err == nil)
					require.NoError(t, v.Close())
				})
			})
		})
	}
}

// TestAnOutageTakesNothing: hours of failed fetches leak nothing, with tokens of known and unknown keys.
func TestAnOutageTakesNothing(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) {
			c.HTTPClient, c.CachedTokens = &http.Client{Transport: forgetful{p}}, 16
		})
		unknown := testkit.NewForger("ES256")
		p.Serve(testkit.JWKSURL, testkit.Slowly(4*time.Second, testkit.Answer(500, "")))
		time.Sleep(10 * time.Second) // after the cooldown of the first fetch
		nothingGrows(t, 600, func() {
			time.Sleep(6 * time.Second)
			accepts(t, v, testkit.AccessToken(key))
			refuses(t, fleetkey.ErrUnavailable, v, testkit.AccessToken(unknown))
		})
		require.Greater(t, v.Status().Failures, 300)
	})
}

// TestVerifierClose: Close ends a fetch under way and prevents later ones. It can be called
// twice, and the keys and the program's connections remain.
func TestVerifierClose(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v := p.Verifier(t)
		p.Serve(testkit.JWKSURL, testkit.Slowly(time.Hour, nil))
		waiting := make(chan error)
		go func() { waiting <- v.Refresh(context.Background()) }()
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, v.Close())
		require.Error(t, <-waiting)
		require.NoError(t, v.Close())
		require.Equal(t, begin, time.Now())
		require.Error(t, v.Refresh(t.Context()))
		time.Sleep(testkit.Day)
		require.Len(t, p.Requests(testkit.JWKSURL), 2)
		_, err := v.Verify(t.Context(), testkit.AccessToken(key))
		require.NoError(t, err)
		require.NoError(t, v.Status().LoadErr, "closing is not the issuer's failure")
	})
}

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
		if r.RequestURI == behindProxy+fleetkey.DiscoveryPath { // the form of requests to a proxy
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
