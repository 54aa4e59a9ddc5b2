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

// pairs names keys by kid and algorithm.
func pairs(keys []*trust.Key) (names []string) {
	for _, k := range keys {
		names = append(names, k.ID+" "+k.Alg.Name)
	}
	return names
}

// modulus is a JWK member of an RSA key that nobody has the private half of.
func modulus(n *big.Int) string {
	return `"` + base64.RawURLEncoding.EncodeToString(n.Bytes()) + `"`
}

// TestParseJWKS: one odd key is counted, and spoils nothing.
func TestParseJWKS(t *testing.T) {
	r, e, e384, ed := jwstest.NewForger("RS256", "r"), jwstest.NewForger("ES256", "e"), jwstest.NewForger("ES384", "e384"), jwstest.NewForger("EdDSA", "ed")
	other, p521 := jwstest.NewForger("ES256", "e"), jwstest.NewForger("ES512", "p521")
	n := r.Private.Public().(*rsa.PublicKey).N
	short, even := new(big.Int).Rsh(n, 1024), new(big.Int).Lsh(n, 1)
	short.SetBit(short, 0, 1)
	huge := new(big.Int).Lsh(n, 8192-2048+1)
	huge.SetBit(huge, 0, 1)
	tenant := "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/v2.0"
	template := `"https://login.microsoftonline.com/{tenantid}/v2.0"`
	for name, test := range map[string]struct {
		issuer string
		keys   []string
		want   []string // "kid alg"
		skip   string   // printed
	}{
		// What is used.
		"the algorithm by the type": {"", []string{r.JWK("alg", ""), e.JWK("alg", ""), e384.JWK("alg", ""), ed.JWK("alg", "")},
			[]string{"r RS256", "e ES256", "e384 ES384", "ed EdDSA"}, ""},
		"the algorithm as given":                {"", []string{r.JWK("alg", `"PS256"`), ed.JWK("alg", `"Ed25519"`)}, []string{"r PS256", "ed EdDSA"}, ""},
		"no use":                                {"", []string{e.JWK("use", "")}, []string{"e ES256"}, ""},
		"key_ops verify":                        {"", []string{e.JWK("key_ops", `["sign","verify"]`)}, []string{"e ES256"}, ""},
		"what nobody knows":                     {"", []string{e.JWK("x-note", `{"a":[1]}`, "exp", "1", "nbf", `"x"`)}, []string{"e ES256"}, ""},
		"a certificate that is none":            {"", []string{e.JWK("x5c", `["AAAA"]`, "x5t", `"no thumbprint"`)}, []string{"e ES256"}, ""},
		"a certificate of a wrong type":         {"", []string{e.JWK("x5c", `7`, "x5u", `[]`)}, []string{"e ES256"}, ""},
		"a kid that no header of ours can have": {"", []string{e.JWK("kid", `"<\"\u00e9 "`)}, []string{`<"é  ES256`}, ""},
		"the longest kid":                       {"", []string{e.JWK("kid", `"`+strings.Repeat("k", jws.MaxKeyID)+`"`)}, []string{strings.Repeat("k", jws.MaxKeyID) + " ES256"}, ""},

		// Rule 13.
		"a null d":                  {"", []string{e.JWK(), strings.Replace(r.JWK(), "{", `{"d":null,`, 1)}, []string{"e ES256", "r RS256"}, "map[]"},
		"one that has leaked":       {"", []string{e.JWK(), r.JWK(), strings.Replace(strings.Replace(r.JWK(), `"r"`, `"s"`, 1), "{", `{"d":"AQAB",`, 1)}, []string{"e ES256"}, "map[private:2]"},
		"oct":                       {"", []string{e.JWK(), `{"kty":"oct","kid":"o","alg":"HS256","k":"AAAA"}`}, []string{"e ES256"}, "map[private:1]"},
		"oct without its secret":    {"", []string{e.JWK(), `{"kty":"oct","kid":"o"}`}, []string{"e ES256"}, "map[unsupported:1]"},
		"ML-DSA":                    {"", []string{`{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AAAA"}`, e.JWK()}, []string{"e ES256"}, "map[unsupported:1]"},
		"P-521, X25519, secp256k1":  {"", []string{p521.JWK(), ed.JWK("crv", `"X25519"`), e.JWK("crv", `"secp256k1"`), e.JWK()}, []string{"e ES256"}, "map[unsupported:3]"},
		"RS512, ES384, RSA-OAEP":    {"", []string{r.JWK("alg", `"RS512"`), e.JWK("alg", `"ES384"`), r.JWK("alg", `"RSA-OAEP"`), e.JWK()}, []string{"e ES256"}, "map[unsupported:3]"},
		"HS256 on an RSA key":       {"", []string{r.JWK("alg", `"HS256"`), e.JWK()}, []string{"e ES256"}, "map[unsupported:1]"},
		"none":                      {"", []string{r.JWK("alg", `"none"`), e.JWK()}, []string{"e ES256"}, "map[unsupported:1]"},
		"Ed25519 on another type":   {"", []string{r.JWK("alg", `"Ed25519"`), e.JWK("alg", `"Ed25519"`), ed.JWK()}, []string{"ed EdDSA"}, "map[unsupported:2]"},
		"RSA-1024":                  {"", []string{r.JWK("n", modulus(short)), e.JWK()}, []string{"e ES256"}, "map[weak:1]"},
		"an even modulus":           {"", []string{r.JWK("n", modulus(even)), e.JWK()}, []string{"e ES256"}, "map[weak:1]"},
		"RSA over 8192 bits":        {"", []string{r.JWK("n", modulus(huge)), e.JWK()}, []string{"e ES256"}, "map[malformed:1]"},
		"exponent 3":                {"", []string{r.JWK("e", `"Aw"`), e.JWK()}, []string{"e ES256"}, "map[weak:1]"},
		"Ed25519 of low order":      {"", []string{ed.JWK("x", `"`+base64.RawURLEncoding.EncodeToString(append([]byte{1}, make([]byte, 31)...))+`"`), e.JWK()}, []string{"e ES256"}, "map[malformed:1]"},
		"Ed25519 of 31 bytes":       {"", []string{ed.JWK("x", `"`+base64.RawURLEncoding.EncodeToString(ed.Private.Public().(ed25519.PublicKey)[:31])+`"`), e.JWK()}, []string{"e ES256"}, "map[malformed:1]"},
		"a point off its curve":     {"", []string{e384.JWK("crv", `"P-256"`), e.JWK("y", `"AAAA"`), other.JWK()}, []string{"e ES256"}, "map[malformed:2]"},
		"members of wrong types":    {"", []string{e.JWK("kid", "7"), e.JWK("use", "[]"), e.JWK("x", "{}"), `"x"`, "7", "[]", e.JWK()}, []string{"e ES256"}, "map[malformed:6]"},
		"a member twice":            {"", []string{strings.Replace(e.JWK(), "{", `{"kid":"x",`, 1), e384.JWK()}, []string{"e384 ES384"}, "map[malformed:1]"},
		"null":                      {"", []string{"null", e.JWK()}, []string{"e ES256"}, "map[unsupported:1]"},
		"for encryption":            {"", []string{r.JWK("use", `"enc"`), e.JWK("key_ops", `["encrypt"]`), e.JWK("key_ops", `[]`), ed.JWK()}, []string{"ed EdDSA"}, "map[use:3]"},
		"members in capitals":       {"", []string{strings.ReplaceAll(e.JWK(), `"kid"`, `"KID"`), ed.JWK()}, []string{"ed EdDSA"}, "map[unnamed:1]"},
		"no kid, or too long a one": {"", []string{e.JWK("kid", ""), e.JWK("kid", `""`), e.JWK("kid", `"`+strings.Repeat("k", jws.MaxKeyID+1)+`"`), ed.JWK()}, []string{"ed EdDSA"}, "map[unnamed:3]"},

		// Rule 14.
		"one kid, two algorithms":        {"", []string{r.JWK(), r.JWK("alg", `"PS256"`)}, []string{"r RS256", "r PS256"}, ""},
		"one kid, two types":             {"", []string{r.JWK("kid", `"e"`), e.JWK()}, []string{"e RS256", "e ES256"}, ""},
		"a key twice":                    {"", []string{e.JWK(), ed.JWK(), e.JWK("use", "")}, []string{"e ES256", "ed EdDSA"}, ""},
		"two keys under one pair":        {"", []string{e.JWK(), ed.JWK(), other.JWK()}, []string{"ed EdDSA"}, "map[ambiguous:2]"},
		"and one of them again":          {"", []string{e.JWK(), ed.JWK(), other.JWK(), e.JWK()}, []string{"ed EdDSA"}, "map[ambiguous:3]"},
		"two keys, one for another use":  {"", []string{e.JWK(), other.JWK("use", `"enc"`)}, []string{"e ES256"}, "map[use:1]"},
		"kids that differ in their case": {"", []string{e.JWK(), other.JWK("kid", `"E"`)}, []string{"e ES256", "E ES256"}, ""},

		// Rule 15.
		"the issuer's":              {tenant, []string{e.JWK("issuer", `"`+tenant+`"`)}, []string{"e ES256"}, ""},
		"of any tenant":             {tenant, []string{e.JWK("issuer", template)}, []string{"e ES256"}, ""},
		"of another issuer":         {tenant, []string{e.JWK("issuer", `"https://evil.example"`), ed.JWK()}, []string{"ed EdDSA"}, "map[issuer:1]"},
		"of another tenant":         {tenant, []string{e.JWK("issuer", strings.Replace(template, "{tenantid}", "9", 1)), ed.JWK()}, []string{"ed EdDSA"}, "map[issuer:1]"},
		"a tenant with a slash":     {"https://login.microsoftonline.com/a/b/v2.0", []string{e.JWK("issuer", template), ed.JWK()}, []string{"ed EdDSA"}, "map[issuer:1]"},
		"a template without tenant": {"https://login.microsoftonline.com//v2.0", []string{e.JWK("issuer", template), ed.JWK()}, []string{"ed EdDSA"}, "map[issuer:1]"},
		"a template that overlaps":  {"https://a", []string{e.JWK("issuer", `"https://a{tenantid}https://a"`), ed.JWK()}, []string{"ed EdDSA"}, "map[issuer:1]"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, skipped, err := trust.ParseJWKS(setText(test.keys...), test.issuer, false)
			require.NoError(t, err)
			require.Equal(t, test.want, pairs(keys))
			if test.skip == "" {
				test.skip = "map[]"
			}
			require.Equal(t, test.skip, fmt.Sprint(skipped))
		})
	}
}

