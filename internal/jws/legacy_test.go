package jws_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// TestKindsOfFormerTokens: by the former rules the claims have to show that a token is an
// access token. The audience api is a URI, and client is the name of a client.
func TestKindsOfFormerTokens(t *testing.T) {
	p := newParty(t, "ES256")
	p.trusts(t, true)
	const client = "web-client"
	defer func(before []string) { rules.Audience = before }(rules.Audience)
	rules.Audience = []string{api, client}
	toClient := func(more ...string) []string { return append([]string{"aud", `"` + client + `"`}, more...) }
	cognito := func(more ...string) []string {
		return append([]string{"aud", "", "client_id", `"` + client + `"`, "token_use", `"access"`}, more...)
	}
	for name, test := range map[string]struct {
		claims []string
		want   error
	}{
		"for an API":                   {nil, nil},
		"token_use access":             {[]string{"token_use", `"access"`}, nil},
		"token_use id":                 {[]string{"token_use", `"id"`, "scope", `"a"`}, jws.ErrWrongType},
		"token_use in capitals":        {[]string{"token_use", `"ACCESS"`}, jws.ErrWrongType},
		"token_use of a wrong type":    {[]string{"token_use", `["access"]`}, jws.ErrWrongType},
		"token_use null":               {[]string{"token_use", `null`}, nil},
		"typ Bearer":                   {[]string{"typ", `"Bearer"`}, nil},
		"typ bearer":                   {[]string{"typ", `"bearer"`}, nil},
		"typ ID":                       {[]string{"typ", `"ID"`, "scope", `"a"`}, jws.ErrWrongType},
		"typ Refresh":                  {[]string{"typ", `"Refresh"`, "scope", `"a"`}, jws.ErrWrongType},
		"typ Offline":                  {[]string{"typ", `"Offline"`}, jws.ErrWrongType},
		"typ of a wrong type":          {[]string{"typ", `7`}, jws.ErrWrongType},
		"at_hash":                      {[]string{"at_hash", `"x"`, "scope", `"a"`}, jws.ErrWrongType},
		"c_hash":                       {[]string{"c_hash", `"x"`, "typ", `"Bearer"`}, jws.ErrWrongType},
		"nonce":                        {[]string{"nonce", `"x"`, "scope", `"a"`}, jws.ErrWrongType},
		"an empty nonce":               {[]string{"nonce", `""`}, jws.ErrWrongType},
		"events":                       {[]string{"events", `{"http://schemas.openid.net/event/backchannel-logout":{}}`}, jws.ErrWrongType},
		"for a client":                 {toClient(), jws.ErrWrongType},
		"with scope":                   {toClient("scope", `"a"`), nil},
		"with an empty scope":          {toClient("scope", `""`), jws.ErrWrongType},
		"with no scope in its array":   {toClient("scp", `[]`), jws.ErrWrongType},
		"with scp":                     {toClient("scp", `"a"`), nil},
		"with roles of an app":         {toClient("roles", `["a"]`, "azp", `"x"`), nil},
		"with roles of an appid":       {toClient("roles", `["a"]`, "appid", `"x"`), nil},
		"with roles in an ID token":    {toClient("roles", `["a"]`), jws.ErrWrongType},
		"with no roles":                {toClient("roles", `[]`, "azp", `"x"`), jws.ErrWrongType},
		"with roles that are none":     {toClient("roles", `false`, "azp", `"x"`), jws.ErrWrongType},
		"with a blank scope":           {toClient("scope", `" "`), jws.ErrWrongType},
		"with roles null":              {toClient("roles", `null`), jws.ErrWrongType},
		"with typ Bearer":              {toClient("typ", `"Bearer"`), nil},
		"with token_use access":        {toClient("token_use", `"access"`), nil},
		"the URI is the client's":      {[]string{"client_id", `"` + api + `"`}, jws.ErrWrongType},
		"it is the appid":              {[]string{"appid", `"` + api + `"`}, jws.ErrWrongType},
		"it is the azp, not the appid": {[]string{"appid", `"x"`, "azp", `"` + api + `"`}, jws.ErrWrongType},
		"nor one that comes later":     {[]string{"azp", `"` + api + `"`, "appid", `"x"`}, jws.ErrWrongType},
		"it is the azp":                {[]string{"azp", `"` + api + `"`}, jws.ErrWrongType},
		"for a client and an API":      {[]string{"aud", `["` + client + `","` + api + `"]`}, nil},
		"for another API and a client": {[]string{"aud", `["` + client + `","https://x"]`}, jws.ErrWrongType},
		"Cognito":                      {cognito(), nil},
		"Cognito, another client":      {cognito("client_id", `"other"`), jws.ErrWrongAudience},
		"Cognito, an empty aud":        {cognito("aud", `[]`), nil},
		"no aud, no token_use":         {cognito("token_use", ""), jws.ErrMissingClaim},
		"no aud, token_use id":         {cognito("token_use", `"id"`), jws.ErrMissingClaim},
		"no aud, no client":            {cognito("client_id", ""), jws.ErrMissingClaim},
		"no aud, the client in azp":    {cognito("client_id", "", "azp", `"`+client+`"`), jws.ErrMissingClaim},
		"no aud, with a nonce":         {cognito("nonce", `"x"`), jws.ErrWrongType},
	} {
		_, err := p.verify(p.Forge(p.Header("typ", `"JWT"`), payload(test.claims...)))
		require.ErrorIs(t, err, test.want, name)
	}
	p.trusts(t, false)
	for _, claims := range [][]string{cognito(), toClient("aud", "")} {
		_, err := p.verify(p.Forge(p.Header(), payload(claims...)))
		require.ErrorIs(t, err, jws.ErrMissingClaim, "an absent aud is for the former rules alone")
	}
}
