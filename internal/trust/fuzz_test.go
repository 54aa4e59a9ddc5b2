package trust_test

import (
	"crypto"
	"crypto/fips140"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// FuzzJWKS: for any set, go-jose reads exactly the keys that are trusted
// now. Each byte is a key: whether it is retired, and its dates.
func FuzzJWKS(f *testing.F) {
	var pool []*keyset.Key
	for _, alg := range []string{"ES256", "EdDSA", "ES384", "RS256", "PS256", "ES256", "EdDSA", "ES384"} {
		pool = append(pool, keysettest.Key(f, alg, noon))
	}
	for _, seed := range []string{"", "\x00", "\x12\x55\xff\x80", "\x01\x02\x03\x04\x05\x06\x07\x08", "\x90\x91\x92\x93"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, bytes []byte) {
		var set keyset.Set
		for i, b := range bytes[:min(len(bytes), len(pool))] {
			begin := noon.Add(time.Duration(int(b&0x1f)-16) * 6 * time.Hour)
			end := begin.Add(time.Duration(b>>5&3+1) * 40 * time.Hour)
			if b&0x80 != 0 {
				set.Retired = append(set.Retired, retired(pool[i], end))
				continue
			}
			k := *pool[i]
			cert := *k.Cert
			k.Cert, cert.NotBefore, cert.NotAfter = &cert, begin, end
			set.Keys = append(set.Keys, &k)
		}
		ours := keyset.New(set.Keys, set.Retired, nil)
		var trusted []string
		for _, k := range ours.Keys {
			if noon.Before(ours.TrustEnd(k, keysettest.Day)) {
				trusted = append(trusted, k.ID)
			}
		}
		for _, r := range ours.Retired {
			if noon.Before(r.Until) {
				trusted = append(trusted, r.ID)
			}
		}
		v := view(t, ours)
		if len(trusted) == 0 {
			require.Nil(t, v.JWKS, "clients would take an empty set for: trust nothing")
			return
		}
		var read jose.JSONWebKeySet
		// go-jose computes the SHA-1 thumbprint of each certificate.
		fips140.WithoutEnforcement(func() { require.NoError(t, json.Unmarshal(v.JWKS, &read)) })
		served := map[string]bool{}
		for _, k := range read.Keys {
			require.True(t, k.Valid() && k.IsPublic())
			require.False(t, served[k.KeyID], "a kid twice")
			served[k.KeyID] = true
			own := v.ByName(k.KeyID)
			require.True(t, own.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Key))
			require.Equal(t, []string{jws.Thumbprint(k.Key), own.Alg.Name}, []string{k.KeyID, k.Algorithm})
		}
		for _, k := range pool {
			require.Equal(t, slices.Contains(trusted, k.ID), served[k.ID], "%s in %x", k.ID, bytes)
		}
	})
}

// FuzzParseJWKS: whatever an issuer publishes, each key that is used is a good public key
// under one kid for its algorithm.
func FuzzParseJWKS(f *testing.F) {
	const issuer = "https://login.microsoftonline.com/t/v2.0"
	r, e, ed := jwstest.NewForger("RS256", "r"), jwstest.NewForger("ES256", "e"), jwstest.NewForger("EdDSA", "ed")
	for _, set := range [][]byte{
		setText(), setText("{}", "null", "7"), []byte(`{"keys":`), []byte("<html>"),
		setText(r.JWK(), r.JWK("alg", `"PS256"`), e.JWK(), ed.JWK("alg", `"Ed25519"`)),
		setText(e.JWK(), e.JWK("y", `"AAAA"`), jwstest.NewForger("ES256", "e").JWK()),
		setText(r.JWK("d", `"AAAA"`), r.JWK("e", `"Aw"`), e.JWK("use", `"enc"`), ed.JWK("key_ops", `["verify"]`)),
		setText(e.JWK("issuer", `"https://login.microsoftonline.com/{tenantid}/v2.0"`), ed.JWK("issuer", `"https://x"`)),
		setText(`{"kty":"oct","kid":"o","k":"AAAA"}`, `{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AAAA"}`, e.JWK("kid", `"\u00e9"`)),
	} {
		f.Add(set, true)
		f.Add(set, false)
	}
	f.Fuzz(func(t *testing.T, document []byte, former bool) {
		keys, skipped, err := trust.ParseJWKS(document, issuer, former)
		again, skippedAgain, errAgain := trust.ParseJWKS(document, issuer, former)
		require.Equal(t, []any{err, skipped, pairs(keys)}, []any{errAgain, skippedAgain, pairs(again)}, "by chance")
		if err != nil {
			require.Nil(t, keys)
			return
		}
		require.NotEmpty(t, keys)
		require.LessOrEqual(t, len(keys), 256)
		for i, k := range keys {
			require.Equal(t, former, k.Former)
			require.NotContains(t, pairs(keys[:i]), pairs(keys[i : i+1])[0])
			alg, err := jws.AlgorithmOf(k.Public, k.Alg.Name == "PS256")
			require.NoError(t, err)
			require.Equal(t, k.Alg.Name, alg.Name)
			require.True(t, k.ID != "" && len(k.ID) <= jws.MaxKeyID)
		}
		v, err := trust.FromKeys(keys, trust.Fingerprint(keys), former, now)
		require.NoError(t, err)
		for _, k := range keys {
			require.Same(t, k, v.Find(k.ID, k.Alg.Name))
		}
	})
}
