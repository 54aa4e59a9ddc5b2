package verifying

import (
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

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

// forgetful answers as the Provider, and does not remember the requests.
type forgetful struct{ *testkit.Provider }

func (f forgetful) RoundTrip(r *http.Request) (*http.Response, error) {
	defer f.Forget()
	return f.Provider.RoundTrip(r)
}

// TestNothingIsLeft (tilegroxy#964) of a thousand Verifiers, whether they had keys, had none yet, or were refused.
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

// TestAnOutageTakesNothing: hours of failed fetches, with tokens of known and unknown keys.
func TestAnOutageTakesNothing(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) {
			c.HTTPClient, c.CachedTokens = &http.Client{Transport: forgetful{p}}, 16
		})
		unknown := testkit.NewForger("ES256")
		p.Serve(testkit.JWKSURL, testkit.Slowly(4*time.Second, testkit.Answer(500, "")))
		time.Sleep(10 * time.Second) // the first fetch has taken a turn
		nothingGrows(t, 600, func() {
			time.Sleep(6 * time.Second)
			accepts(t, v, testkit.AccessToken(key))
			refuses(t, fleetkey.ErrUnavailable, v, testkit.AccessToken(unknown))
		})
		require.Greater(t, v.Status().Failures, 300)
	})
}
