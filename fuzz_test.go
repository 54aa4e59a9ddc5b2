package fleetkey_test

import (
	"crypto"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// The fuzz targets compare with readers written by others. That of key sets is here,
// those of other input are in fuzz_input_test.go; FuzzSettings is beside the tests of
// what it reads. Run one with: go test -fuzz FuzzJWKS -fuzztime 60s

// fixedParty has the same key in every process, so that a token that one has
// found is signed for all.
func fixedParty(t testing.TB) *party {
	t.Helper()
	bundle, err := os.ReadFile("fleetkeytest/testdata/ES256.pem")
	require.NoError(t, err)
	store := fleetkeytest.NewStore()
	store.Set(bundle)
	return openParty(t, store, testConfig())
}

// requireSameClaims: each claim that a Token gives is what golang-jwt has read.
func requireSameClaims(t *testing.T, claims jwt.MapClaims, token *fleetkey.Token) {
	t.Helper()
	sub, _ := claims.GetSubject()
	require.Equal(t, sub, token.Subject())
	iss, _ := claims.GetIssuer()
	require.Equal(t, iss, token.Issuer())
	aud, _ := claims.GetAudience()
	require.Equal(t, []string(aud), token.Audience())
	exp, _ := claims.GetExpirationTime()
	require.Equal(t, exp.Unix(), token.ExpiresAt().Unix())
	iat, _ := claims.GetIssuedAt()
	require.Equal(t, iat.Unix(), token.IssuedAt().Unix())
	text := func(name string) string { s, _ := claims[name].(string); return s }
	require.Equal(t, text("jti"), token.ID())
	require.Equal(t, text("client_id"), token.ClientID())
	scopes := strings.Split(text("scope"), " ")
	if list, ok := claims["scope"].([]any); ok { // as IdentityServer writes it
		scopes = nil
		for _, one := range list {
			scopes = append(scopes, one.(string))
		}
	}
	require.Equal(t, strings.Join(scopes, " "), token.Scope())
	for _, scope := range scopes {
		require.Equal(t, scope != "", token.HasScope(scope))
	}
}

// An entry is a certificate of a random set, with a private key if it signs.
type entry struct {
	kid        string
	begin, end time.Time
	signs      bool
}

// trustedAtNoon works out anew what the schedule means: a key is trusted to its
// end, and no longer than a day after another one took over.
func trustedAtNoon(entries []entry) (kids []string) {
	for i, e := range entries {
		trusted := noon.Before(e.end)
		for j, next := range entries {
			later := next.begin.After(e.begin) || next.begin.Equal(e.begin) && j < i
			if e.signs && next.signs && later && !noon.Before(next.begin.Add(24*time.Hour)) {
				trusted = false
			}
		}
		if trusted {
			kids = append(kids, e.kid)
		}
	}
	return kids
}

// TestTwoKeysOfOneSecond is the corpus file of FuzzJWKS by this name: where two
// keys begin in the same second, the first in the bundle signs, and the other is
// trusted until its last token has ended, and no longer.
func TestTwoKeysOfOneSecond(t *testing.T) {
	first, second := newParty(t, "ES256"), newParty(t, "ES256")
	for ago, want := range map[time.Duration][]string{
		23 * time.Hour: {first.kid, second.kid},
		24 * time.Hour: {first.kid},
		30 * time.Hour: {first.kid},
	} {
		begin := noon.Add(-ago)
		store := fleetkeytest.NewStore()
		store.Set([]byte(bundleOf(t, first.private.Public(), first.private, begin, noon.AddDate(1, 0, 0)) +
			bundleOf(t, second.private.Public(), second.private, begin, noon.AddDate(1, 0, 0))))
		s, err := fleetkey.NewSigner(at(noon), store, testConfig())
		require.NoError(t, err)
		require.Equal(t, first.kid, s.SigningKey().KeyID)
		require.ElementsMatch(t, want, servedKeyIDs(t, s), "after %v", ago)
		require.NoError(t, s.Close())
	}
}

func servedKeyIDs(t *testing.T, s *fleetkey.Signer) (kids []string) {
	t.Helper()
	var set struct {
		Keys []struct{ Kid string }
	}
	require.NoError(t, json.Unmarshal(body(t, ask(s.JWKS(), "GET")), &set))
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	return kids
}

// FuzzJWKS: whatever the set, go-jose reads exactly the keys that are trusted
// now. Each byte is a key: its kind, its private half and its dates.
func FuzzJWKS(f *testing.F) {
	var pool []*party
	for _, alg := range []string{"ES256", "EdDSA", "ES384", "ES256", "EdDSA", "ES256", "EdDSA", "ES384"} {
		pool = append(pool, newParty(f, alg))
	}
	f.Add([]byte{0})
	f.Add([]byte{0x12, 0x55, 0xff, 0x80})
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{0x90, 0x91, 0x92, 0x93})
	f.Fuzz(func(t *testing.T, keys []byte) {
		keys = keys[:min(len(keys), len(pool))]
		var entries []entry
		var bundle strings.Builder
		for i, b := range keys {
			k := pool[i]
			begin := noon.Add(time.Duration(int(b&0x1f)-16) * 6 * time.Hour)
			e := entry{k.kid, begin, begin.Add(time.Duration(b>>5&3+1) * 40 * time.Hour), b&0x80 == 0}
			private := k.private
			if !e.signs {
				private = nil
			}
			bundle.WriteString(bundleOf(t, k.private.Public(), private, e.begin, e.end))
			entries = append(entries, e)
		}
		trusted := trustedAtNoon(entries)
		store := fleetkeytest.NewStore()
		store.Set([]byte(bundle.String()))
		s, err := fleetkey.NewSigner(at(noon), store, testConfig())
		if len(keys) == 0 {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		defer s.Close()
		answer := ask(s.JWKS(), "GET")
		if len(trusted) == 0 {
			require.Equal(t, 503, answer.StatusCode)
			return
		}
		var set jose.JSONWebKeySet
		require.NoError(t, json.Unmarshal(body(t, answer), &set))
		served := map[string]bool{}
		for _, k := range set.Keys {
			require.True(t, k.Valid() && k.IsPublic())
			require.False(t, served[k.KeyID], "a kid twice")
			served[k.KeyID] = true
			i := slices.IndexFunc(pool, func(p *party) bool {
				return p.private.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Key)
			})
			require.GreaterOrEqual(t, i, 0, "a key of nobody")
			require.Equal(t, pool[i].alg, k.Algorithm)
			if slices.ContainsFunc(pool, func(p *party) bool { return p.kid == k.KeyID }) { // or another name of it
				require.Equal(t, pool[i].kid, k.KeyID)
			}
		}
		for _, e := range entries {
			require.Equal(t, slices.Contains(trusted, e.kid), served[e.kid], "%s in %x", e.kid, keys)
		}
	})
}
