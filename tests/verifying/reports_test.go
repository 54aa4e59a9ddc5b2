package verifying

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// In this file, the issuer misbehaves as users of other libraries have reported.
// The tests name the reports.

// accepts and refuses require a Verifier's verdict on a token.
func accepts(t *testing.T, v *fleetkey.Verifier, token string, args ...any) {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err, args...)
}

func refuses(t *testing.T, want error, v *fleetkey.Verifier, token string, args ...any) {
	t.Helper()
	got, err := v.Verify(t.Context(), token)
	require.ErrorIs(t, err, want, args...)
	require.Nil(t, got)
}

// fetches returns how often the JWKS was requested.
func fetches(p *testkit.Provider) int { return len(p.Requests(testkit.JWKSURL)) }

// TestRequestsDuringOneFetch (jwkset#26, cosmo#2216, spring-security#19643, camunda#60434):
// hundreds of requests share one fetch, and tokens of known keys do not wait.
func TestRequestsDuringOneFetch(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v, added := p.Verifier(t), testkit.NewForger("ES256")
		time.Sleep(10 * time.Second)
		p.Serve(testkit.JWKSURL, testkit.Slowly(2*time.Second, testkit.Page(testkit.JWKS(key.JWK(), added.JWK()))))
		begin := time.Now()
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				_, err := v.Verify(t.Context(), testkit.AccessToken(added))
				assert.NoError(t, err)
				assert.Equal(t, 2*time.Second, time.Since(begin))
			})
			wg.Go(func() {
				_, err := v.Verify(t.Context(), testkit.AccessToken(key))
				assert.NoError(t, err)
				assert.Equal(t, begin, time.Now())
			})
		}
		wg.Wait()
		require.Equal(t, 2, fetches(p))
	})
}

// TestMadeUpKids (go-oidc#482, tilegroxy#883, Engram#1641): a flood from anywhere causes at
// most six fetches a minute, does not exhaust the budget for longer, and never delays the
// tokens of known keys. No request waits for the cooldown.
func TestMadeUpKids(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v, stranger := p.Verifier(t), testkit.NewForger("ES256")
		flood := func(d time.Duration) {
			for begin := time.Now(); time.Since(begin) < d; time.Sleep(100 * time.Millisecond) {
				now := time.Now()
				stranger.KID = fmt.Sprint(now.UnixNano())
				refuses(t, fleetkey.ErrUnknownKey, v, testkit.AccessToken(stranger))
				accepts(t, v, testkit.AccessToken(key))
				require.Equal(t, now, time.Now())
			}
		}
		flood(time.Minute)
		require.LessOrEqual(t, fetches(p), 1+6)
		require.GreaterOrEqual(t, fetches(p), 1+5)
		require.NotZero(t, v.Status().Counters.SuppressedLoads)

		added := testkit.NewForger("ES256")
		p.Publish(key.JWK(), added.JWK())
		flood(10 * time.Second)
		accepts(t, v, testkit.AccessToken(added), "the flood itself causes the fetch of the key")
	})
}

// TestNoFetchFor (IdentityModel#2774, go-oidc#482): a token that no key could make good, or
// that a known key has not signed, causes no fetch.
func TestNoFetchFor(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		strict, legacy := p.Verifier(t), p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Legacy = true })
		f := testkit.NewForger("ES256") // unknown
		good := testkit.AccessToken(f)
		parts := strings.Split(good, ".")
		header := func(changes ...string) string {
			return jwstest.B64(f.Header(changes...)) + "." + parts[1] + "." + parts[2]
		}
		stolen := testkit.NewForger("ES256")
		stolen.KID = key.KID
		tokens := []string{
			"x.y", parts[0] + "." + parts[1], good + ".a.b", good + "=", parts[0] + "." + jwstest.B64("<html>") + ".AAAA",
			testkit.AccessToken(stolen), strings.TrimSuffix(testkit.AccessToken(key), "A") + "!",
			jwstest.B64(key.Header("alg", `"RS256"`)) + "." + parts[1] + "." + parts[2],
		}
		for _, changes := range [][]string{
			{"typ", `"id_token+jwt"`}, {"typ", `"logout+jwt"`}, {"alg", `"none"`}, {"alg", `"HS256"`}, {"alg", `"ES512"`},
			{"kid", ""}, {"kid", `"` + strings.Repeat("k", 129) + `"`}, {"crit", `["exp"]`}, {"jku", `"https://evil.example"`},
		} {
			tokens = append(tokens, header(changes...))
		}
		for _, changes := range [][]string{
			{"iss", `"https://issuer.example/"`}, {"iss", ""}, {"Sub", `"x"`}, {"exp", jwstest.Unix(time.Since(jwstest.Noon) - time.Hour)}, {"exp", ""},
		} {
			tokens = append(tokens, testkit.AccessToken(f, changes...))
		}
		time.Sleep(10 * time.Second)
		before := fetches(p)
		for _, token := range tokens {
			for _, v := range []*fleetkey.Verifier{strict, legacy} {
				_, err := v.Verify(t.Context(), token)
				require.Error(t, err, token)
				require.NotErrorIs(t, err, fleetkey.ErrUnavailable, token)
				require.Equal(t, before, fetches(p), token)
			}
		}
		refuses(t, fleetkey.ErrUnknownKey, strict, header("typ", `"JWT"`))
		require.Equal(t, before, fetches(p), "typ JWT is accepted only with Legacy")
		refuses(t, fleetkey.ErrUnknownKey, legacy, header("typ", `"JWT"`))
		require.Equal(t, before+1, fetches(p))
		refuses(t, fleetkey.ErrUnknownKey, strict, good)
		require.Equal(t, before+2, fetches(p))
	})
}

