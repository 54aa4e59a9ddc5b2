package jws_test

import (
	"crypto/ecdsa"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// goodTokens returns valid tokens, including unusual ones.
func goodTokens(p *party) []string {
	twin := func(token string) string { // the other valid ECDSA signature; verifiers accept it
		signature := signatureOf(token)
		n := p.Private.(*ecdsa.PrivateKey).Params().N
		s := new(big.Int).Sub(n, new(big.Int).SetBytes(signature[32:]))
		s.FillBytes(signature[32:])
		return withSignature(token, signature)
	}
	tokens := []string{p.good(), twin(p.good()), p.Forge(p.Header(), "\r\n"+payload()+"\n")}
	for _, header := range []string{
		p.Header("typ", `"application/at+jwt"`), p.Header("typ", `"AT+JWT"`), p.Header("typ", `"Application/At+Jwt"`), p.Header("typ", `"\u0061t+jwt"`),
		changed(nil, "typ", `"at+jwt"`, "kid", `"`+p.KID+`"`, "alg", `"ES256"`), " {\n" + strings.Trim(p.Header(), "{}") + " }\t",
	} {
		tokens = append(tokens, p.Forge(header, payload()))
	}
	for _, changes := range [][]string{
		{"aud", `["urn:x","` + otherAPI + `"]`}, {"aud", `["` + api + `","` + api + `"]`},
		// Within the clock skew, or at its bound.
		{"iat", unix(-longest), "exp", unix(-skew + time.Second)}, {"iat", unix(-longest + skew), "exp", unix(-skew) + ".001"},
		{"iat", unix(2 * skew)}, {"nbf", unix(2 * skew)}, {"nbf", "0"}, {"exp", unix(longest)},
		{"exp", unix(time.Minute) + ".25", "iat", unix(0) + ".75"}, {"exp", "17776386E2"},
		{"scope", `["read","write"]`}, {"scope", `[]`}, {"jti", `"\u006a"`, "client_id", `"c"`, "scope", `"read write"`},
		// Unknown claims.
		{"x", `{"y":[null,1e999,"\ud83d\ude00"]}`, "", `""`}, {"Issuer", "1", "expiry", "2", "iss ", "3"},
		{"x", strings.Repeat("[", 5000) + strings.Repeat("]", 5000)},
	} {
		tokens = append(tokens, p.Forge(p.Header(), payload(changes...)))
	}
	return tokens
}

func TestGoodTokens(t *testing.T) {
	p := newParty(t, "ES256")
	for _, token := range goodTokens(p) {
		got, err := p.verify(token)
		require.NoError(t, err, "%s %s", segmentText(token, 0), segmentText(token, 1))
		assert.Equal(t, "alice", got.Subject)
	}
	p.KID = strings.Repeat("k", jws.MaxKeyID)
	p.trusts(t, false)
	_, err := p.verify(p.Forge(p.Header("typ", `"AT+JWT"`), payload()))
	require.NoError(t, err, "a kid of maximum length")
}

// TestReasons tests the text of the error, also if more than one claim is wrong.
func TestReasons(t *testing.T) {
	p := newParty(t, "ES256")
	at := func(ahead time.Duration) string { return time.Unix(noon.Add(ahead).Unix(), 0).Format(time.RFC3339) }
	for text, changes := range map[string][]string{
		"token is expired since " + at(-time.Hour):                           {"exp", unix(-time.Hour)},
		"token is not valid yet before " + at(time.Hour):                     {"nbf", unix(time.Hour)},
		"token is not valid yet: issued in the future, at " + at(time.Hour):  {"iat", unix(time.Hour), "nbf", unix(59 * time.Minute)},
		"token is not valid yet before " + at(time.Hour+time.Second):         {"iat", unix(time.Hour + time.Second), "nbf", unix(time.Hour + time.Second)},
		"claims are invalid: the lifetime is longer than MaxTokenTTL 1h0m0s": {"exp", unix(2 * time.Hour)},
		`token has the wrong issuer: "x\n"`:                                  {"iss", `"x\n"`},
		`token has the wrong audience: ["a" "b"]`:                            {"aud", `["a","b"]`},
		"token is missing a required claim: exp":                             {"exp", "", "iss", ""},
		"token is missing a required claim: iss":                             {"iss", "", "aud", ""},
		"token is missing a required claim: aud":                             {"aud", "", "iat", ""},
		"token is missing a required claim: iat":                             {"iat", "", "sub", ""},
		"token is missing a required claim: sub":                             {"sub", ""},
	} {
		_, err := p.verify(p.Forge(p.Header(), payload(changes...)))
		assert.EqualError(t, err, text)
	}
}
