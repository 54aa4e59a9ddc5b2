package jws_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
)

// badCharacters returns variants of a valid token's text; the signature is for the original.
func badCharacters(p *party) []hostile {
	good := p.good()
	parts := strings.Split(good, ".")
	join := func(parts ...string) string { return strings.Join(parts, ".") }
	loose := func(s string) string { // decodes to the same bytes, but has an unused bit set
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return s[:len(s)-1] + string(alphabet[strings.IndexByte(alphabet, s[len(s)-1])|1])
	}
	// Choose lengths that leave unused bits in the last character.
	header, body := p.Header(), payload()
	for len(header)%3 == 0 {
		header += " "
	}
	for len(body)%3 == 0 {
		body += " "
	}
	h, b := b64(header), b64(body)
	resign := func(signed string) string {
		return jwstest.SignSegments(jwt.GetSigningMethod(p.Alg), p.Private, signed)
	}
	rows := []hostile{
		{"header not canonical", resign(loose(h) + "." + b), jws.ErrMalformed},
		{"payload not canonical", resign(h + "." + loose(b)), jws.ErrMalformed},
		{"signature not canonical", join(parts[0], parts[1], loose(parts[2])), jws.ErrMalformed},
		{"header padded", resign(base64.URLEncoding.EncodeToString([]byte(header)) + "." + b), jws.ErrMalformed},
		{"payload padded", resign(h + "." + base64.URLEncoding.EncodeToString([]byte(body))), jws.ErrMalformed},
		{"signature padded", good + "==", jws.ErrMalformed},
		{"payload of an impossible length", resign(parts[0] + "." + b64("abc") + "A"), jws.ErrMalformed},
		{"standard base64", resign(parts[0] + "." + base64.RawStdEncoding.EncodeToString([]byte(payload("x", `"???>>>~~~"`)))), jws.ErrMalformed},
	}
	for _, extra := range []string{"\n", "\r", "\r\n", " ", "\t", "\x00", "=", "é", "．", "%2E", "\u200b", "\ufeff", "\xff", "+", "/", "~", ",", `"`} {
		rows = append(rows,
			hostile{fmt.Sprintf("%q before", extra), extra + good, jws.ErrMalformed},
			hostile{fmt.Sprintf("%q behind", extra), good + extra, jws.ErrMalformed},
			hostile{fmt.Sprintf("%q in the header", extra), parts[0][:8] + extra + parts[0][8:] + "." + parts[1] + "." + parts[2], jws.ErrMalformed},
			hostile{fmt.Sprintf("%q in the payload, signed so", extra), resign(parts[0] + "." + parts[1][:8] + extra + parts[1][8:]), jws.ErrMalformed},
			hostile{fmt.Sprintf("%q in the signature", extra), good[:len(good)-8] + extra + good[len(good)-8:], jws.ErrMalformed},
		)
	}
	return rows
}

func badForms(p *party) []hostile {
	good := p.good()
	parts := strings.Split(good, ".")
	flat := fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
	long := p.Forge(p.Header(), payload("x", `"`+strings.Repeat("x", jws.MaxTokenSize)+`"`))
	justOver := p.Forge(p.Header(), payload("x", `"`+strings.Repeat("x", 11900)+`"`))
	for n := 11901; len(justOver) <= jws.MaxTokenSize; n++ {
		justOver = p.Forge(p.Header(), payload("x", `"`+strings.Repeat("x", n)+`"`))
	}
	return each("form", jws.ErrMalformed, func(token string) string { return token },
		"", ".", "..", "...", "A", "A.B", "A.B.C.D", "a.b.c", parts[0], parts[0]+"."+parts[1], parts[0]+"."+parts[1]+".", parts[0]+".."+parts[2], "."+parts[1]+"."+parts[2],
		"."+good, good+".", good+"."+parts[2], good+"."+good, good+"...", strings.Replace(good, ".", "..", 1), strings.ReplaceAll(good, ".", "-"), "Bearer "+good, `"`+good+`"`, "<"+good+">", good+", "+good,
		flat, `{"payload":"`+parts[1]+`","signatures":[`+flat+`]}`, "["+flat+"]", b64(good), b64(flat)+"."+parts[1]+"."+parts[2],
		b64(`{"alg":"dir","enc":"A128GCM"}`)+"..AAAA.AAAA.AAAA", b64(`{"alg":"RSA-OAEP","enc":"A128GCM","kid":"`+p.KID+`"}`)+".AAAA.AAAA.AAAA.AAAA",
		long, justOver, strings.Repeat(".", 1<<20), strings.Repeat("A", 1<<20), parts[0]+"."+strings.Repeat("A", jws.MaxTokenSize)+"."+parts[2], strings.Repeat("é", 9000))
}

