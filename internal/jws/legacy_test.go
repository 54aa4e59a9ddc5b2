package jws_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// TestKindsOfFormerTokens: by the former rules, a token may lack claims that RFC 9068 requires,
// but the claims must show that it is an access token. The audience api is a URI, and
// web-client is the name of a client.
func TestKindsOfFormerTokens(t *testing.T) {
	p := newParty(t, "ES256")
	p.trusts(t, true)
	defer func(before []string) { rules.Audience = before }(rules.Audience)
	rules.Audience = []string{api, "web-client"}
	toClient := func(more ...string) []string { return append([]string{"aud", `"web-client"`}, more...) }
	cognito := func(more ...string) []string {
		return append([]string{"aud", "", "client_id", `"web-client"`, "token_use", `"access"`}, more...)
	}
	const ofAPI = `"` + api + `"`
	for want, kinds := range map[error][][]string{
		nil: {
			{"iat", "", "sub", ""}, {"exp", unix(10 * longest)},
			{}, {"token_use", `"access"`}, {"token_use", `null`}, {"typ", `"Bearer"`}, {"typ", `"bearer"`},
			toClient("scope", `"a"`), toClient("scp", `"a"`), toClient("typ", `"Bearer"`), toClient("token_use", `"access"`),
			toClient("roles", `["a"]`, "azp", `"x"`), toClient("roles", `["a"]`, "appid", `"x"`),
			{"aud", `["web-client","` + api + `"]`}, cognito(), cognito("aud", `[]`),
		},
		jws.ErrWrongType: {
			{"token_use", `"id"`, "scope", `"a"`}, {"token_use", `"ACCESS"`}, {"token_use", `["access"]`},
			{"typ", `"ID"`, "scope", `"a"`}, {"typ", `"Refresh"`, "scope", `"a"`}, {"typ", `"Offline"`}, {"typ", `7`},
			{"at_hash", `"x"`, "scope", `"a"`}, {"c_hash", `"x"`, "typ", `"Bearer"`}, {"nonce", `"x"`, "scope", `"a"`}, {"nonce", `""`},
			{"events", `{"http://schemas.openid.net/event/backchannel-logout":{}}`}, cognito("nonce", `"x"`),
			toClient(), toClient("scope", `""`), toClient("scope", `" "`), toClient("scp", `[]`), {"aud", `["web-client","https://x"]`},
			// An ID token can have roles, but names no client other than its audience.
			toClient("roles", `["a"]`), toClient("roles", `[]`, "azp", `"x"`), toClient("roles", `false`, "azp", `"x"`), toClient("roles", `null`),
			// A URI can also be a client's name; azp takes precedence over appid.
			{"client_id", ofAPI}, {"appid", ofAPI}, {"azp", ofAPI}, {"appid", `"x"`, "azp", ofAPI}, {"azp", ofAPI, "appid", `"x"`},
		},
		jws.ErrWrongAudience: {cognito("client_id", `"other"`), {"aud", `"other"`}},
		jws.ErrWrongIssuer:   {{"iss", `"https://old.example/"`}},
		jws.ErrExpired:       {{"exp", unix(-skew)}},
		jws.ErrNotYetValid:   {{"iat", unix(3 * skew)}},
		jws.ErrMissingClaim: {{"exp", ""}, {"iss", ""},
			// aud is required, unless token_use and client_id replace it.
			cognito("token_use", ""), cognito("token_use", `"id"`), cognito("client_id", ""), cognito("client_id", "", "azp", `"web-client"`),
		},
	} {
		for _, claims := range kinds {
			for _, typ := range []string{`"JWT"`, `"jwt"`, ""} {
				_, err := p.verify(p.Forge(p.Header("typ", typ), payload(claims...)))
				require.ErrorIs(t, err, want, "%q", claims)
			}
		}
	}
	const elsewhere = "https://old.example"
	p.view.Keys[0].Issuer = elsewhere
	for is, want := range map[string]error{elsewhere: nil, elsewhere + "/": jws.ErrWrongIssuer, issuer: jws.ErrWrongIssuer} {
		_, err := p.verify(p.inPayload("iss")(`"` + is + `"`))
		require.ErrorIs(t, err, want, "a key with its own issuer, and %s", is)
	}
	p.trusts(t, false)
	for _, claims := range [][]string{cognito(), toClient("aud", "")} {
		_, err := p.verify(p.Forge(p.Header(), payload(claims...)))
		require.ErrorIs(t, err, jws.ErrMissingClaim, "only the former rules allow an absent aud")
	}
}
