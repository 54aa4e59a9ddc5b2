package fleetkey_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// This file is one table of tokens that Verify has to refuse, row by row with
// the reason that it has to give.

// A hostile token is well signed by the key that its kid names, unless its row
// is about that.
type hostile struct {
	name, token string
	want        error
}

// refusals are the reasons that Verify gives, and what each also has to match.
var refusals = map[error][]error{
	fleetkey.ErrMalformed:      {jwt.ErrTokenMalformed},
	fleetkey.ErrWrongType:      {jwt.ErrTokenUnverifiable},
	fleetkey.ErrUnknownKey:     {jwt.ErrTokenUnverifiable},
	fleetkey.ErrWrongAlgorithm: {jwt.ErrTokenSignatureInvalid},
	fleetkey.ErrBadSignature:   {jwt.ErrTokenSignatureInvalid},
	fleetkey.ErrMissingClaim:   {jwt.ErrTokenRequiredClaimMissing, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrWrongIssuer:    {jwt.ErrTokenInvalidIssuer, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrWrongAudience:  {jwt.ErrTokenInvalidAudience, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrExpired:        {jwt.ErrTokenExpired, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrNotYetValid:    {jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrInvalidClaims:  {jwt.ErrTokenInvalidClaims},
}

// hostileToAny are the groups that need a key of ES256, and nothing more. They
// are seeds of the fuzz targets, too.
var hostileToAny = []func(*party) []hostile{
	badAlgorithms, badParameters, badTypes, badKeyIDs, badCharacters, badForms, badHeaderJSON, badPayloadJSON,
	badTimes, badNumbers, badNames, badAudiences, badClaimTypes,
}

func TestHostileTokens(t *testing.T) {
	var parties []*party
	for _, alg := range []string{"ES256", "RS256", "PS256", "ES384", "EdDSA"} {
		parties = append(parties, newParty(t, alg))
	}
	es, rs, ps, ed := parties[0], parties[1], parties[2], parties[4]
	refused, wavedThrough := 0, 0
	attack := func(p *party, rows []hostile) {
		for _, row := range rows {
			t.Run(p.alg+" "+row.name, func(t *testing.T) { checkRefused(t, p, row) })
			refused++
			if _, err := parser(p.alg, noon).Parse(row.token, p.Keyfunc); err == nil {
				wavedThrough++
			}
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
	attack(rs, badRSASignatures(t, rs))
	attack(ps, badPSSSignatures(t, ps))
	attack(ed, badEdDSASignatures(t, ed))
	require.Greater(t, refused, 175)
	require.NotZero(t, wavedThrough, "the parser beside ours takes nothing: is it set up right?")
	t.Logf("Verify refuses all of these %d tokens; golang-jwt with all its options on and Signer.Keyfunc accepts %d of them", refused, wavedThrough)
}

func checkRefused(t *testing.T, p *party, row hostile) {
	_, _ = p.Verify(t.Context(), row.token) // nothing is remembered of it
	token, err := p.Verify(t.Context(), row.token)
	require.Error(t, err)
	require.Nil(t, token)
	require.ErrorIs(t, err, row.want)
	wanted := append(slices.Clone(refusals[row.want]), row.want)
	for sentinel, more := range refusals {
		for _, one := range append(slices.Clone(more), sentinel) {
			assert.Equal(t, slices.Contains(wanted, one), errors.Is(err, one), "%v: matches %v?", err, one)
		}
	}
	if row.token != "" && len(row.token) < 1<<16 {
		for i, part := range append(strings.Split(row.token, "."), row.token) {
			if i > 0 && len(part) > 8 {
				assert.NotContains(t, err.Error(), part, "the error shows the token")
			}
		}
	}
	assert.Less(t, len(err.Error()), 1000, "the error is as long as the token")
	assert.True(t, strings.HasPrefix(err.Error(), "fleetkey: ") && !strings.ContainsAny(err.Error(), "\r\n\x00"), "%q", err)
}

// each makes a row of every value, put into a token by f.
func each(prefix string, want error, f func(value string) string, values ...string) (rows []hostile) {
	for i, value := range values {
		name := value
		if len(name) > 40 { // and some hold a key or signature that is another one each time
			name = fmt.Sprintf("#%d", i)
		}
		rows = append(rows, hostile{prefix + " " + name, f(value), want})
	}
	return rows
}

// inHeader and inPayload put a raw value into a good token.
func (p *party) inHeader(name string) func(string) string {
	return func(value string) string { return p.sign(p.header(name, value), payload()) }
}

func (p *party) inPayload(name string) func(string) string {
	return func(value string) string { return p.sign(p.header(), payload(name, value)) }
}

func badAlgorithms(p *party) []hostile {
	return slices.Concat(
		each("alg", fleetkey.ErrWrongAlgorithm, p.inHeader("alg"),
			`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `"noNE"`, `" none"`, `"none "`, `"none\u0000"`, `"\u006eone"`, `"ｎｏｎｅ"`, `"nonE"`, `"null"`, `""`,
			`"es256"`, `"Es256"`, `"ES256 "`, `" ES256"`, `"ES256\u0000"`, `"ES256\n"`, `"ЕS256"`, `"ES-256"`, `"ES256K"`, `"ESP256"`, `"ES384"`, `"ES512"`,
			`"RS256"`, `"RS384"`, `"RS512"`, `"PS256"`, `"PS384"`, `"PS512"`, `"EdDSA"`, `"Ed25519"`, `"ML-DSA-44"`,
			`"HS256"`, `"HS384"`, `"HS512"`, `"dir"`, `"RSA-OAEP"`, `"ECDH-ES"`, `"A128KW"`, `"PBES2-HS256+A128KW"`, `"SHA256withECDSA"`, `"http://www.w3.org/2000/09/xmldsig#hmac-sha1"`),
		each("alg", fleetkey.ErrMalformed, p.inHeader("alg"), `null`, `0`, `true`, `["ES256"]`, `{"name":"ES256"}`),
		each("unsigned, alg", fleetkey.ErrMalformed, func(alg string) string {
			return b64(p.header("alg", alg)) + "." + b64(payload()) + "."
		}, `"none"`, `"None"`, `"NONE"`, `"nOnE"`, `"ES256"`),
		[]hostile{
			{"alg absent", p.sign(p.header("alg", ""), payload()), fleetkey.ErrWrongAlgorithm},
			{"alg none, no segment for the signature", b64(p.header("alg", `"none"`)) + "." + b64(payload()), fleetkey.ErrMalformed},
			{"alg none, one byte of signature", b64(p.header("alg", `"none"`)) + "." + b64(payload()) + ".AA", fleetkey.ErrWrongAlgorithm},
			{"alg none and nothing else", b64(`{"alg":"none"}`) + "." + b64(payload()) + ".AA", fleetkey.ErrMalformed},
		})
}

func badParameters(p *party) (rows []hostile) {
	own, _ := json.Marshal(jose.JSONWebKey{Key: p.private.Public()})
	stranger, _ := ecdsa.GenerateKey(p.private.(*ecdsa.PrivateKey).Curve, rand.Reader)
	theirs, _ := json.Marshal(jose.JSONWebKey{Key: stranger.Public()})
	for name, values := range map[string][]string{
		"crit": {`["exp"]`, `["b64"]`, `[]`, `"exp"`, `null`, `["alg"]`}, "b64": {`false`, `true`, `"false"`, `null`},
		"jwk": {string(own), string(theirs), `null`, `{}`}, "jku": {`"https://evil.example/jwks"`, `"` + issuer + `/.well-known/jwks.json"`, `null`},
		"x5u": {`"https://evil.example/cert"`}, "x5c": {`["AAAA"]`, `[]`}, "x5t": {`"AAAA"`, `1`}, "x5t#S256": {`"AAAA"`, `null`},
		"zip": {`"DEF"`, `null`}, "cty": {`"JWT"`, `""`}, "enc": {`"A128GCM"`}, "epk": {`{}`}, "apu": {`""`}, "p2c": {`2147483647`}, "iv": {`""`}, "tag": {`""`},
		"nonce": {`"x"`}, "iss": {`"` + issuer + `"`}, "exp": {`1`}, "svt": {`[]`}, "ppt": {`"shaken"`}, "url": {`"x"`}, "foo": {`1`}, "": {`1`}, "kid ": {`"x"`}, "ａlg": {`"x"`},
		"Alg": {`"none"`}, "ALG": {`"ES256"`}, "Kid": {`"x"`}, "KID": {`"x"`}, "\u212aid": {`"x"`}, "Typ": {`"JWT"`}, "TYP": {`"at+jwt"`}, "Crit": {`["x"]`}, "CRIT": {`["x"]`},
		// Duplicates: the name is there already.
		`\u0061lg`: {`"ES256"`, `"none"`}, `\u006bid`: {`"x"`}, `t\u0079p`: {`"at+jwt"`},
	} {
		rows = append(rows, each(name, fleetkey.ErrMalformed, p.inHeader(name), values...)...)
	}
	again := func(member string) string {
		return p.sign("{"+member+","+strings.TrimPrefix(p.header(), "{"), payload())
	}
	rows = append(rows, each("twice", fleetkey.ErrMalformed, again, `"alg":"ES256"`, `"alg":"none"`, `"kid":"`+p.kid+`"`, `"kid":""`, `"typ":"at+jwt"`, `"typ":"JWT"`)...)
	for from, to := range map[string]string{"alg": "Alg", "kid": "Kid", "typ": "Typ"} {
		rows = append(rows, hostile{"instead " + to, p.sign(strings.Replace(p.header(), from, to, 1), payload()), fleetkey.ErrMalformed})
	}
	return append(rows, hostile{"jwk of the attacker, who signed",
		signWith(jwt.SigningMethodES256, stranger, p.header("jwk", string(theirs), "kid", ""), payload()), fleetkey.ErrMalformed})
}

func badTypes(p *party) []hostile {
	return slices.Concat(
		each("typ", fleetkey.ErrWrongType, p.inHeader("typ"),
			"", `""`, `"JWT"`, `"jwt"`, `"at"`, `"jwt+at"`, `"at+jwt "`, `" at+jwt"`, `"at+jwt\u0000"`, `"at jwt"`, `"at-jwt"`, `"at%2Bjwt"`, `"at+jwt;charset=utf-8"`, `"at+jws"`,
			`"logout+jwt"`, `"id+jwt"`, `"dpop+jwt"`, `"secevent+jwt"`, `"oauth-authz-req+jwt"`, `"JOSE"`, `"application/"`, `"application/jwt"`,
			`"application/application/at+jwt"`, `"text/at+jwt"`, `"/at+jwt"`, `"application/at+jwt;v=1"`, `"application/ at+jwt"`,
			// Letters that Unicode lowers or folds to ASCII.
			`"appl\u0130cation/at+jwt"`, `"application/at+\u0458wt"`, `"ａt+jwt"`),
		each("typ", fleetkey.ErrMalformed, p.inHeader("typ"), `null`, `1`, `true`, `["at+jwt"]`, `{}`))
}

func badKeyIDs(p *party) []hostile {
	return slices.Concat(
		each("kid", fleetkey.ErrMalformed, p.inHeader("kid"), "", `""`, `null`, `0`, `1`, `-1`, `true`, `["`+p.kid+`"]`, `{"kid":"`+p.kid+`"}`,
			`"`+strings.Repeat("k", 129)+`"`, `"`+strings.Repeat("é", 65)+`"`, `"`+strings.Repeat("k", 10000)+`"`, `"\ud800"`, "\"\xff\"", "\"\n\""),
		each("kid", fleetkey.ErrUnknownKey, p.inHeader("kid"), `"`+strings.Repeat("k", 128)+`"`, `"x"`, `"0"`, `" "`, `"\u0000"`, `"null"`,
			`"../../../../dev/null"`, `"/etc/passwd"`, `"..\\..\\key.pem"`, `"file:///dev/null"`, `"https://evil.example/key"`,
			`"' OR 1=1 --"`, `"x' UNION SELECT 'secret"`, `"*)(uid=*"`, `"$(id)"`, `"|/usr/bin/id"`, `"\r\nlog: forged"`, `"%s%n"`,
			`"`+p.kid[:42]+`"`, `"`+p.kid+` "`, `"`+p.kid+`="`, `"`+p.kid+`\u0000"`, `"`+strings.ToLower(p.kid)+`"`, `"`+p.kid+p.kid+`"`))
}

// badCharacters spoils a good token's text; the signature is over the good one.
func badCharacters(p *party) []hostile {
	good := p.good()
	parts := strings.Split(good, ".")
	join := func(parts ...string) string { return strings.Join(parts, ".") }
	loose := func(s string) string { // the same bytes, with an unused bit set
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return s[:len(s)-1] + string(alphabet[strings.IndexByte(alphabet, s[len(s)-1])|1])
	}
	// Segments of a length that leaves bits unused.
	header, body := p.header(), payload()
	for len(header)%3 == 0 {
		header += " "
	}
	for len(body)%3 == 0 {
		body += " "
	}
	h, b := b64(header), b64(body)
	resign := func(signed string) string {
		signature, _ := jwt.GetSigningMethod(p.alg).Sign(signed, p.private)
		return signed + "." + b64(signature)
	}
	rows := []hostile{
		{"header not canonical", resign(loose(h) + "." + b), fleetkey.ErrMalformed},
		{"payload not canonical", resign(h + "." + loose(b)), fleetkey.ErrMalformed},
		{"signature not canonical", join(parts[0], parts[1], loose(parts[2])), fleetkey.ErrMalformed},
		{"header padded", resign(base64.URLEncoding.EncodeToString([]byte(header)) + "." + b), fleetkey.ErrMalformed},
		{"payload padded", resign(h + "." + base64.URLEncoding.EncodeToString([]byte(body))), fleetkey.ErrMalformed},
		{"signature padded", good + "==", fleetkey.ErrMalformed},
		{"header too short by one", resign(parts[0] + "A." + parts[1]), fleetkey.ErrMalformed},
		{"payload of one character", resign(parts[0] + ".A"), fleetkey.ErrMalformed},
		{"payload of an impossible length", resign(parts[0] + "." + b64("abc") + "A"), fleetkey.ErrMalformed},
		{"standard base64", resign(parts[0] + "." + base64.RawStdEncoding.EncodeToString([]byte(payload("x", `"???>>>~~~"`)))), fleetkey.ErrMalformed},
		{"header in hexadecimal", resign(fmt.Sprintf("%x", p.header()) + "." + parts[1]), fleetkey.ErrMalformed},
	}
	for _, extra := range []string{"\n", "\r", "\r\n", " ", "\t", "\x00", "=", "é", "．", "%2E", "\u200b", "\ufeff", "\xff", "+", "/", "~", ",", `"`} {
		rows = append(rows,
			hostile{fmt.Sprintf("%q before", extra), extra + good, fleetkey.ErrMalformed},
			hostile{fmt.Sprintf("%q behind", extra), good + extra, fleetkey.ErrMalformed},
			hostile{fmt.Sprintf("%q in the header", extra), parts[0][:8] + extra + parts[0][8:] + "." + parts[1] + "." + parts[2], fleetkey.ErrMalformed},
			hostile{fmt.Sprintf("%q in the payload, signed so", extra), resign(parts[0] + "." + parts[1][:8] + extra + parts[1][8:]), fleetkey.ErrMalformed},
			hostile{fmt.Sprintf("%q in the signature", extra), good[:len(good)-8] + extra + good[len(good)-8:], fleetkey.ErrMalformed},
		)
	}
	return rows
}

func badForms(p *party) []hostile {
	good := p.good()
	parts := strings.Split(good, ".")
	flat := fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
	long := p.sign(p.header(), payload("x", `"`+strings.Repeat("x", fleetkey.MaxTokenSize)+`"`))
	justOver := p.sign(p.header(), payload("x", `"`+strings.Repeat("x", 11900)+`"`))
	for n := 11901; len(justOver) <= fleetkey.MaxTokenSize; n++ {
		justOver = p.sign(p.header(), payload("x", `"`+strings.Repeat("x", n)+`"`))
	}
	return each("form", fleetkey.ErrMalformed, func(token string) string { return token },
		"", ".", "..", "...", "A", "A.B", "A.B.C.D", "a.b.c", parts[0], parts[0]+"."+parts[1], parts[0]+"."+parts[1]+".", parts[0]+".."+parts[2], "."+parts[1]+"."+parts[2],
		"."+good, good+".", good+"."+parts[2], good+"."+good, good+"...", strings.Replace(good, ".", "..", 1), strings.ReplaceAll(good, ".", "-"), "Bearer "+good, `"`+good+`"`, "<"+good+">", good+", "+good,
		flat, `{"payload":"`+parts[1]+`","signatures":[`+flat+`]}`, "["+flat+"]", b64(good), b64(flat)+"."+parts[1]+"."+parts[2],
		b64(`{"alg":"dir","enc":"A128GCM"}`)+"..AAAA.AAAA.AAAA", b64(`{"alg":"RSA-OAEP","enc":"A128GCM","kid":"`+p.kid+`"}`)+".AAAA.AAAA.AAAA.AAAA",
		long, justOver, strings.Repeat(".", 1<<20), strings.Repeat("A", 1<<20), parts[0]+"."+strings.Repeat("A", fleetkey.MaxTokenSize)+"."+parts[2], strings.Repeat("é", 9000))
}

// notJSON spoils a JSON object; what a strict reader refuses and others may not.
func notJSON(object string) []string {
	open := strings.TrimSuffix(object, "}")
	return []string{
		"null", "true", "0", `"x"`, "[]", "[" + object + "]", " ", "{", "}", open, object + "}", object + object, object + " null", object + ",", object + "\x00", object + "//", object + "\v",
		"\ufeff" + object, "\xff\xfe{\x00}\x00", ")]}'\n" + object, "/**/" + object, open + ",}", "{," + object[1:], open + `,"x"}`, open + `,"x":}`, open + `,x:1}`, open + `,'x':1}`, open + `;"x":1}`,
		open + ",\"x\":\"\xff\"}", open + ",\"x\":\"\xc0\x80\"}", open + ",\"x\":\"\xed\xa0\x80\"}", open + ",\"x\xff\":1}", open + `,"x":"\ud800"}`, open + `,"x":"\udc00\ud800"}`, open + `,"\ud800":1}`,
		open + ",\"x\":\"\n\"}", open + `,"x":"\x41"}`, open + `,"x":"\u12"}`, open + `,"x":NaN}`, open + `,"x":01}`, open + `,"x":+1}`, open + `,"x":1.}`, open + `,"x":.5}`, open + `,"x":0x1}`, open + `,"x":undefined}`, open + `,"x":True}`,
		open + `,"x":{"a":1,"a":2}}`, open + `,"x":[{"a":1,"\u0061":2}]}`, open + `,"x":1,"x":1}`, open + `,"x":` + strings.Repeat("[", 5000) + "}", strings.Repeat(`{"x":`, 1500) + "1",
	}
}

func badHeaderJSON(p *party) []hostile {
	rows := each("header", fleetkey.ErrMalformed, func(header string) string { return p.sign(header, payload()) }, notJSON(p.header())...)
	return append(rows, hostile{"header {}", p.sign("{}", payload()), fleetkey.ErrMalformed})
}

func badPayloadJSON(p *party) []hostile {
	rows := each("payload", fleetkey.ErrMalformed, func(payload string) string { return p.sign(p.header(), payload) }, notJSON(payload())...)
	return append(rows, hostile{"payload {}", p.sign(p.header(), "{}"), fleetkey.ErrMissingClaim})
}

func badTimes(p *party) (rows []hostile) {
	for _, r := range []struct {
		want    error
		changes []string
	}{
		{fleetkey.ErrExpired, []string{"iat", unix(-longest), "exp", unix(-skew)}},
		{fleetkey.ErrExpired, []string{"iat", unix(-longest), "exp", unix(-skew - time.Second)}},
		{fleetkey.ErrExpired, []string{"exp", "0"}},
		{fleetkey.ErrExpired, []string{"exp", "-0"}},
		{fleetkey.ErrExpired, []string{"exp", "1e-400"}},
		{fleetkey.ErrExpired, []string{"exp", "1", "iss", `"x"`, "aud", `"x"`}}, // the first check that fails decides
		{fleetkey.ErrNotYetValid, []string{"iat", unix(2*skew + time.Second)}},
		{fleetkey.ErrNotYetValid, []string{"iat", unix(2*skew) + ".001"}},
		{fleetkey.ErrNotYetValid, []string{"iat", unix(longest), "exp", unix(2 * longest)}},
		{fleetkey.ErrNotYetValid, []string{"nbf", unix(2*skew + time.Second)}},
		{fleetkey.ErrNotYetValid, []string{"nbf", unix(20 * time.Minute)}},
		{fleetkey.ErrNotYetValid, []string{"nbf", "253402300799"}},
		{fleetkey.ErrInvalidClaims, []string{"exp", unix(longest + time.Second)}},
		{fleetkey.ErrInvalidClaims, []string{"exp", unix(longest) + ".001"}},
		{fleetkey.ErrInvalidClaims, []string{"exp", "253402300799"}},
		{fleetkey.ErrInvalidClaims, []string{"iat", "0"}},
		{fleetkey.ErrInvalidClaims, []string{"iat", unix(-time.Second), "exp", unix(longest)}},
		{fleetkey.ErrInvalidClaims, []string{"iat", unix(30 * time.Second), "exp", unix(30 * time.Second)}},
		{fleetkey.ErrInvalidClaims, []string{"iat", unix(30 * time.Second), "exp", unix(10 * time.Second)}},
	} {
		rows = append(rows, hostile{strings.Join(r.changes, " "), p.sign(p.header(), payload(r.changes...)), r.want})
	}
	return rows
}

func badNumbers(p *party) (rows []hostile) {
	for _, name := range []string{"exp", "iat", "nbf"} {
		rows = append(rows, each(name, fleetkey.ErrInvalidClaims, p.inPayload(name),
			`"`+unix(0)+`"`, `""`, `"tomorrow"`, `"2026-05-01T12:00:00Z"`, `null`, `true`, `[]`, `[`+unix(0)+`]`, `{}`, `{"$numberLong":"1"}`,
			`NaN`, `Infinity`, `+1777636800`, `.5`, `１`, // no number begins so
			`-1`, `-0.5`, `-1e400`, `1e400`, `1e308`, `1e12`, `253402300800`, `9223372036854775807`, `9223372036854775808`, `18446744073709551617`, `1`+strings.Repeat("0", 5000))...)
		rows = append(rows, each(name, fleetkey.ErrMalformed, p.inPayload(name),
			`-Infinity`, `0x69F4`, `01777636800`, `1_777_636_800`, `1.`, `1e`, `1,777`, `--1`)...)
	}
	return rows
}

// badNames: a claim may be there once, under its own name.
func badNames(p *party) (rows []hostile) {
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope"} {
		capital := strings.ToUpper(name[:1]) + name[1:]
		rows = append(rows, hostile{"claim " + capital, p.inPayload(capital)(`1`), fleetkey.ErrInvalidClaims},
			hostile{"claim " + strings.ToUpper(name), p.inPayload(strings.ToUpper(name))(`"x"`), fleetkey.ErrInvalidClaims})
	}
	rows = append(rows, each("claim", fleetkey.ErrInvalidClaims, func(name string) string { return p.inPayload(name)(`"x"`) },
		"\u017fub", "i\u017fs", "\u017fcope", `i\u017fs`, "Client_ID", `A\u0075d`)...)
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat"} {
		rows = append(rows, hostile{"no " + name, p.inPayload(name)(""), fleetkey.ErrMissingClaim},
			hostile{"instead " + strings.ToUpper(name), p.sign(p.header(), strings.Replace(payload(), name, strings.ToUpper(name), 1)), fleetkey.ErrInvalidClaims})
	}
	again := func(member string) string { return p.sign(p.header(), "{"+member+","+payload()[1:]) }
	return append(rows, each("twice", fleetkey.ErrMalformed, again, `"iss":"https://evil.example"`, `"iss":"`+issuer+`"`, `"sub":"root"`, `"aud":"x"`, `"exp":1`,
		`"exp":`+unix(30*time.Minute), `"iat":0`, `"\u0069ss":"x"`, `"ex\u0070":1`)...)
}

func badAudiences(p *party) []hostile {
	host := strings.TrimPrefix(issuer, "https://")
	return slices.Concat(
		each("iss", fleetkey.ErrWrongIssuer, p.inPayload("iss"), `"https://id.exampl"`, `"https://id.example/"`, `"https://ID.example"`, `"HTTPS://id.example"`, `"http://id.example"`, `"`+host+`"`,
			`"https://id.example:443"`, `"https://id.example.evil.example"`, `"https://evil.example"`, `"https://id.example#x"`, `" https://id.example"`, `"https://id.example\u0000"`, `"`+api+`"`, `"*"`),
		each("iss", fleetkey.ErrMissingClaim, p.inPayload("iss"), `""`),
		each("sub", fleetkey.ErrMissingClaim, p.inPayload("sub"), `""`),
		each("aud", fleetkey.ErrMissingClaim, p.inPayload("aud"), `[]`),
		each("aud", fleetkey.ErrWrongAudience, p.inPayload("aud"), `""`, `[""]`, `"https://api.exampl"`, `"https://api.example/"`, `"https://api.example.evil"`, `"HTTPS://api.example"`, `"`+issuer+`"`,
			`"https://api.example urn:other-api"`, `"https://api.example,urn:other-api"`, `["urn:x","urn:y"]`, `"*"`, `"urn"`, `[" https://api.example"]`),
		each("aud", fleetkey.ErrInvalidClaims, p.inPayload("aud"), `null`, `1`, `true`, `{}`, `{"`+api+`":true}`, `[["`+api+`"]]`, `["`+api+`",null]`, `["`+api+`",1]`, `["`+api+`",{}]`, `[null]`, `[true,"`+api+`"]`))
}

func badClaimTypes(p *party) (rows []hostile) {
	for _, name := range []string{"iss", "sub", "jti", "client_id"} {
		rows = append(rows, each(name, fleetkey.ErrInvalidClaims, p.inPayload(name), `null`, `1`, `true`, `["`+issuer+`"]`, `{"x":"y"}`)...)
	}
	// An array of scopes is common; one that would join to others is not.
	return append(rows, each("scope", fleetkey.ErrInvalidClaims, p.inPayload("scope"), `null`, `1`, `true`, `{"x":"y"}`, `["read write"]`, `["read",""]`, `[" "]`, `["read",1]`, `["read",null]`, `[["read"]]`)...)
}
