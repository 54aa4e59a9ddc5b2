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
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
)

func TestGoodTokens(t *testing.T) {
	p := newParty(t, "ES256")
	twin := func(token string) string { // RFC 7515 does not forbid it, and no verifier refuses it
		signature := signatureOf(token)
		n := p.Private.(*ecdsa.PrivateKey).Params().N
		s := new(big.Int).Sub(n, new(big.Int).SetBytes(signature[32:]))
		s.FillBytes(signature[32:])
		return withSignature(token, signature)
	}
	named := &party{Forger: jwstest.Forger{Private: p.Private, Alg: p.Alg, KID: strings.Repeat("k", jws.MaxKeyID)}}
	named.trusts(t, false)
	for name, token := range map[string]string{
		"plain":                      p.good(),
		"typ with its prefix":        p.Forge(p.Header("typ", `"application/at+jwt"`), payload()),
		"typ in capitals":            p.Forge(p.Header("typ", `"AT+JWT"`), payload()),
		"typ, both":                  p.Forge(p.Header("typ", `"Application/At+Jwt"`), payload()),
		"header in another order":    p.Forge(changed(nil, "typ", `"at+jwt"`, "kid", `"`+p.KID+`"`, "alg", `"ES256"`), payload()),
		"header with escapes":        p.Forge(p.Header("typ", `"\u0061t+jwt"`), payload()),
		"header with spaces":         p.Forge(" {\n"+strings.Trim(p.Header(), "{}")+" }\t", payload()),
		"kid of 128 bytes":           named.Forge(named.Header("typ", `"AT+JWT"`), payload()),
		"payload with spaces":        p.Forge(p.Header(), "\r\n"+payload()+"\n"),
		"twin signature":             twin(p.good()),
		"one of the audience":        p.Forge(p.Header(), payload("aud", `["urn:x","`+otherAPI+`"]`)),
		"the same audience twice":    p.Forge(p.Header(), payload("aud", `["`+api+`","`+api+`"]`)),
		"expired within the skew":    p.Forge(p.Header(), payload("iat", unix(-longest), "exp", unix(-skew+time.Second))),
		"expired by a fraction less": p.Forge(p.Header(), payload("iat", unix(-longest+skew), "exp", unix(-skew)+".001")),
		"issued ahead by two skews":  p.Forge(p.Header(), payload("iat", unix(2*skew))),
		"nbf ahead by two skews":     p.Forge(p.Header(), payload("nbf", unix(2*skew))),
		"nbf of 1970":                p.Forge(p.Header(), payload("nbf", "0")),
		"times with a fraction":      p.Forge(p.Header(), payload("exp", unix(time.Minute)+".25", "iat", unix(0)+".75")),
		"times with an exponent":     p.Forge(p.Header(), payload("exp", "17776386E2")),
		"longest lifetime":           p.Forge(p.Header(), payload("exp", unix(longest))),
		"unknown claims":             p.Forge(p.Header(), payload("x", `{"y":[null,1e999]}`, "", `""`)),
		"scopes in an array":         p.Forge(p.Header(), payload("scope", `["read","write"]`)),
		"no scopes in an array":      p.Forge(p.Header(), payload("scope", `[]`)),
		"5000 brackets":              p.Forge(p.Header(), payload("x", strings.Repeat("[", 5000)+strings.Repeat("]", 5000))),
		"claims of other names":      p.Forge(p.Header(), payload("Issuer", "1", "expiry", "2", "iss ", "3")),
	} {
		t.Run(name, func(t *testing.T) {
			by := p
			if strings.HasPrefix(name, "kid") {
				by = named
			}
			got, err := by.verify(token)
			require.NoError(t, err)
			assert.Equal(t, "alice", got.Subject)
		})
	}
}

