package load

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// jwks asks for a key set unless the client has it. The set is nil if it does.
func jwks(t *testing.T, s *fleetkey.Signer, ifNoneMatch string) (etag string, set *jose.JSONWebKeySet) {
	r, w := httptest.NewRequest("GET", fleetkey.JWKSPath, nil), httptest.NewRecorder()
	r.Header.Set("If-None-Match", ifNoneMatch)
	s.JWKS().ServeHTTP(w, r)
	etag = w.Header().Get("ETag")
	if w.Code == http.StatusNotModified {
		assert.Equal(t, ifNoneMatch, etag)
		assert.Empty(t, w.Body.Bytes())
		return etag, nil
	}
	assert.Equal(t, http.StatusOK, w.Code)
	assert.NotEqual(t, ifNoneMatch, etag, "sent again, although the client has it")
	assert.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
	return etag, set
}

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
		var etags [clients]string
		var sets [clients]*jose.JSONWebKeySet
		var byTag sync.Map // ETag: the key set that it was first seen with
		signed := map[string]bool{}
		for begin := time.Now(); time.Since(begin) < 16*time.Hour; time.Sleep(3 * time.Minute) {
			verified, err := fleet[0].Verify(t.Context(), testkit.Issue(t, fleet[0]))
			require.NoError(t, err)
			signed[verified.KeyID()] = true
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() {
					etag, set := jwks(t, fleet[i%2], etags[i])
					if etags[i] = etag; set != nil {
						first, _ := byTag.LoadOrStore(etag, set)
						assert.Equal(t, first, set, "two key sets under one ETag")
						sets[i] = set
					}
					assert.Len(t, sets[i].Key(verified.KeyID()), 1, "the key of a token is not published")
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
		require.InDelta(t, 2*len(signed), tags, 4, "an ETag changes with the keys only")
	})
}