// notJSON returns invalid variants of a JSON object, some of which lenient parsers accept.
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
	rows := each("header", jws.ErrMalformed, func(header string) string { return p.Forge(header, payload()) }, notJSON(p.Header())...)
	return append(rows, hostile{"header {}", p.Forge("{}", payload()), jws.ErrMalformed})
}

func badPayloadJSON(p *party) []hostile {
	rows := each("payload", jws.ErrMalformed, func(payload string) string { return p.Forge(p.Header(), payload) }, notJSON(payload())...)
	return append(rows, hostile{"payload {}", p.Forge(p.Header(), "{}"), jws.ErrMissingClaim})
}

func badTimes(p *party) (rows []hostile) {
	for want, tokens := range map[error][][]string{
		jws.ErrExpired: {
			{"iat", unix(-longest), "exp", unix(-skew)}, {"iat", unix(-longest), "exp", unix(-skew - time.Second)},
			{"exp", "0"}, {"exp", "-0"}, {"exp", "1e-400"},
			{"exp", "1", "iss", `"x"`, "aud", `"x"`}, // the first failing check decides
		},
		jws.ErrNotYetValid: {
			{"iat", unix(2*skew + time.Second)}, {"iat", unix(2*skew) + ".001"}, {"iat", unix(longest), "exp", unix(2 * longest)},
			{"nbf", unix(2*skew + time.Second)}, {"nbf", unix(20 * time.Minute)}, {"nbf", "253402300799"},
		},
		jws.ErrInvalidClaims: {
			{"exp", unix(longest + time.Second)}, {"exp", unix(longest) + ".001"}, {"exp", "253402300799"},
			{"iat", "0"}, {"iat", unix(-time.Second), "exp", unix(longest)},
			{"iat", unix(30 * time.Second), "exp", unix(30 * time.Second)}, {"iat", unix(30 * time.Second), "exp", unix(10 * time.Second)},
		},
	} {
		for _, changes := range tokens {
			rows = append(rows, hostile{strings.Join(changes, " "), p.Forge(p.Header(), payload(changes...)), want})
		}
	}
	return rows
}

func badNumbers(p *party) (rows []hostile) {
	for _, name := range []string{"exp", "iat", "nbf"} {
		rows = append(rows, each(name, jws.ErrInvalidClaims, p.inPayload(name),
			`"`+unix(0)+`"`, `""`, `"tomorrow"`, `"2026-05-01T12:00:00Z"`, `null`, `true`, `[]`, `[`+unix(0)+`]`, `{}`, `{"$numberLong":"1"}`,
			`NaN`, `Infinity`, `+1777636800`, `.5`, `１`, // no JSON number begins like this
			`-1`, `-0.5`, `-1e400`, `1e400`, `1e308`, `1e12`, `253402300800`, `9223372036854775807`, `9223372036854775808`, `18446744073709551617`, `1`+strings.Repeat("0", 5000))...)
		rows = append(rows, each(name, jws.ErrMalformed, p.inPayload(name),
			`-Infinity`, `0x69F4`, `01777636800`, `1_777_636_800`, `1.`, `1e`, `1,777`, `--1`)...)
	}
	return rows
}

