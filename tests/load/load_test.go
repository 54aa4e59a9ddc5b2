// Package load tests what load does to a fleet's answers, to its store and to its
// memory: rows L2 to L8 of the list of faults. L1, a fleet under faults for hours,
// is a case of package tests/simulation. How long things take is measured by
// bench/.
//
// In the short form a flood has a hundred tokens a second, keys reload a few hundred
// times, and the soak lasts three days of virtual time. In the long form
// (FLEETKEY_LONG=1) these are thousands, a thousand, and 120 days.
package load

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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

// TestMain starts Go's random generator outside of any synctest bubble: in FIPS 140
// mode it needs a clock that jitters.
func TestMain(m *testing.M) {
	rand.Text()
	os.Exit(m.Run())
}

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

// foreign returns the bundle of another fleet.
func foreign(t *testing.T) []byte {
	store := fleetkeytest.NewStore()
	testkit.Start(t, store, testkit.Config())
	bundle, _ := store.Content()
	return bundle
}

// atOnce requires that every instance accepts a token without waiting for the store.
func atOnce(t *testing.T, token string, fleet ...*fleetkey.Signer) {
	t.Helper()
	now := time.Now()
	testkit.Accepts(t, token, fleet...)
	require.Equal(t, now, time.Now(), "it waited")
}

// A loadLog notes when an instance reads its store.
type loadLog struct {
	mu    sync.Mutex
	times []time.Time
}

func (l *loadLog) hook(c fleetkeytest.Call) (f fleetkeytest.Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, time.Now())
	return f
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
		var logs [3]loadLog
		for i := range logs {
			store := cell.Open()
			fleet = append(fleet, testkit.Start(t, store, cfg))
			store.SetHook(logs[i].hook)
		}
		time.Sleep(time.Until(operator.Status().NextActivation) - begins*time.Second)
		for i := range logs {
			logs[i].times = nil
		}
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
		for i := range logs {
			require.InDelta(t, 6, len(logs[i].times), 1, "reads of the store in a minute")
			for j, at := range logs[i].times[1:] {
				require.GreaterOrEqual(t, at.Sub(logs[i].times[j]), 10*time.Second)
			}
		}
	})
}

// L2, while the store hangs: a limited number of Verify calls wait for it, so memory
// is bounded, and calls with known keys never wait.
func TestLoad_L2_UnknownKidFloodWhileTheStoreHangs(t *testing.T) {
	const flood, mayWait = 5_000, 1_000
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		honest, goroutines := testkit.Issue(t, s), runtime.NumGoroutine()
		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Delay: time.Hour} })
		var refused atomic.Int64
		var wg sync.WaitGroup
		pour := func(from, to int) {
			for i := from; i < to; i++ {
				wg.Go(func() {
					_, err := s.Verify(t.Context(), invented(i, 43))
					assert.ErrorIs(t, err, fleetkey.ErrUnknownKey)
					refused.Add(1)
				})
			}
			synctest.Wait()
			atOnce(t, honest, s)
			atOnce(t, testkit.Issue(t, s), s)
		}
		pour(0, 10)
		require.Zero(t, refused.Load(), "they wait")
		pour(10, flood)
		require.EqualValues(t, flood-mayWait, refused.Load(), "refused at once")
		require.LessOrEqual(t, runtime.NumGoroutine()-goroutines, mayWait+10)
		wg.Wait()
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+10)

		store.SetHook(nil)
		store.Set(foreign(t))
		time.Sleep(10 * time.Second)
		other := testkit.Start(t, store.Open(), testkit.Config())
		testkit.Accepts(t, testkit.Issue(t, other), s) // it looks for keys as before
	})
}

// useOnce issues a token, and verifies it and a forgery of it. The second time it is
// remembered.
func useOnce(t *testing.T, s *fleetkey.Signer, subject string) bool {
	token, err := s.Issue(context.Background(), fleetkey.Claims{Subject: subject, ClientID: "web"})
	if !assert.NoError(t, err) {
		return false
	}
	i, other := strings.LastIndexByte(token, '.')+8, "A"
	if token[i:i+1] == other {
		other = "B"
	}
	_, err = s.Verify(context.Background(), token[:i]+other+token[i+1:])
	ok := assert.ErrorIs(t, err, fleetkey.ErrBadSignature)
	for range 2 {
		verified, err := s.Verify(context.Background(), token)
		ok = ok && assert.NoError(t, err) && assert.Equal(t, subject, verified.Subject())
	}
	return ok
}

// L5: 64 users while keys reload. Every good token is accepted and every forgery
// refused, during a reload too, and Close leaves no goroutine.
func TestLoad_L5_UseDuringReloads(t *testing.T) {
	reloads := testkit.Long(300, 1_000)
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		own, _ := store.Content()
		bundles := [][]byte{foreign(t), own, foreign(t)}
		var done atomic.Bool
		var checked atomic.Int64
		var wg sync.WaitGroup
		for worker := range 64 {
			wg.Go(func() {
				for i := 0; !done.Load() && useOnce(t, s, fmt.Sprint(worker, "/", i)); i++ {
					checked.Add(1)
					runtime.Gosched() // as a server does between requests
				}
			})
		}
		for i := range reloads {
			store.Set(bundles[i%len(bundles)])
			require.NoError(t, s.Refresh(t.Context()))
		}
		done.Store(true)
		wg.Wait()
		require.Greater(t, checked.Load(), int64(64))
	})
}

// L6: a stolen key is revoked, or an operator removes it from the bundle by hand. Each
// instance drops it at its next poll, together with the tokens that it remembers.
func TestLoad_L6_StolenKeyIsGoneAfterAPoll(t *testing.T) {
	for _, revoked := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := fleetkeytest.NewStore()
			var fleet []*fleetkey.Signer
			for range 10 {
				fleet = append(fleet, testkit.Start(t, store.Open(), testkit.Config()))
			}
			stolen := fleet[0].SigningKey()
			require.NoError(t, fleet[0].Rotate(t.Context()))
			time.Sleep(testkit.Day - time.Minute)
			remembered := testkit.Issue(t, fleet[0])
			testkit.Accepts(t, remembered, fleet...)
			time.Sleep(11 * time.Minute)
			require.NotEqual(t, stolen.KeyID, fleet[0].SigningKey().KeyID)
			testkit.Accepts(t, sign(stolen, payload()), fleet...) // replaced, but trusted
			if bundle, _ := store.Content(); revoked {
				require.NoError(t, fleet[0].Revoke(t.Context(), stolen.KeyID))
			} else { // the newest key comes first
				store.Set(bundle[:strings.LastIndex(string(bundle), "-----BEGIN PRIVATE KEY-----")])
			}
			time.Sleep(5*time.Minute + 30*time.Second) // RefreshEvery, and the time of a load
			for _, s := range fleet {
				_, set := jwks(t, s, "")
				require.Empty(t, set.Key(stolen.KeyID))
				require.Len(t, s.PublicKeys(), 1, "the set is replaced")
			}
			testkit.Refuses(t, fleetkey.ErrUnknownKey, remembered, fleet...)
			testkit.Refuses(t, fleetkey.ErrUnknownKey, sign(stolen, payload()), fleet...)
			testkit.Accepts(t, testkit.Issue(t, fleet[1]), fleet...)
		})
	}
}
