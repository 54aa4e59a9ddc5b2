package fleetkey_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// The fuzz targets here are about what comes from requests and from operators.

// FuzzAuthorization: only one header, of the scheme Bearer with a token that
// Verify accepts, opens the door (RFC 6750 section 2.1). What is refused gets a
// challenge that holds nothing of the request.
func FuzzAuthorization(f *testing.F) {
	p := fixedParty(f)
	token := p.sign(p.header(), payload("scope", `"read"`))
	for _, seed := range []string{"", "Bearer", "Bearer ", "Bearer " + token, "bearer  " + token + " ", "Basic " + token, "Bearer\t" + token, "Bearer " + token + "," + token, " Bearer " + token, "DPoP " + token, "Bearer \x00"} {
		f.Add(seed, "", false)
		f.Add(seed, "Bearer "+token, true)
	}
	door := p.Require("read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, ok := fleetkey.FromContext(r.Context())
		if !ok {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	f.Fuzz(func(t *testing.T, first, second string, both bool) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{first}
		if both {
			r.Header["Authorization"] = []string{first, second}
		}
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		scheme, raw, _ := strings.Cut(first, " ")
		_, err := p.Verify(t.Context(), strings.Trim(raw, " "))
		if w.Code == http.StatusOK {
			require.False(t, both)
			require.Equal(t, "bearer", strings.ToLower(scheme))
			require.NoError(t, err)
			return
		}
		require.True(t, both || err != nil || !strings.EqualFold(scheme, "bearer"), "a good token is refused: %q", first)
		require.Contains(t, []int{400, 401}, w.Code)
		require.Regexp(t, `^Bearer( error="[a-z_]+"(, error_description="the token is [a-z]+")?)?$`, w.Header().Get("WWW-Authenticate"))
		require.Equal(t, http.StatusText(w.Code)+"\n", w.Body.String())
	})
}

// FuzzTrustedKeyID: under whatever name an operator trusts a certificate, the
// bundle stays readable, and clients are told the same name.
func FuzzTrustedKeyID(f *testing.F) {
	p := fixedParty(f)
	old := newParty(f, "ES384").SigningKey()
	for _, seed := range []string{"", "old", "a b", " a", "a: b", "Kid: x", "-----BEGIN CERTIFICATE-----", "-----END", "--", "----------", "é", "\n", "a\nb", "a\xffb", "a\n\n", `"`, "=", strings.Repeat("k", 128), strings.Repeat("k", 129)} {
		f.Add(seed)
	}
	bundle, _ := p.store.Content()
	f.Fuzz(func(t *testing.T, kid string) {
		p.store.Set(bundle)
		require.NoError(t, p.Refresh(t.Context()))
		before, version := p.store.Content()
		if err := p.Trust(t.Context(), old.Certificate, kid); err != nil {
			now, v := p.store.Content()
			require.Equal(t, version, v)
			require.Equal(t, string(before), string(now))
			return
		}
		again, err := fleetkey.NewSigner(at(noon), p.store, testConfig())
		require.NoError(t, err)
		defer again.Close()
		served := servedKeyIDs(t, again)
		if kid == "" { // the names that other systems give it
			require.GreaterOrEqual(t, len(served), 2)
			return
		}
		require.Contains(t, served, kid)
		for _, k := range again.PublicKeys() {
			require.Equal(t, k.KeyID == kid, old.Certificate.Equal(k.Certificate))
		}
	})
}

// FuzzIssue: what Issue signs, Verify and golang-jwt accept, and both read what
// was asked for, and no claim more.
func FuzzIssue(f *testing.F) {
	p := fixedParty(f)
	for _, hostile := range []string{"", "alice", `"`, `\`, "\x00", "\n", "</script>", "\u2028", "\xff", "é", "\ud7ff😀", `","admin":true,"x":"`, strings.Repeat("x", 13000)} {
		f.Add(hostile, "web", "read write", "id", "name", hostile)
		f.Add("alice", hostile, hostile, hostile, hostile, "value")
	}
	for _, name := range []string{"sub", "Sub", "\u017fub", "exp", "SCOPE", "client_id", "email", "ａud"} {
		f.Add("alice", "web", "read", "id", name, "root")
	}
	f.Fuzz(func(t *testing.T, subject, client, scope, id, name, value string) {
		token, err := p.Issue(t.Context(), fleetkey.Claims{Subject: subject, ClientID: client, Scope: scope, ID: id, Extra: map[string]any{name: value}})
		if err != nil {
			require.Empty(t, token)
			return
		}
		for _, text := range []string{subject, client, scope, id, name, value} {
			require.True(t, utf8.ValidString(text))
		}
		verified, err := p.Verify(t.Context(), token)
		require.NoError(t, err)
		claims := jwt.MapClaims{}
		_, err = parser("ES256", noon).ParseWithClaims(token, claims, p.Keyfunc)
		require.NoError(t, err)
		requireSameClaims(t, claims, verified)
		want := jwt.MapClaims{"iss": issuer, "sub": subject, "aud": []any{api, otherAPI}, "exp": float64(noon.Add(time.Hour).Unix()), "iat": float64(noon.Unix()), "jti": id, "client_id": client, "scope": scope, name: value}
		if subject == "" {
			want["sub"] = client
		}
		if id == "" {
			require.Len(t, verified.ID(), 26)
			want["jti"] = verified.ID()
		}
		for _, name := range []string{"client_id", "scope"} {
			if want[name] == "" {
				delete(want, name)
			}
		}
		require.Equal(t, want, claims)
	})
}