// badNames: a claim may appear only once, under its exact name.
func badNames(p *party) (rows []hostile) {
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope"} {
		capital := strings.ToUpper(name[:1]) + name[1:]
		rows = append(rows, hostile{"claim " + capital, p.inPayload(capital)(`1`), jws.ErrInvalidClaims},
			hostile{"claim " + strings.ToUpper(name), p.inPayload(strings.ToUpper(name))(`"x"`), jws.ErrInvalidClaims})
	}
	rows = append(rows, each("claim", jws.ErrInvalidClaims, func(name string) string { return p.inPayload(name)(`"x"`) },
		"\u017fub", "i\u017fs", "\u017fcope", `i\u017fs`, "Client_ID", `A\u0075d`)...)
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat"} {
		rows = append(rows, hostile{"no " + name, p.inPayload(name)(""), jws.ErrMissingClaim},
			hostile{"instead " + strings.ToUpper(name), p.Forge(p.Header(), strings.Replace(payload(), name, strings.ToUpper(name), 1)), jws.ErrInvalidClaims})
	}
	again := func(member string) string { return p.Forge(p.Header(), "{"+member+","+payload()[1:]) }
	return append(rows, each("twice", jws.ErrMalformed, again, `"iss":"https://evil.example"`, `"iss":"`+issuer+`"`, `"sub":"root"`, `"aud":"x"`, `"exp":1`,
		`"exp":`+unix(30*time.Minute), `"iat":0`, `"\u0069ss":"x"`, `"ex\u0070":1`)...)
}

func badAudiences(p *party) []hostile {
	host := strings.TrimPrefix(issuer, "https://")
	return slices.Concat(
		each("iss", jws.ErrWrongIssuer, p.inPayload("iss"), `"https://issuer.exampl"`, `"https://issuer.example/"`, `"https://ISSUER.example"`, `"HTTPS://issuer.example"`, `"http://issuer.example"`, `"`+host+`"`,
			`"https://issuer.example:443"`, `"https://issuer.example.evil.example"`, `"https://evil.example"`, `"https://issuer.example#x"`, `" https://issuer.example"`, `"https://issuer.example\u0000"`, `"`+api+`"`, `"*"`),
		each("iss", jws.ErrMissingClaim, p.inPayload("iss"), `""`),
		each("sub", jws.ErrMissingClaim, p.inPayload("sub"), `""`),
		each("aud", jws.ErrMissingClaim, p.inPayload("aud"), `[]`),
		each("aud", jws.ErrWrongAudience, p.inPayload("aud"), `""`, `[""]`, `"https://api.exampl"`, `"https://api.example/"`, `"https://api.example.evil"`, `"HTTPS://api.example"`, `"`+issuer+`"`,
			`"https://api.example urn:other-api"`, `"https://api.example,urn:other-api"`, `["urn:x","urn:y"]`, `"*"`, `"urn"`, `[" https://api.example"]`),
		each("aud", jws.ErrInvalidClaims, p.inPayload("aud"), `null`, `1`, `true`, `{}`, `{"`+api+`":true}`, `[["`+api+`"]]`, `["`+api+`",null]`, `["`+api+`",1]`, `["`+api+`",{}]`, `[null]`, `[true,"`+api+`"]`))
}

func badClaimTypes(p *party) (rows []hostile) {
	for _, name := range []string{"iss", "sub", "jti", "client_id"} {
		rows = append(rows, each(name, jws.ErrInvalidClaims, p.inPayload(name), `null`, `1`, `true`, `["`+issuer+`"]`, `{"x":"y"}`)...)
	}
	// An array of scopes is common, but joining it must not result in other scopes.
	return append(rows, each("scope", jws.ErrInvalidClaims, p.inPayload("scope"), `null`, `1`, `true`, `{"x":"y"}`, `["read write"]`, `["read",""]`, `[" "]`, `["read",1]`, `["read",null]`, `[["read"]]`)...)
}
