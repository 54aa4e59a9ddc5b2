// Package load tests what load does to a fleet's answers, to its store and to its
// memory: rows L2 to L5, L7 and L8 of the list of faults. L1 is package
// tests/simulation. How long things take is measured by bench/.
//
// In the short form a flood has a hundred tokens a second, keys reload 160
// times, and the soak lasts three days of virtual time. In the long form
// (FLEETKEY_LONG=1) these are thousands, a thousand, and 120 days.
package load

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

func b64[T string | []byte](data T) string { return base64.RawURLEncoding.EncodeToString([]byte(data)) }

// invented returns a well-formed token whose key nobody has. Its kid is size bytes
// long and different for every n.
func invented(n, size int) string {
	header := fmt.Sprintf(`{"alg":"ES256","kid":"%0*d","typ":"at+jwt"}`, size, n)
	return b64(header) + "." + b64(payload()) + "." + b64(make([]byte, 64))
}

// payload returns the claims of a good token. Changes are pairs of a name and a raw
// JSON value.
func payload(changes ...string) string {
	now := time.Now().Unix()
	claims := map[string]any{"iss": testkit.Issuer, "aud": testkit.Issuer, "sub": "mallory", "iat": now, "exp": now + 60}
	for i := 0; i < len(changes); i += 2 {
		claims[changes[i]] = json.RawMessage(changes[i+1])
	}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// header returns the header of a good token by a key.
func header(k fleetkey.SigningKey) string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"at+jwt"}`, k.Algorithm, k.KeyID)
}

// sign signs any payload, as a thief of the key can.
func sign(k fleetkey.SigningKey, payload string) string {
	signed := b64(header(k)) + "." + b64(payload)
	signature, err := jwt.GetSigningMethod(k.Algorithm).Sign(signed, k.Signer)
	if err != nil {
		panic(err)
	}
	return signed + "." + b64(signature)
}

// atOnce requires that every instance accepts a token without waiting for the store.
func atOnce(t *testing.T, token string, fleet ...*fleetkey.Signer) {
	t.Helper()
	now := time.Now()
	testkit.Accepts(t, token, fleet...)
	require.Equal(t, now, time.Now(), "it waited")
}

// liveHeap returns what is in use after a garbage collection.
func liveHeap() (bytes, objects int) {
	for range 3 { // the first moves what is in pools, the second frees it
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), int(m.HeapObjects)
}

// L2: one minute of unknown kids, some of 100 kB, costs a few reads of the store and
// no memory, and delays no honest token. L3: in that minute an announced key begins to
// sign, and is accepted at once. Later the key is revoked and replaced by a fresh one.
// The flood has used up the read of the store, but every instance finds the key at the
// next one.
func TestLoad_L2_L3_UnknownKidFlood(t *testing.T) {
	perSecond := testkit.Long(150, 5_000)
	const begins, revoked, found = 15, 33, 44 // seconds of the flood
	synctest.Test(t, func(t *testing.T) {
		cell, cfg := fleetkeytest.NewStore(), testkit.Config()
		cfg.RefreshEvery = 10 * time.Hour // never in that minute
		operator := testkit.Start(t, cell.Open(), cfg)
		require.NoError(t, operator.Rotate(t.Context()))
		var fleet []*fleetkey.Signer
		var loads [3][]time.Time // of each instance, one at a time
		for i := range loads {
			store := cell.Open()
			fleet = append(fleet, testkit.Start(t, store, cfg))
			store.SetHook(func(fleetkeytest.Call) (f fleetkeytest.Fault) {
				loads[i] = append(loads[i], time.Now())
				return f
			})
		}
		time.Sleep(time.Until(operator.Status().NextActivation) - begins*time.Second)
		clear(loads[:])
		honest, signed := testkit.Issue(t, operator), map[string]bool{}
		before, _ := liveHeap()
		for second := range 60 {
			lost := revoked < second && second < found
			for i := range perSecond {
				size, want := 43, fleetkey.ErrUnknownKey
				if i%100 == 0 {
					size, want = 100_000, fleetkey.ErrMalformed
				}
				testkit.Refuses(t, want, invented(second*perSecond+i, size), fleet[i%3])
				if i%50 == 0 && !lost {
					atOnce(t, honest, fleet[i%3])
				}
			}
			if second == revoked {
				require.NoError(t, operator.Revoke(t.Context(), operator.SigningKey().KeyID))
				honest = testkit.Issue(t, operator)
				testkit.Refuses(t, fleetkey.ErrUnknownKey, honest, fleet...)
			} else if !lost {
				atOnce(t, testkit.Issue(t, operator), fleet...) // not in a cache yet
			}
			signed[operator.SigningKey().KeyID] = true
			time.Sleep(time.Second)
		}
		require.Len(t, signed, 3)
		after, _ := liveHeap()
		require.Less(t, after-before, 512<<10, "bytes that the flood has left behind")
		for _, times := range loads {
			require.InDelta(t, 6, len(times), 1, "reads of the store in a minute")
			for j, at := range times[1:] {
				require.GreaterOrEqual(t, at.Sub(times[j]), 10*time.Second)
			}
		}
	})
}

// L4 and L5: clients fetch the key sets of a fleet and users sign and verify, while keys
// reload and rotate. Each key set has the key of every token that was issued before, and
// each ETag stands for one. Every good token is accepted and every forgery refused, during a
// reload too, and Close leaves no goroutine.
func TestLoad_L4_L5_UseDuringReloads(t *testing.T) {
	const clients = 8
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		cfg := testkit.Config()
		cfg.MaxTokenTTL = 20 * time.Minute
		cfg.Rotation = fleetkey.Rotation{Every: 2 * time.Hour, Announce: time.Hour, Retain: time.Hour}
		store := fleetkeytest.NewStore()
		fleet := []*fleetkey.Signer{testkit.Start(t, store, cfg), testkit.Start(t, store.Open(), cfg)}
		var etags, bodies [clients]string
		var byTag sync.Map // ETag: the answer that it was first seen with
		fetch := func(client int, kid string) {
			r, w := httptest.NewRequest("GET", fleetkey.JWKSPath, nil), httptest.NewRecorder()
			r.Header.Set("If-None-Match", etags[client])
			fleet[client%2].JWKS().ServeHTTP(w, r)
			if etag := w.Header().Get("ETag"); etag == etags[client] {
				assert.Equal(t, http.StatusNotModified, w.Code)
				assert.Empty(t, w.Body.String())
			} else {
				assert.Equal(t, http.StatusOK, w.Code)
				etags[client], bodies[client] = etag, w.Body.String()
			}
			first, _ := byTag.LoadOrStore(etags[client], bodies[client])
			assert.Equal(t, first, bodies[client], "two key sets under one ETag")
			assert.Contains(t, bodies[client], kid, "the key of a token is not published")
		}
		use := func(s *fleetkey.Signer, subject string) {
			token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: subject, ClientID: "web"})
			assert.NoError(t, err)
			_, err = s.Verify(t.Context(), token[:strings.LastIndexByte(token, '.')+1]+b64(make([]byte, 64)))
			assert.ErrorIs(t, err, fleetkey.ErrBadSignature)
			for range 2 { // the second time it is remembered
				verified, err := s.Verify(t.Context(), token)
				if assert.NoError(t, err) {
					assert.Equal(t, subject, verified.Subject())
				}
			}
		}
		signed := map[string]bool{}
		for round := range testkit.Long(160, 1000) {
			kid := testkit.KeyID(testkit.Issue(t, fleet[0]))
			signed[kid] = true
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() { fetch(i, kid); use(fleet[i%2], fmt.Sprint(round, "/", i)) })
			}
			content, _ := store.Content()
			store.Set(content) // another version of the same keys
			for _, s := range fleet {
				wg.Go(func() { assert.NoError(t, s.Refresh(t.Context())) })
			}
			wg.Wait()
			time.Sleep(6 * time.Minute)
		}
		require.GreaterOrEqual(t, len(signed), 7, "it has rotated")
		tags := 0
		byTag.Range(func(any, any) bool { tags++; return true })
		require.LessOrEqual(t, tags, 3*len(signed), "an ETag changes with the keys only: one comes, signs, and another goes")
	})
}