// TestFirstTokenOfANewKey (IdentityModel#3008, kubernetes#139769): it is accepted regardless
// of the issuer's cache headers, even if its ETag never changes.
func TestFirstTokenOfANewKey(t *testing.T) {
	for name, serve := range map[string]func(string) http.HandlerFunc{
		"plain":             func(jwks string) http.HandlerFunc { return testkit.Page(jwks) },
		"max-age of a year": func(jwks string) http.HandlerFunc { return testkit.Page(jwks, "Cache-Control", "max-age=31536000") },
		"a constant ETag":   func(jwks string) http.HandlerFunc { return testkit.Page(jwks, "ETag", `"1"`) },
		"304 whatever is asked": func(jwks string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"1"`)
				if r.Header.Get("If-None-Match") != "" {
					w.WriteHeader(http.StatusNotModified)
					return
				}
				testkit.Page(jwks)(w, r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
				p.Serve(testkit.JWKSURL, serve(jwks))
				v, added := p.Verifier(t), testkit.NewForger("EdDSA")
				time.Sleep(13 * time.Minute)
				p.Serve(testkit.JWKSURL, serve(testkit.JWKS(key.JWK(), added.JWK())))
				time.Sleep(10 * time.Second)
				accepts(t, v, testkit.AccessToken(added))
				accepts(t, v, testkit.AccessToken(key))
			})
		})
	}
}

// TestOutage (pyjwt#1162, istio#58101, node-jwks-rsa#385, jwx#1551): a failing issuer takes away
// no working key, even for days, longer than any TTL. Once it recovers, it is used again.
func TestOutage(t *testing.T) {
	for name, failure := range map[string]http.HandlerFunc{
		"500": testkit.Answer(500, ""), "HTML": testkit.Page("<html>"), "an empty set": testkit.Page(`{"keys":[]}`),
		"only odd keys": testkit.Page(`{"keys":[{"kty":"oct","kid":"o","k":"AAAA"}]}`), "truncated": testkit.Truncated(`{"keys":[]}`),
		"it hangs": testkit.Slowly(24*time.Hour, nil), "it redirects": testkit.Answer(302, "https://evil.example"),
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
				v, added := p.Verifier(t), testkit.NewForger("ES256")
				p.Serve(testkit.JWKSURL, failure)
				time.Sleep(3 * testkit.Day)
				accepts(t, v, testkit.AccessToken(key))
				refuses(t, fleetkey.ErrUnavailable, v, testkit.AccessToken(added), "nobody knows")
				require.Positive(t, v.Status().Failures)
				p.Publish(key.JWK(), added.JWK())
				time.Sleep(70 * time.Second)
				accepts(t, v, testkit.AccessToken(added))
				require.Zero(t, v.Status().Failures)
			})
		})
	}
}

// TestRemovedKey (spring-security#5853, CVE-2025-22149): a key is rejected as soon as a
// fetch lacks it, even for cached tokens, and even if its kid now names another key. The
// cache survives a fetch that brings the same keys.
func TestRemovedKey(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v, other := p.Verifier(t), testkit.NewForger("ES256")
		token := testkit.AccessToken(key)
		accepts(t, v, token)
		p.Publish(`{"kty":"oct","kid":"o","k":"AAAA"}`, key.JWK("note", "1"))
		require.NoError(t, v.Refresh(t.Context()))
		accepts(t, v, token)
		require.EqualValues(t, 1, v.Status().Counters.CacheHits)
		p.Publish(other.JWK())
		require.NoError(t, v.Refresh(t.Context()))
		refuses(t, fleetkey.ErrUnknownKey, v, token)
		p.Publish(key.JWK())
		require.NoError(t, v.Refresh(t.Context()))
		accepts(t, v, token, "and it may come back")
		other.KID = key.KID
		p.Publish(other.JWK())
		require.NoError(t, v.Refresh(t.Context()))
		refuses(t, fleetkey.ErrBadSignature, v, token)
		accepts(t, v, testkit.AccessToken(other))
	})
}

// TestOddKeysSpoilNothing (fastmcp#4517, joserfc#104, jwx#2274): unknown and weak keys in a
// set do not affect the others, and an Ed25519 key works under either name of its algorithm.
func TestOddKeysSpoilNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, e, ed, twin := testkit.NewForger("RS256"), testkit.NewForger("ES256"), testkit.NewForger("EdDSA"), testkit.NewForger("ES256")
		first := testkit.NewForger("ES256")
		first.KID = twin.KID
		p := testkit.NewProvider(`{"kty":"oct","kid":"o","k":"AAAA"}`, `{"kty":"AKP","alg":"ML-DSA-65","kid":"pq","pub":"AAAA"}`, `null`, twin.JWK(), first.JWK(),
			r.JWK("kid", `"weak"`, "n", `"`+strings.Repeat("_", 170)+`"`), ed.JWK("alg", `"Ed25519"`), e.JWK("x5c", "7"), r.JWK("alg", ""), testkit.NewForger("ES512").JWK())
		v := p.Verifier(t)
		for _, f := range []*jwstest.Forger{r, e, ed} {
			accepts(t, v, testkit.AccessToken(f))
		}
		now := time.Now()
		named := ed.Forge(ed.Header("alg", `"Ed25519"`), jwstest.Payload("iat", jwstest.Unix(now.Sub(jwstest.Noon)), "exp", jwstest.Unix(now.Add(time.Hour).Sub(jwstest.Noon))))
		accepts(t, v, named, "RFC 9864")
		for range 2 {
			accepts(t, v, named)
		}
		for _, f := range []*jwstest.Forger{twin, first} {
			refuses(t, fleetkey.ErrUnknownKey, v, testkit.AccessToken(f), "it is unclear which of the two keys is meant")
		}
		require.Equal(t, map[string]int{"private": 1, "unsupported": 3, "ambiguous": 2, "weak": 1}, v.Status().SkippedKeys)
		require.Len(t, v.Status().Keys, 3)
		require.Len(t, v.PublicKeys(), 3)
	})
}

// TestFirstFetchFails (istio#42202, jwx#2342, mobula#28): NewVerifier returns within 10
// seconds, or when its context ends, which limits nothing else. It tries again after 1, 2
// and 4 seconds, and accepts tokens as soon as it has the keys.
func TestFirstFetchFails(t *testing.T) {
	for name, test := range map[string]struct {
		failure               http.HandlerFunc
		fetch, context, start time.Duration // a fetch, the context's timeout, and the start
	}{
		"500":                       {testkit.Answer(500, ""), 0, time.Hour, 0},
		"it hangs":                  {testkit.Slowly(time.Hour, nil), 10 * time.Second, time.Hour, 10 * time.Second},
		"it hangs, with a deadline": {testkit.Slowly(time.Hour, nil), 10 * time.Second, time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
				p.Serve(testkit.JWKSURL, test.failure)
				ctx, cancel := context.WithTimeout(t.Context(), test.context)
				defer cancel()
				begin := time.Now()
				v, err := fleetkey.NewVerifier(ctx, p.Config())
				require.NoError(t, err)
				defer v.Close()
				require.Equal(t, test.start, time.Since(begin))
				require.Equal(t, test.start > 0, errors.Is(v.Status().LoadErr, context.DeadlineExceeded))
				refuses(t, fleetkey.ErrUnavailable, v, testkit.AccessToken(key))
				time.Sleep(time.Minute)
				requests := p.Requests(testkit.JWKSURL)
				// The fetch for an unknown kid can come first, so the first wait may be shorter.
				for i, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
					require.LessOrEqual(t, requests[i+1].At.Sub(requests[i].At), most+test.fetch)
				}
				p.Publish(key.JWK())
				time.Sleep(time.Minute + 10*time.Second)
				accepts(t, v, testkit.AccessToken(key))
			})
		})
	}
}
