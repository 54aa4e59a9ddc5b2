package trust_test

import (
	"crypto"
	"crypto/fips140"
	"crypto/x509"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// withDates returns a key under another certificate, without its private half unless it
// signs.
func withDates(t *testing.T, k *keyset.Key, begin, end time.Time, signs bool) *keyset.Key {
	t.Helper()
	dated := &keyset.Key{Alg: k.Alg, Private: k.Private, Cert: &x509.Certificate{NotBefore: begin}}
	cert, err := keysettest.Maker{}.Again(dated, end, nil)
	require.NoError(t, err)
	private := k.Private
	if !signs {
		private = nil
	}
	made, err := keyset.NewKey(cert, private)
	require.NoError(t, err)
	return made
}

// trustedAtNoon works out again what the schedule means: a key is trusted to its
// end, and no longer than a day after another one took over.
func trustedAtNoon(keys []*keyset.Key) (kids []string) {
	for i, k := range keys {
		trusted := noon.Before(k.Cert.NotAfter)
		for j, next := range keys {
			begin := next.Cert.NotBefore
			later := begin.After(k.Cert.NotBefore) || begin.Equal(k.Cert.NotBefore) && j < i
			if k.Private != nil && next.Private != nil && later && !noon.Before(begin.Add(keysettest.Day)) {
				trusted = false
			}
		}
		if trusted {
			kids = append(kids, k.ID)
		}
	}
	return kids
}

// FuzzJWKS: for any set, go-jose reads exactly the keys that are trusted
// now. Each byte is a key: its kind, its private half and its dates.
func FuzzJWKS(f *testing.F) {
	var pool []*keyset.Key
	for _, alg := range []string{"ES256", "EdDSA", "ES384", "RS256", "PS256", "ES256", "EdDSA", "ES384"} {
		pool = append(pool, keysettest.Key(f, alg, noon))
	}
	for _, seed := range []string{"", "\x00", "\x12\x55\xff\x80", "\x01\x02\x03\x04\x05\x06\x07\x08", "\x90\x91\x92\x93"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, bytes []byte) {
		var keys []*keyset.Key
		for i, b := range bytes[:min(len(bytes), len(pool))] {
			begin := noon.Add(time.Duration(int(b&0x1f)-16) * 6 * time.Hour)
			end := begin.Add(time.Duration(b>>5&3+1) * 40 * time.Hour)
			keys = append(keys, withDates(t, pool[i], begin, end, b&0x80 == 0))
		}
		trusted, v := trustedAtNoon(keys), view(t, keys...)
		if len(trusted) == 0 {
			require.Nil(t, v.JWKS, "clients would take an empty set for: trust nothing")
			return
		}
		var set jose.JSONWebKeySet
		// go-jose computes the SHA-1 thumbprint of each certificate.
		fips140.WithoutEnforcement(func() { require.NoError(t, json.Unmarshal(v.JWKS, &set)) })
		served := map[string]bool{}
		for _, k := range set.Keys {
			require.True(t, k.Valid() && k.IsPublic())
			require.False(t, served[k.KeyID], "a kid twice")
			served[k.KeyID] = true
			i := slices.IndexFunc(keys, func(own *keyset.Key) bool {
				return own.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Key)
			})
			require.GreaterOrEqual(t, i, 0, "a key of nobody")
			require.Equal(t, keys[i].Alg.Name, k.Algorithm)
			require.Equal(t, keys[i], v.ByName(k.KeyID).Source)
		}
		for _, k := range keys {
			require.Equal(t, slices.Contains(trusted, k.ID), served[k.ID], "%s in %x", k.ID, bytes)
		}
	})
}