// TestParseJWKSSkipsPrivateKeys: each member that belongs to the private half gives it away,
// or is of a key that nobody should use.
func TestParseJWKSSkipsPrivateKeys(t *testing.T) {
	r, e := jwstest.NewForger("RS256", "r"), jwstest.NewForger("ES256", "e")
	for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} { // RFC 7518 section 6, and ML-DSA's
		for _, value := range []string{`"AAAA"`, `[]`, `""`} {
			keys, skipped, err := trust.ParseJWKS(setText(r.JWK(member, value), e.JWK()), "", false)
			require.NoError(t, err)
			require.Equal(t, []string{"e ES256"}, pairs(keys), member)
			require.Equal(t, map[string]int{"private": 1}, skipped, member)
		}
	}
	private := jwstest.ChangedJWK(jose.JSONWebKey{Key: r.Private, KeyID: "r", Algorithm: "RS256"})
	_, _, err := trust.ParseJWKS(setText(private), "", false)
	require.ErrorContains(t, err, "map[private:1]")
}

// TestParseJWKSRefuses: what is no set, holds too much, or nothing that can be used.
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
		`{"keys":[{}]}`:                "none of the 1 keys of the JSON Web Key Set can be used map[unsupported:1]",
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

// TestParsedKeysAreFound: by kid and algorithm, whatever header a token spells them in.
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
		}
		_, ask, err := v.KeyFor(jwstest.B64(r.Header("alg", `"PS256"`)), noon)
		require.ErrorIs(t, err, jws.ErrWrongAlgorithm)
		require.False(t, ask)
	}
}

// TestFingerprint: it changes with the keys and their names, and with nothing else.
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
