package jws_test

import (
	stdjson "encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
)

// FuzzVerify: golang-jwt with its strictest options accepts every token that is accepted here,
// and reads the same claims. encoding/json reads the same header. header and payload are
// signed as they are; raw is a complete token.
func FuzzVerify(f *testing.F) {
	p := newParty(f, "ES256")
	seeds := append(goodTokens(p), p.good()+".", strings.Replace(p.good(), ".", "\n.", 1), "..", "eyJhbGciOiJub25lIn0.e30.")
	for _, group := range slices.Concat(hostileToAny, []func(*party) []hostile{badSignatures}) {
		for _, row := range group(p) {
			seeds = append(seeds, row.token)
		}
	}
	for _, token := range seeds {
		f.Add(segmentText(token, 0), segmentText(token, 1), token[:min(len(token), 1<<15)])
	}
	f.Fuzz(func(t *testing.T, header, payload, raw string) {
		for _, token := range []string{p.Forge(header, payload), raw} {
			ours, err := p.verify(token)
			if err != nil {
				require.Nil(t, ours)
				continue
			}
			theirs := jwt.MapClaims{}
			_, err = jwstest.Strict("ES256", noon).ParseWithClaims(token, theirs, p.keyfunc)
			require.NoError(t, err, "golang-jwt rejects %q", token)
			requireSameClaims(t, theirs, ours)
			requireThreeNames(t, p, segmentText(token, 0))
			require.Equal(t, segmentText(token, 1), ours.Text)
			var members map[string]jsontext.Value
			require.NoError(t, json.Unmarshal([]byte(ours.Text), &members))
			require.Len(t, members, len(theirs), "a parser confuses two names")
		}
	})
}

// segmentText returns a segment of a token, decoded as far as possible.
func segmentText(token string, n int) string {
	if parts := strings.Split(token, "."); n < len(parts) && len(parts[n]) < 1<<15 {
		return string(signatureOf(parts[n]))
	}
	return ""
}

// requireThreeNames checks that, for encoding/json too, an accepted header contains alg, kid
// and typ once each, and nothing else.
func requireThreeNames(t *testing.T, p *party, header string) {
	t.Helper()
	members := map[string]string{}
	require.NoError(t, stdjson.Unmarshal([]byte(header), &members))
	require.Contains(t, []string{"at+jwt", "application/at+jwt"}, strings.ToLower(members["typ"]))
	require.Equal(t, map[string]string{"alg": "ES256", "kid": p.KID, "typ": members["typ"]}, members)
	require.Equal(t, 6, strings.Count(strings.ReplaceAll(header, `\"`, ""), `"`)/2, "a header must have three names and three values")
}

// requireSameClaims checks that golang-jwt has read the same claims.
func requireSameClaims(t *testing.T, theirs jwt.MapClaims, ours *jws.Claims) {
	t.Helper()
	exp, _ := theirs.GetExpirationTime()
	require.Equal(t, exp.Unix(), ours.ExpiresAt.Unix())
	iat, _ := theirs.GetIssuedAt()
	require.Equal(t, iat.Unix(), ours.IssuedAt.Unix())
	if nbf, _ := theirs.GetNotBefore(); nbf != nil {
		require.Equal(t, nbf.Unix(), ours.NotBefore.Unix())
	}
	aud, _ := theirs.GetAudience()
	require.Equal(t, []string(aud), ours.Audience)
	text := func(name string) string { s, _ := theirs[name].(string); return s }
	scope := text("scope")
	if list, ok := theirs["scope"].([]any); ok { // as IdentityServer writes it
		for _, one := range list {
			scope += " " + one.(string)
		}
		scope = strings.TrimPrefix(scope, " ")
	}
	require.Equal(t, []string{text("iss"), text("sub"), text("jti"), text("client_id"), scope},
		[]string{ours.Issuer, ours.Subject, ours.ID, ours.ClientID, ours.Scope})
}
