package trust_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// FuzzParseJWKS: for any document, each key in use is a valid public key, and no other key has
// the same kid and algorithm.
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
		require.Equal(t, []any{err, skipped, pairs(keys)}, []any{errAgain, skippedAgain, pairs(again)}, "the result must be deterministic")
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
