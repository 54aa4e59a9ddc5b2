package fleetkey_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// The fuzz targets compare with readers written by others. Those of tokens are here,
// those of other input in fuzz_input_test.go; the others are beside the tests of what
// they read. Run one with: go test -fuzz FuzzVerify -fuzztime 60s

// fixedParty has the same key in every process, so that a token that one has
// found is signed for all.
func fixedParty(t testing.TB) *party {
	t.Helper()
	bundle, err := os.ReadFile("fleetkeytest/testdata/ES256.pem")
	require.NoError(t, err)
	store := fleetkeytest.NewStore()
	store.Set(bundle)
	return openParty(t, store, testConfig())
}

// FuzzVerify: what Verify accepts, golang-jwt with all its options on accepts
// too, and reads the same claims. Both texts are signed as they are, and raw is
// tried as a token of its own.
func FuzzVerify(f *testing.F) {
	p := fixedParty(f)
	f.Add(p.header(), payload(), p.good())
	f.Add(p.header("typ", `"application/AT+jwt"`), payload("aud", `["x","`+otherAPI+`"]`, "x", `{"y":[1e999,"\ud83d\ude00"]}`), p.good()+".")
	f.Add(p.header(), payload("jti", `"j"`, "client_id", `"c"`, "scope", `"read write"`, "nbf", unix(0)), "")
	f.Add(p.header(), payload("jti", `"\u006a"`, "client_id", `""`, "scope", `["read","write"]`), "..")
	f.Add(p.header("crit", `["exp"]`), payload("exp", unix(time.Minute)+".5", "iat", "17776368E2", "nbf", "0"), strings.Replace(p.good(), ".", "\n.", 1))
	f.Add(p.header("alg", `"none"`), payload("Sub", `"root"`), "eyJhbGciOiJub25lIn0.e30.")
	for _, group := range slices.Concat(hostileToAny, []func(*party) []hostile{badSignatures}) {
		for _, row := range group(p) {
			f.Add(segmentText(row.token, 0), segmentText(row.token, 1), row.token[:min(len(row.token), 1<<15)])
		}
	}
	options := jwt.WithJSONNumber() // else golang-jwt refuses what float64 cannot hold
	f.Fuzz(func(t *testing.T, header, payload, raw string) {
		for _, text := range []string{p.sign(header, payload), raw} {
			token, err := p.Verify(t.Context(), text)
			if err != nil {
				require.Nil(t, token)
				continue
			}
			claims := jwt.MapClaims{}
			other := parser("ES256", noon)
			options(other)
			_, err = other.ParseWithClaims(text, claims, p.Keyfunc)
			require.NoError(t, err, "golang-jwt refuses %q", text)

			requireSameClaims(t, claims, token)
			var ours map[string]jsontext.Value
			require.NoError(t, token.Decode(&ours))
			require.Len(t, ours, len(claims), "one of them takes two names for one")
			for name, value := range ours {
				dec := json.NewDecoder(strings.NewReader(string(value)))
				dec.UseNumber()
				var same any
				require.NoError(t, dec.Decode(&same))
				require.Equal(t, claims[name], same)
			}
		}
	})
}

// segmentText is a part of a token, decoded as far as it can be.
func segmentText(token string, n int) string {
	if parts := strings.Split(token, "."); n < len(parts) && len(parts[n]) < 1<<15 {
		text, _ := base64.RawURLEncoding.DecodeString(parts[n])
		return string(text)
	}
	return ""
}

// requireSameClaims: each claim that a Token gives is what golang-jwt has read.
func requireSameClaims(t *testing.T, claims jwt.MapClaims, token *fleetkey.Token) {
	t.Helper()
	sub, _ := claims.GetSubject()
	require.Equal(t, sub, token.Subject())
	iss, _ := claims.GetIssuer()
	require.Equal(t, iss, token.Issuer())
	aud, _ := claims.GetAudience()
	require.Equal(t, []string(aud), token.Audience())
	exp, _ := claims.GetExpirationTime()
	require.Equal(t, exp.Unix(), token.ExpiresAt().Unix())
	iat, _ := claims.GetIssuedAt()
	require.Equal(t, iat.Unix(), token.IssuedAt().Unix())
	text := func(name string) string { s, _ := claims[name].(string); return s }
	require.Equal(t, text("jti"), token.ID())
	require.Equal(t, text("client_id"), token.ClientID())
	scopes := strings.Split(text("scope"), " ")
	if list, ok := claims["scope"].([]any); ok { // as IdentityServer writes it
		scopes = nil
		for _, one := range list {
			scopes = append(scopes, one.(string))
		}
	}
	require.Equal(t, strings.Join(scopes, " "), token.Scope())
	for _, scope := range scopes {
		require.Equal(t, scope != "", token.HasScope(scope))
	}
}

// FuzzHeader: a header that is accepted says alg, kid and typ, each once and
// nothing else, to a reader that knows nothing of this one.
func FuzzHeader(f *testing.F) {
	p := fixedParty(f)
	f.Add(p.header())
	f.Add(changed(nil, "typ", `"application/at+jwt"`, "kid", `"`+p.kid+`"`, "alg", `"ES256"`))
	f.Add(p.header("x5t", `"x"`))
	f.Add(p.header("Alg", `"none"`))
	f.Add(p.header("typ", `"appl\u0130cation/at+jwt"`))
	for _, group := range hostileToAny {
		for _, row := range group(p) {
			f.Add(segmentText(row.token, 0))
		}
	}
	f.Fuzz(func(t *testing.T, header string) {
		_, err := p.Verify(t.Context(), p.sign(header, payload()))
		if err != nil {
			return
		}
		members := map[string]string{}
		require.NoError(t, json.Unmarshal([]byte(header), &members))
		require.Len(t, members, 3)
		require.Equal(t, "ES256", members["alg"])
		require.Equal(t, p.kid, members["kid"])
		require.Contains(t, []string{"at+jwt", "application/at+jwt"}, strings.ToLower(members["typ"]))
		require.Equal(t, 6, strings.Count(strings.ReplaceAll(header, `\"`, ""), `"`)/2, "three names, three texts")
	})
}

func servedKeyIDs(t *testing.T, s *fleetkey.Signer) (kids []string) {
	t.Helper()
	var set struct {
		Keys []struct{ Kid string }
	}
	require.NoError(t, json.Unmarshal(body(t, ask(s.JWKS(), "GET")), &set))
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	return kids
}
