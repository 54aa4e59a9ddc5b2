package fleetkey_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// Rows L1 to L7: what load does to answers, to the store and to memory, but not
// how long it takes. That is measured in bench/, under "Under load".

// invented returns a token in good form by a key that nobody has, whose kid is
// that of no other n and so many bytes long.
func invented(n, size int) string {
	number := fmt.Sprint(n)
	header := `{"alg":"ES256","kid":"` + strings.Repeat("x", size-len(number)) + number + `","typ":"at+jwt"}`
	return b64(header) + "." + b64(payload()) + "." + b64(make([]byte, 64))
}

// liveHeap returns the bytes in use after a garbage collection.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // what pools kept goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A loadLog notes when an instance reads its store.
type loadLog struct {
	mu    sync.Mutex
	times []time.Time
}

func (l *loadLog) hook(c fleetkeytest.Call) (f fleetkeytest.Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Op == fleetkeytest.OpLoad {
		l.times = append(l.times, time.Now())
	}
	return f
}

// flooded starts a fleet whose reads of the store, from now on, are all caused
// by unknown kids.
func flooded(t *testing.T, n int) (fleet []*fleetkey.Signer, logs []*loadLog) {
	cell, cfg := fleetkeytest.NewStore(), config()
	cfg.RefreshEvery = time.Hour
	for range n {
		store, log := cell.Open(), &loadLog{}
		fleet, logs = append(fleet, start(t, store, cfg)), append(logs, log)
		store.SetHook(log.hook)
	}
	return fleet, logs
}

// atOnce requires that every instance accepts a token without waiting for the
// store.
func atOnce(t *testing.T, token string, fleet ...*fleetkey.Signer) {
	t.Helper()
	now := time.Now()
	accepts(t, token, fleet...)
	require.Equal(t, now, time.Now(), "it waited")
}

// L2: a minute of made-up kids, some of 100 kB. (bench/ sends 50,000 a second.)
func TestLoad_L2_UnknownKidFlood(t *testing.T) {
	perSecond := long(150, 5_000)
	synctest.Test(t, func(t *testing.T) {
		fleet, logs := flooded(t, 3)
		before, honest := liveHeap(), issue(t, fleet[0])
		for second := range 60 {
			for i := range perSecond {
				size, want := 43, fleetkey.ErrUnknownKey
				if i%100 == 0 {
					size, want = 100_000, fleetkey.ErrMalformed
				}
				s := fleet[i%len(fleet)]
				if _, err := s.Verify(t.Context(), invented(second*perSecond+i, size)); !errors.Is(err, want) {
					t.Fatalf("a made-up kid met: %v", err)
				}
				if i%50 == 0 {
					atOnce(t, honest, s)
				}
			}
			atOnce(t, issue(t, fleet[second%len(fleet)]), fleet...) // not in a cache yet
			time.Sleep(time.Second)
		}
		assert.Less(t, liveHeap()-before, int64(512<<10), "bytes that the flood has left behind")
		for _, log := range logs {
			require.InDelta(t, 6, len(log.times), 1, "reads of the store in a minute")
			for i, at := range log.times[1:] {
				require.GreaterOrEqual(t, at.Sub(log.times[i]), 10*time.Second)
			}
		}
	})
}

// L2, while the store hangs: only so many of the flood wait for it, so that it
// takes no more memory than that, and nobody else does.
func TestLoad_L2_UnknownKidFloodWhileTheStoreHangs(t *testing.T) {
	const flood, mayWait = 5_000, 1_000
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := start(t, store, config())
		honest, goroutines := issue(t, s), runtime.NumGoroutine()
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
			atOnce(t, issue(t, s), s)
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
		store.Set(foreignBundle(t, config()))
		time.Sleep(10 * time.Second)
		accepts(t, issue(t, start(t, store.Open(), config())), s) // it can look for keys as before
	})
}

// L3: a key that was announced is known everywhere when it begins to sign, flood
// or none. (The clocks of the fleet are off by up to ClockSkew.)
func TestLoad_L3_FloodAndRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cell := fleetkeytest.NewStore()
		var fleet []*fleetkey.Signer
		for i := range 7 {
			cfg, offset := lazily(rotating()), time.Duration(i-3)*20*time.Second
			fleet = append(fleet, startBy(t, off(offset), cell.Open(), cfg))
		}
		time.Sleep(time.Until(fleet[0].Status().RotationDue) + 14*time.Hour) // all have read it
		begin := fleet[0].Status().NextActivation
		require.False(t, begin.IsZero())
		time.Sleep(time.Until(begin.Add(-80 * time.Second))) // begun on no clock yet
		signed := map[string]int{}
		for i := 0; time.Until(begin.Add(80*time.Second)) > 0; i++ {
			for _, s := range fleet {
				refuses(t, fleetkey.ErrUnknownKey, invented(i, 43), s)
			}
			token := issue(t, fleet[i%len(fleet)])
			atOnce(t, token, fleet...)
			signed[kidOf(t, token)]++
			time.Sleep(3 * time.Second)
		}
		require.Len(t, signed, 2, "it has rotated")
		for kid, n := range signed {
			require.Greater(t, n, 10, kid)
		}
	})
}

