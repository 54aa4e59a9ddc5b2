package load

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// L4: clients fetch the key sets of a fleet while keys reload and rotate. Each finds
// the key of every token that was issued before, and one key set for each ETag.
func TestLoad_L4_JWKSDuringReloads(t *testing.T) {
	const clients = 8
	synctest.Test(t, func(t *testing.T) {
		cfg := testkit.Config()
		cfg.MaxTokenTTL = 20 * time.Minute
		cfg.Rotation = fleetkey.Rotation{Every: 2 * time.Hour, Announce: time.Hour, Retain: time.Hour}
		store := fleetkeytest.NewStore()
		fleet := []*fleetkey.Signer{testkit.Start(t, store, cfg), testkit.Start(t, store.Open(), cfg)}
		var etags, bodies [clients]string
		var byTag sync.Map // ETag: the answer that it was first seen with
		signed := map[string]bool{}
		for begin := time.Now(); time.Since(begin) < 16*time.Hour; time.Sleep(3 * time.Minute) {
			kid := testkit.KeyID(testkit.Issue(t, fleet[0]))
			signed[kid] = true
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() {
					r, w := httptest.NewRequest("GET", fleetkey.JWKSPath, nil), httptest.NewRecorder()
					r.Header.Set("If-None-Match", etags[i])
					fleet[i%2].JWKS().ServeHTTP(w, r)
					if etag := w.Header().Get("ETag"); etag == etags[i] {
						assert.Equal(t, http.StatusNotModified, w.Code)
						assert.Empty(t, w.Body.String())
					} else {
						assert.Equal(t, http.StatusOK, w.Code)
						etags[i], bodies[i] = etag, w.Body.String()
					}
					first, _ := byTag.LoadOrStore(etags[i], bodies[i])
					assert.Equal(t, first, bodies[i], "two key sets under one ETag")
					assert.Contains(t, bodies[i], kid, "the key of a token is not published")
				})
			}
			content, _ := store.Content()
			store.Set(content) // another version of the same keys
			for _, s := range fleet {
				wg.Go(func() { assert.NoError(t, s.Refresh(t.Context())) })
			}
			wg.Wait()
		}
		require.GreaterOrEqual(t, len(signed), 7, "it has rotated")
		tags := 0
		byTag.Range(func(any, any) bool { tags++; return true })
		require.LessOrEqual(t, tags, 3*len(signed), "an ETag changes with the keys only: one comes, signs, and another goes")
	})
}
