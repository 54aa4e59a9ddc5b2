package jws_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// A hostile token must be rejected for one reason. Its signature by the key that its kid names
// is valid, unless the row is about keys or signatures.
type hostile struct {
	name, token string
	want        error
}

// refusals maps each reason to the other errors that it must match.
var refusals = map[error][]error{
	jws.ErrMalformed:      {jwt.ErrTokenMalformed},
	jws.ErrWrongType:      {jwt.ErrTokenUnverifiable},
	jws.ErrUnknownKey:     {jwt.ErrTokenUnverifiable},
	jws.ErrWrongAlgorithm: {jwt.ErrTokenSignatureInvalid},
	jws.ErrBadSignature:   {jwt.ErrTokenSignatureInvalid},
	jws.ErrMissingClaim:   {jwt.ErrTokenRequiredClaimMissing, jws.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	jws.ErrWrongIssuer:    {jwt.ErrTokenInvalidIssuer, jws.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	jws.ErrWrongAudience:  {jwt.ErrTokenInvalidAudience, jws.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	jws.ErrExpired:        {jwt.ErrTokenExpired, jws.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	jws.ErrNotYetValid:    {jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, jws.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	jws.ErrInvalidClaims:  {jwt.ErrTokenInvalidClaims},
}

// hostileToAny are the groups that only require an ES256 key. They also seed the fuzz targets.
var hostileToAny = []func(*party) []hostile{
	badAlgorithms, badParameters, badTypes, badKeyIDs, badCharacters, badForms, badHeaderJSON, badPayloadJSON,
	badTimes, badNumbers, badNames, badAudiences, badClaimTypes,
}

func TestHostileTokens(t *testing.T) {
	var parties []*party
	for _, alg := range allAlgorithms {
		parties = append(parties, newParty(t, alg))
	}
	es, rs, ps := parties[0], parties[1], parties[2]
	attack := func(p *party, rows []hostile) {
		for _, row := range rows {
			t.Run(p.Alg+" "+row.name, func(t *testing.T) { checkRefused(t, p, row) })
		}
	}
	for _, group := range hostileToAny {
		attack(es, group(es))
	}
	for _, p := range parties {
		attack(p, publicKeyAsSecret(t, p))
		attack(p, otherKeys(p, parties))
		attack(p, badSignatures(p))
	}
	attack(es, badECDSASignatures(t, es))
	attack(rs, otherRSASignatures(rs))
	attack(ps, otherRSASignatures(ps))
}

func checkRefused(t *testing.T, p *party, row hostile) {
	claims, err := p.verify(row.token)
	require.ErrorIs(t, err, row.want)
	require.Nil(t, claims)
	wanted := append(slices.Clone(refusals[row.want]), row.want)
	for sentinel, more := range refusals {
		for _, one := range append(slices.Clone(more), sentinel) {
			require.Equal(t, slices.Contains(wanted, one), errors.Is(err, one), "%v: matches %v?", err, one)
		}
	}
	if len(row.token) < 1<<16 {
		for i, part := range append(strings.Split(row.token, "."), row.token) {
			if i > 0 && len(part) > 8 {
				require.NotContains(t, err.Error(), part, "the error must not quote the token")
			}
		}
	}
	assert.Less(t, len(err.Error()), 1000, "the length of the error must be limited")
	assert.False(t, strings.ContainsAny(err.Error(), "\r\n\x00"), "%q", err)
}

// each returns a row for every value; f puts the value into a token.
func each(prefix string, want error, f func(value string) string, values ...string) (rows []hostile) {
	for i, value := range values {
		name := value
		if len(name) > 40 { // names must be short and the same in each run, but keys and signatures differ
			name = fmt.Sprintf("#%d", i)
		}
		rows = append(rows, hostile{prefix + " " + name, f(value), want})
	}
	return rows
}

// inHeader and inPayload put a raw value into a valid token.
func (p *party) inHeader(name string) func(string) string {
	return func(value string) string { return p.Forge(p.Header(name, value), payload()) }
}

func (p *party) inPayload(name string) func(string) string {
	return func(value string) string { return p.Forge(p.Header(), payload(name, value)) }
}

func badAlgorithms(p *party) []hostile {
	return slices.Concat(
		each("alg", jws.ErrWrongAlgorithm, p.inHeader("alg"),
			`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `"noNE"`, `" none"`, `"none "`, `"none\u0000"`, `"\u006eone"`, `"ｎｏｎｅ"`, `"nonE"`, `"null"`, `""`,
			`"es256"`, `"Es256"`, `"ES256 "`, `" ES256"`, `"ES256\u0000"`, `"ES256\n"`, `"ЕS256"`, `"ES-256"`, `"ES256K"`, `"ESP256"`, `"ES384"`, `"ES512"`,
			`"RS256"`, `"RS384"`, `"RS512"`, `"PS256"`, `"PS384"`, `"PS512"`, `"EdDSA"`, `"Ed25519"`, `"ML-DSA-44"`,
			`"HS256"`, `"HS384"`, `"HS512"`, `"dir"`, `"RSA-OAEP"`, `"ECDH-ES"`, `"A128KW"`, `"PBES2-HS256+A128KW"`, `"SHA256withECDSA"`, `"http://www.w3.org/2000/09/xmldsig#hmac-sha1"`),
		each("alg", jws.ErrMalformed, p.inHeader("alg"), `null`, `0`, `true`, `["ES256"]`, `{"name":"ES256"}`),
		each("unsigned, alg", jws.ErrMalformed, func(alg string) string {
			return b64(p.Header("alg", alg)) + "." + b64(payload()) + "."
		}, `"none"`, `"None"`, `"NONE"`, `"nOnE"`, `"ES256"`),
		[]hostile{
			{"alg absent", p.Forge(p.Header("alg", ""), payload()), jws.ErrWrongAlgorithm},
			{"alg none, no segment for the signature", b64(p.Header("alg", `"none"`)) + "." + b64(payload()), jws.ErrMalformed},
			{"alg none, one byte of signature", b64(p.Header("alg", `"none"`)) + "." + b64(payload()) + ".AA", jws.ErrWrongAlgorithm},
			{"alg none and nothing else", b64(`{"alg":"none"}`) + "." + b64(payload()) + ".AA", jws.ErrMalformed},
		})
}

func badParameters(p *party) (rows []hostile) {
	own, _ := json.Marshal(jose.JSONWebKey{Key: p.Private.Public()})
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	theirs, _ := json.Marshal(jose.JSONWebKey{Key: stranger.Public()})
	for name, values := range map[string][]string{
		"crit": {`["exp"]`, `["b64"]`, `[]`, `"exp"`, `null`, `["alg"]`}, "b64": {`false`, `true`, `"false"`, `null`},
		"jwk": {string(own), string(theirs), `null`, `{}`}, "jku": {`"https://evil.example/jwks"`, `"` + issuer + `/.well-known/jwks.json"`, `null`},
		"x5u": {`"https://evil.example/cert"`}, "x5c": {`["AAAA"]`, `[]`}, "x5t": {`"AAAA"`, `1`}, "x5t#S256": {`"AAAA"`, `null`},
		"zip": {`"DEF"`, `null`}, "cty": {`"JWT"`, `""`}, "enc": {`"A128GCM"`}, "epk": {`{}`}, "apu": {`""`}, "p2c": {`2147483647`}, "iv": {`""`}, "tag": {`""`},
		"nonce": {`"x"`}, "iss": {`"` + issuer + `"`}, "exp": {`1`}, "svt": {`[]`}, "ppt": {`"shaken"`}, "url": {`"x"`}, "foo": {`1`}, "": {`1`}, "kid ": {`"x"`}, "ａlg": {`"x"`},
		"Alg": {`"none"`}, "ALG": {`"ES256"`}, "Kid": {`"x"`}, "KID": {`"x"`}, "\u212aid": {`"x"`}, "Typ": {`"JWT"`}, "TYP": {`"at+jwt"`}, "Crit": {`["x"]`}, "CRIT": {`["x"]`},
		// Duplicates of names that the header already has.
		`\u0061lg`: {`"ES256"`, `"none"`}, `\u006bid`: {`"x"`}, `t\u0079p`: {`"at+jwt"`},
	} {
		rows = append(rows, each(name, jws.ErrMalformed, p.inHeader(name), values...)...)
	}
	again := func(member string) string {
		return p.Forge("{"+member+","+strings.TrimPrefix(p.Header(), "{"), payload())
	}
	rows = append(rows, each("twice", jws.ErrMalformed, again, `"alg":"ES256"`, `"alg":"none"`, `"kid":"`+p.KID+`"`, `"kid":""`, `"typ":"at+jwt"`, `"typ":"JWT"`)...)
	for from, to := range map[string]string{"alg": "Alg", "kid": "Kid", "typ": "Typ"} {
		rows = append(rows, hostile{"instead " + to, p.Forge(strings.Replace(p.Header(), from, to, 1), payload()), jws.ErrMalformed})
	}
	return append(rows, hostile{"jwk of the attacker, who signed",
		signWith(jwt.SigningMethodES256, stranger, p.Header("jwk", string(theirs), "kid", ""), payload()), jws.ErrMalformed})
}

func badTypes(p *party) []hostile {
	return slices.Concat(
		each("typ", jws.ErrWrongType, p.inHeader("typ"),
			"", `""`, `"JWT"`, `"jwt"`, `"at"`, `"jwt+at"`, `"at+jwt "`, `" at+jwt"`, `"at+jwt\u0000"`, `"at jwt"`, `"at-jwt"`, `"at%2Bjwt"`, `"at+jwt;charset=utf-8"`, `"at+jws"`,
			`"logout+jwt"`, `"id+jwt"`, `"dpop+jwt"`, `"secevent+jwt"`, `"oauth-authz-req+jwt"`, `"JOSE"`, `"application/"`, `"application/jwt"`,
			`"application/application/at+jwt"`, `"text/at+jwt"`, `"/at+jwt"`, `"application/at+jwt;v=1"`, `"application/ at+jwt"`,
			// Letters that look like ASCII, or that Unicode lowers to ASCII.
			`"appl\u0130cation/at+jwt"`, `"application/at+\u0458wt"`, `"ａt+jwt"`),
		each("typ", jws.ErrMalformed, p.inHeader("typ"), `null`, `1`, `true`, `["at+jwt"]`, `{}`))
}

func badKeyIDs(p *party) []hostile {
	return slices.Concat(
		each("kid", jws.ErrMalformed, p.inHeader("kid"), "", `""`, `null`, `0`, `1`, `-1`, `true`, `["`+p.KID+`"]`, `{"kid":"`+p.KID+`"}`,
			`"`+strings.Repeat("k", 129)+`"`, `"`+strings.Repeat("é", 65)+`"`, `"`+strings.Repeat("k", 10000)+`"`, `"\ud800"`, "\"\xff\"", "\"\n\""),
		each("kid", jws.ErrUnknownKey, p.inHeader("kid"), `"`+strings.Repeat("k", 128)+`"`, `"x"`, `"0"`, `" "`, `"\u0000"`, `"null"`,
			`"../../../../dev/null"`, `"/etc/passwd"`, `"..\\..\\key.pem"`, `"file:///dev/null"`, `"https://evil.example/key"`,
			`"' OR 1=1 --"`, `"x' UNION SELECT 'secret"`, `"*)(uid=*"`, `"$(id)"`, `"|/usr/bin/id"`, `"\r\nlog: forged"`, `"%s%n"`,
			`"`+p.KID[:42]+`"`, `"`+p.KID+` "`, `"`+p.KID+`="`, `"`+p.KID+`\u0000"`, `"`+strings.ToLower(p.KID)+`"`, `"`+p.KID+p.KID+`"`))
}
