package trust_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/internal/trust"
)

func setText(keys ...string) []byte { return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`) }

// pairs returns the kid and algorithm of each key.
func pairs(keys []*trust.Key) (names []string) {
	for _, k := range keys {
		names = append(names, k.ID+" "+k.Alg.Name)
	}
	return names
}

// quoted returns bytes as the value of a JWK member.
func quoted(b []byte) string { return `"` + base64.RawURLEncoding.EncodeToString(b) + `"` }

// TestParseJWKS: an unusable key is counted, and does not affect other keys.
func TestParseJWKS(t *testing.T) {
	r, e, e384, ed := jwstest.NewForger("RS256", "r"), jwstest.NewForger("ES256", "e"), jwstest.NewForger("ES384", "e384"), jwstest.NewForger("EdDSA", "ed")
	good, other, p521 := jwstest.NewForger("ES256", "good"), jwstest.NewForger("ES256", "e"), jwstest.NewForger("ES512", "p521")
	check := func(issuer string, want []string, skip map[string]int, keys ...string) {
		t.Helper()
		parsed, skipped, err := trust.ParseJWKS(setText(keys...), issuer, false)
		require.NoError(t, err)
		require.Equal(t, want, pairs(parsed), keys)
		require.Equal(t, fmt.Sprint(skip), fmt.Sprint(skipped), keys)
	}

	longest := strings.Repeat("k", jws.MaxKeyID)
	for want, keys := range map[string][]string{
		"r RS256": {r.JWK("alg", ""), strings.Replace(r.JWK(), "{", `{"d":null,`, 1)},
		"r PS256": {r.JWK("alg", `"PS256"`)},
		"e ES256": {e.JWK("alg", ""), e.JWK("use", ""), e.JWK("key_ops", `["sign","verify"]`), e.JWK("x-note", `{"a":[1]}`, "exp", "1", "nbf", `"x"`),
			e.JWK("x5c", `["AAAA"]`, "x5t", `"no thumbprint"`), e.JWK("x5c", `7`, "x5u", `[]`)}, // certificates are ignored
		"e384 ES384":       {e384.JWK("alg", "")},
		"ed EdDSA":         {ed.JWK("alg", ""), ed.JWK("alg", `"Ed25519"`)},
		`<"é  ES256`:       {e.JWK("kid", `"<\"\u00e9 "`)}, // CheckKeyID would reject this kid
		longest + " ES256": {e.JWK("kid", `"`+longest+`"`)},
	} {
		for _, key := range keys {
			check("", []string{want}, nil, key)
		}
	}

	// Unusable keys.
	n := r.Private.Public().(*rsa.PublicKey).N
	short, even, huge := new(big.Int).Rsh(n, 1024), new(big.Int).Lsh(n, 1), new(big.Int).Lsh(n, 8192-2048+1)
	short.SetBit(short, 0, 1)
	huge.SetBit(huge, 0, 1)
	skipped := map[string][]string{
		"private": {`{"kty":"oct","kid":"o","alg":"HS256","k":"AAAA"}`, jwstest.ChangedJWK(jose.JSONWebKey{Key: r.Private, KeyID: "r", Algorithm: "RS256"})},
		"unsupported": {`{"kty":"oct","kid":"o"}`, `{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AAAA"}`, "null",
			p521.JWK(), ed.JWK("crv", `"X25519"`), e.JWK("crv", `"secp256k1"`), r.JWK("alg", `"RS512"`), e.JWK("alg", `"ES384"`),
			r.JWK("alg", `"RSA-OAEP"`), r.JWK("alg", `"HS256"`), r.JWK("alg", `"none"`), r.JWK("alg", `"Ed25519"`), e.JWK("alg", `"Ed25519"`)},
		"weak": {r.JWK("n", quoted(short.Bytes())), r.JWK("n", quoted(even.Bytes())), r.JWK("e", `"Aw"`)},
		"malformed": {r.JWK("n", quoted(huge.Bytes())), ed.JWK("x", quoted(append([]byte{1}, make([]byte, 31)...))), // of low order
			ed.JWK("x", quoted(ed.Private.Public().(ed25519.PublicKey)[:31])), e384.JWK("crv", `"P-256"`), e.JWK("y", `"AAAA"`),
			e.JWK("kid", "7"), e.JWK("use", "[]"), e.JWK("x", "{}"), `"x"`, "7", "[]", strings.Replace(e.JWK(), "{", `{"kid":"x",`, 1)},
		"use":     {r.JWK("use", `"enc"`), e.JWK("key_ops", `["encrypt"]`), e.JWK("key_ops", `[]`)},
		"unnamed": {strings.ReplaceAll(e.JWK(), `"kid"`, `"KID"`), e.JWK("kid", ""), e.JWK("kid", `""`), e.JWK("kid", `"k`+longest+`"`)},
	}
	for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} { // RFC 7518 section 6, and priv of ML-DSA
		skipped["private"] = append(skipped["private"], r.JWK(member, `"AAAA"`), r.JWK(member, `[]`), r.JWK(member, `""`))
	}
	for reason, keys := range skipped {
		for _, key := range keys {
			check("", []string{"good ES256"}, map[string]int{reason: 1}, key, good.JWK())
		}
	}
	leaked := strings.Replace(r.JWK("kid", `"s"`), "{", `{"d":"AQAB",`, 1)
	check("", []string{"good ES256"}, map[string]int{"private": 2}, good.JWK(), r.JWK(), leaked)

	// Keys with the same kid.
	check("", []string{"r RS256", "r PS256"}, nil, r.JWK(), r.JWK("alg", `"PS256"`))
	check("", []string{"e RS256", "e ES256"}, nil, r.JWK("kid", `"e"`), e.JWK())
	check("", []string{"e ES256", "ed EdDSA"}, nil, e.JWK(), ed.JWK(), e.JWK("use", ""))
	check("", []string{"ed EdDSA"}, map[string]int{"ambiguous": 2}, e.JWK(), ed.JWK(), other.JWK())
	check("", []string{"ed EdDSA"}, map[string]int{"ambiguous": 3}, e.JWK(), ed.JWK(), other.JWK(), e.JWK())
	check("", []string{"e ES256"}, map[string]int{"use": 1}, e.JWK(), other.JWK("use", `"enc"`))
	check("", []string{"e ES256", "E ES256"}, nil, e.JWK(), other.JWK("kid", `"E"`))

	// Keys of another issuer (Entra).
	const entra, template = "https://login.microsoftonline.com/", `"https://login.microsoftonline.com/{tenantid}/v2.0"`
	for _, is := range []string{`"` + entra + `1-1/v2.0"`, template} {
		check(entra+"1-1/v2.0", []string{"e ES256"}, nil, e.JWK("issuer", is))
	}
	for is, keys := range map[string][]string{
		entra + "1-1/v2.0": {`"https://evil.example"`, `"` + entra + `9/v2.0"`},
		entra + "a/b/v2.0": {template}, entra + "/v2.0": {template}, "https://a": {`"https://a{tenantid}https://a"`},
	} {
		for _, key := range keys {
			check(is, []string{"good ES256"}, map[string]int{"issuer": 1}, e.JWK("issuer", key), good.JWK())
		}
	}
}