// L3, where a key signs at once because another was revoked: the flood takes the
// reads of the store that look for unknown keys, and still nobody misses the new
// key for longer than the time between two.
func TestLoad_L3_FloodAndFreshKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet, _ := flooded(t, 5)
		flood := func(i int) {
			for _, s := range fleet[1:] {
				refuses(t, fleetkey.ErrUnknownKey, invented(i, 43), s)
			}
			time.Sleep(100 * time.Millisecond)
		}
		for i := range 37 { // somewhere between two reads
			flood(i)
		}
		require.NoError(t, fleet[0].Revoke(t.Context(), fleet[0].SigningKey().KeyID))
		token, begin := issue(t, fleet[0]), time.Now()
		for _, s := range fleet[1:] {
			for i := 0; ; i++ {
				if _, err := s.Verify(t.Context(), token); err == nil {
					break
				}
				require.Less(t, time.Since(begin), 11*time.Second)
				flood(i)
			}
		}
		require.Greater(t, time.Since(begin), time.Second, "the flood had taken the read")
		atOnce(t, token, fleet...)
	})
}

// L5: 64 users while keys reload (1000 times in the long form). Every token is
// valid, or wrong for good, however the reload fares that goes on meanwhile.
func TestLoad_L5_UseDuringReloads(t *testing.T) {
	const workers = 64
	reloads := long(300, 1_000)
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		store := fleetkeytest.NewStore()
		s, err := fleetkey.NewSigner(t.Context(), store, config())
		require.NoError(t, err)
		own, _ := store.Content()
		bundles := [][]byte{foreignBundle(t, config()), own, foreignBundle(t, config())}
		var done atomic.Bool
		var checked atomic.Int64
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := 0; !done.Load(); i++ {
					if !useOnce(t, s, fmt.Sprintf("worker %d, token %d", w, i)) {
						return
					}
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
		require.NoError(t, s.Close())
		t.Logf("%d tokens during %d reloads", checked.Load(), reloads)
		require.Greater(t, checked.Load(), int64(workers))
	})
}

// useOnce issues a token and checks it, twice since the second is remembered,
// and a forgery of it.
func useOnce(t *testing.T, s *fleetkey.Signer, subject string) bool {
	token, err := s.Issue(context.Background(), fleetkey.Claims{Subject: subject})
	if !assert.NoError(t, err) {
		return false
	}
	signature := signatureOf(token)
	signature[8] ^= 1
	_, err = s.Verify(context.Background(), withSignature(token, signature))
	ok := assert.ErrorIs(t, err, fleetkey.ErrBadSignature)
	for range 2 {
		verified, err := s.Verify(context.Background(), token)
		ok = ok && assert.NoError(t, err) && assert.Equal(t, subject, verified.Subject())
	}
	return ok
}

// L6: a key that was stolen. No instance is told; each finds out by itself, at
// its next poll, and has the key in no list any more.
func TestLoad_L6_StolenKeyIsGoneAfterAPoll(t *testing.T) {
	for name, remove := range map[string]func(t *testing.T, store *fleetkeytest.Store, operator *fleetkey.Signer, kid string){
		"revoked": func(t *testing.T, _ *fleetkeytest.Store, operator *fleetkey.Signer, kid string) {
			require.NoError(t, operator.Revoke(t.Context(), kid))
		},
		"taken out of the bundle by hand": func(_ *testing.T, store *fleetkeytest.Store, operator *fleetkey.Signer, kid string) {
			for _, k := range operator.PublicKeys() {
				if k.KeyID == kid {
					store.Set(withoutKey(store, k.Certificate))
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				var fleet []*fleetkey.Signer
				for range 10 {
					fleet = append(fleet, start(t, store.Open(), config()))
				}
				victim := fleet[0].SigningKey().KeyID
				require.NoError(t, fleet[0].Rotate(t.Context()))
				time.Sleep(day - time.Minute)
				remembered := issue(t, fleet[0])
				accepts(t, remembered, fleet...) // and now it is in every cache
				time.Sleep(11 * time.Minute)
				bundle, _ := store.Content()
				thief := fleetkeytest.NewStore()
				thief.Set(bundle)
				accepts(t, signedBy(t, thief, victim), fleet...) // replaced, but trusted
				remove(t, store, fleet[0], victim)
				time.Sleep(5*time.Minute + 30*time.Second) // RefreshEvery, and a load that takes its time
				for _, s := range fleet {
					require.NotContains(t, jwks(t, s), victim)
					require.Len(t, s.PublicKeys(), 1, "the set is replaced")
				}
				refuses(t, fleetkey.ErrUnknownKey, remembered, fleet...)
				refuses(t, fleetkey.ErrUnknownKey, signedBy(t, thief, victim), fleet...)
				accepts(t, issue(t, fleet[1]), fleet...)
			})
		})
	}
}

// withoutKey returns a store's bundle without a certificate and its key.
func withoutKey(store *fleetkeytest.Store, cert *x509.Certificate) []byte {
	bundle, _ := store.Content()
	var out, private []byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type != "CERTIFICATE":
			private = pem.EncodeToMemory(block)
		case string(block.Bytes) == string(cert.Raw):
			private = nil
		default:
			out, private = append(append(out, private...), pem.EncodeToMemory(block)...), nil
		}
	}
	return out
}