// TestFormerRules: tokens of a system from before RFC 9068 may lack what that RFC
// requires. Otherwise they are checked as strictly as others.
func TestFormerRules(t *testing.T) {
	p := newParty(t, "EdDSA")
	former := *p
	former.trusts(t, true)
	for name, tc := range map[string]struct {
		token      string
		want, ours error // by the former rules, and of a key of the fleet
	}{
		"x5t":                {p.Forge(p.Header("x5t", `"AAAA"`), payload()), nil, jws.ErrMalformed},
		"x5t#S256":           {p.Forge(p.Header("x5t#S256", `"AAAA"`), payload()), nil, jws.ErrMalformed},
		"typ JWT":            {p.Forge(p.Header("typ", `"JWT"`), payload()), nil, jws.ErrWrongType},
		"typ jwt":            {p.Forge(p.Header("typ", `"jwt"`), payload()), nil, jws.ErrWrongType},
		"no typ":             {p.Forge(p.Header("typ", ""), payload()), nil, jws.ErrWrongType},
		"typ of logout":      {p.Forge(p.Header("typ", `"logout+jwt"`), payload()), jws.ErrWrongType, jws.ErrWrongType},
		"no iat":             {p.Forge(p.Header(), payload("iat", "")), nil, jws.ErrMissingClaim},
		"no sub":             {p.Forge(p.Header(), payload("sub", "")), nil, jws.ErrMissingClaim},
		"a long life":        {p.Forge(p.Header(), payload("exp", unix(10*longest))), nil, jws.ErrInvalidClaims},
		"another issuer":     {p.Forge(p.Header(), payload("iss", `"https://old.example/"`)), jws.ErrWrongIssuer, jws.ErrWrongIssuer},
		"another audience":   {p.Forge(p.Header(), payload("aud", `"web-client"`)), jws.ErrWrongAudience, jws.ErrWrongAudience},
		"expired":            {p.Forge(p.Header(), payload("exp", unix(-skew))), jws.ErrExpired, jws.ErrExpired},
		"no exp":             {p.Forge(p.Header(), payload("exp", "")), jws.ErrMissingClaim, jws.ErrMissingClaim},
		"no iss":             {p.Forge(p.Header(), payload("iss", "")), jws.ErrMissingClaim, jws.ErrMissingClaim},
		"no aud":             {p.Forge(p.Header(), payload("aud", "")), jws.ErrMissingClaim, jws.ErrMissingClaim},
		"issued ahead":       {p.Forge(p.Header(), payload("iat", unix(3*skew))), jws.ErrNotYetValid, jws.ErrNotYetValid},
		"x5t that is a list": {p.Forge(p.Header("x5t", `[]`), payload()), jws.ErrMalformed, jws.ErrMalformed},
	} {
		_, err := former.verify(tc.token)
		assert.ErrorIs(t, err, tc.want, name)
		_, err = p.verify(tc.token)
		assert.ErrorIs(t, err, tc.ours, name)
	}
	former.view.Keys[0].Issuer = "https://old.example"
	for iss, want := range map[string]error{"https://old.example": nil, "https://old.example/": jws.ErrWrongIssuer, issuer: jws.ErrWrongIssuer} {
		_, err := former.verify(p.Forge(p.Header(), payload("iss", `"`+iss+`"`)))
		assert.ErrorIs(t, err, want, "a key with its own issuer, and %s", iss)
	}
}

// TestReasons pins what an operator reads where more than one claim could be wrong.
func TestReasons(t *testing.T) {
	p := newParty(t, "ES256")
	at := func(ahead time.Duration) string { return time.Unix(noon.Add(ahead).Unix(), 0).Format(time.RFC3339) }
	for text, changes := range map[string][]string{
		"token is expired since " + at(-time.Hour):                                    {"exp", unix(-time.Hour)},
		"token is not valid yet before " + at(time.Hour):                              {"nbf", unix(time.Hour)},
		"token is not valid yet: issued at " + at(time.Hour) + ", ahead of the clock": {"iat", unix(time.Hour), "nbf", unix(59 * time.Minute)},
		"token is not valid yet before " + at(time.Hour+time.Second):                  {"iat", unix(time.Hour + time.Second), "nbf", unix(time.Hour + time.Second)},
		"claims are invalid: the lifetime is not within MaxTokenTTL 1h0m0s":           {"exp", unix(2 * time.Hour)},
		`token has another issuer: "x\n"`:                                             {"iss", `"x\n"`},
		`token is for another audience: ["a" "b"]`:                                    {"aud", `["a","b"]`},
		"token lacks a required claim: exp":                                           {"exp", "", "iss", ""},
		"token lacks a required claim: iss":                                           {"iss", "", "aud", ""},
		"token lacks a required claim: aud":                                           {"aud", "", "iat", ""},
		"token lacks a required claim: iat":                                           {"iat", "", "sub", ""},
		"token lacks a required claim: sub":                                           {"sub", ""},
		"claims are invalid: a time is not between 1970 and 9999":                     {"nbf", "-1"},
		"claims are invalid: a time is not a number":                                  {"nbf", "null"},
		"claims are invalid: a value is not a string":                                 {"sub", "1"},
		"claims are invalid: a registered claim's name is written in another case":    {"Sub", `"x"`},
		"claims are invalid: a scope is empty or holds a space":                       {"scope", `["a",""]`},
		"claims are invalid: a claim is neither a string nor an array of strings":     {"aud", "1"},
		"token is malformed: the payload is not a strict JSON object":                 {"x", "{"},
	} {
		_, err := p.verify(p.Forge(p.Header(), payload(changes...)))
		assert.EqualError(t, err, text)
	}
}