// TestParseJWKSRefuses tests documents that are not a set, too large, or without a usable key.
func TestParseJWKSRefuses(t *testing.T) {
	e := jwstest.NewForger("ES256", "e").JWK()
	many := make([]string, 257)
	for i := range many {
		many[i] = strings.Replace(e, `"kid":"e"`, fmt.Sprintf(`"kid":"%d"`, i), 1)
	}
	for text, want := range map[string]string{
		"":                             "not a JSON Web Key Set",
		"<html></html>":                "not a JSON Web Key Set",
		`{"keys":{}}`:                  "not a JSON Web Key Set",
		`[` + e + `]`:                  "not a JSON Web Key Set",
		`{"keys":[` + e:                "not a JSON Web Key Set",
		string(setText(e)) + "x":       "not a JSON Web Key Set",
		`{}`:                           "none of the 0 keys",
		`{"keys":null}`:                "none of the 0 keys",
		`{"keys":[]}`:                  "none of the 0 keys",
		`{"KEYS":[` + e + `]}`:         "none of the 0 keys",
		`{"keys":[{}]}`:                "none of the 1 keys in the JSON Web Key Set can be used map[unsupported:1]",
		string(setText(many...)):       "257 keys; at most 256",
		string(setText(many[:256]...)): "",
		`{"keys":[` + e + `],"keys":[` + e + `],"x":"` + "\xff" + `"}`: "", // lenient around the keys
	} {
		keys, _, err := trust.ParseJWKS([]byte(text), "", false)
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
		require.Nil(t, keys)
		require.NotContains(t, err.Error(), "html")
	}
}

// TestParsedKeysAreFound: keys are found by kid and algorithm, in any form of the header.
func TestParsedKeysAreFound(t *testing.T) {
	r, e, ed := jwstest.NewForger("RS256", "k"), jwstest.NewForger("ES256", "k"), jwstest.NewForger("EdDSA", "k")
	for _, former := range []bool{false, true} {
		keys, _, err := trust.ParseJWKS(setText(r.JWK(), e.JWK(), ed.JWK("alg", `"Ed25519"`)), "", former)
		require.NoError(t, err)
		v, err := trust.FromKeys(keys, trust.Fingerprint(keys), former, now)
		require.NoError(t, err)
		for _, f := range []*jwstest.Forger{r, e, ed} {
			for _, header := range []string{f.Header(), f.Header("typ", `"AT+JWT"`), f.Header("alg", strings.Replace(`"`+f.Alg+`"`, "EdDSA", "Ed25519", 1))} {
				k, _, err := v.KeyFor(jwstest.B64(header), noon)
				require.NoError(t, err, header)
				require.True(t, f.Private.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Public))
			}
			_, ask, err := v.KeyFor(jwstest.B64(f.Header("typ", `"JWT"`)), noon)
			require.Equal(t, former, err == nil)
			require.False(t, ask)
			_, _, err = v.KeyFor(jwstest.B64(f.Header("x5t", `"x"`)), noon)
			require.Equal(t, former, err == nil)
		}
		_, ask, err := v.KeyFor(jwstest.B64(r.Header("alg", `"PS256"`)), noon)
		require.ErrorIs(t, err, jws.ErrWrongAlgorithm)
		require.False(t, ask)
	}
}

// TestFingerprint: it changes only if the keys or their names change.
func TestFingerprint(t *testing.T) {
	a, b := jwstest.NewForger("ES256", "a"), jwstest.NewForger("ES256", "b")
	of := func(keys ...string) string {
		parsed, _, err := trust.ParseJWKS(setText(keys...), "", false)
		require.NoError(t, err)
		return trust.Fingerprint(parsed)
	}
	same := of(a.JWK(), b.JWK())
	require.Equal(t, same, of(b.JWK("use", ""), a.JWK("note", "1")))
	for _, other := range []string{of(a.JWK()), of(a.JWK("kid", `"b"`), b.JWK("kid", `"a"`)), of(a.JWK(), b.JWK("kid", `"B"`)), of(a.JWK(), jwstest.NewForger("ES256", "b").JWK())} {
		require.NotEqual(t, same, other)
	}
}
