package verifying

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// document is what discovery says.
func document(issuer, keys string) http.HandlerFunc {
	return testkit.Page(`{"issuer":"` + issuer + `","jwks_uri":"` + keys + `"}`)
}

// TestDiscoveryFinds: where the document of an issuer is, and which JWKS it may name.
func TestDiscoveryFinds(t *testing.T) {
	const other = "https://keys.example/jwks"
	for name, test := range map[string]struct {
		issuer, at, keys string
		want             string // "": the keys are there
	}{
		"no path":                 {"https://a.example", "https://a.example/.well-known/openid-configuration", other, ""},
		"a slash":                 {"https://a.example/", "https://a.example/.well-known/openid-configuration", other, ""},
		"a path":                  {"https://a.example/realms/r", "https://a.example/realms/r/.well-known/openid-configuration", other, ""},
		"a path and a slash":      {"https://a.example/t/", "https://a.example/t/.well-known/openid-configuration", other, ""},
		"a port":                  {"https://a.example:8443", "https://a.example:8443/.well-known/openid-configuration", other, ""},
		"RFC 8414":                {"https://a.example", "https://a.example/.well-known/oauth-authorization-server", other, ""},
		"RFC 8414 with a path":    {"https://a.example/realms/r", "https://a.example/.well-known/oauth-authorization-server/realms/r", other, ""},
		"RFC 8414 with a slash":   {"https://a.example/t/", "https://a.example/.well-known/oauth-authorization-server/t", other, ""},
		"nowhere":                 {"https://a.example", "https://b.example", other, "HTTP status 404"},
		"keys without TLS":        {"https://a.example", "https://a.example/.well-known/openid-configuration", "http://keys.example/jwks", "without TLS"},
		"keys on this machine":    {"https://a.example", "https://a.example/.well-known/openid-configuration", "https://127.0.0.1/jwks", "it is on this machine"},
		"and by name":             {"https://a.example", "https://a.example/.well-known/openid-configuration", "http://localhost:1/jwks", "it is on this machine"},
		"by an odd name":          {"https://a.example", "https://a.example/.well-known/openid-configuration", "https://LocalHost./jwks", "it is on this machine"},
		"by no address":           {"https://a.example", "https://a.example/.well-known/openid-configuration", "https://[::]/jwks", "it is on this machine"},
		"by a short address":      {"https://a.example", "https://a.example/.well-known/openid-configuration", "https://127.1/jwks", "it is on this machine"},
		"both are":                {"http://localhost:1", "http://localhost:1/.well-known/openid-configuration", "http://127.0.0.1:2/jwks", ""},
		"no keys":                 {"https://a.example", "https://a.example/.well-known/openid-configuration", "", `jwks_uri "" of "https://a.example": it is not an https URL`},
		"keys without a host":     {"https://a.example", "https://a.example/.well-known/openid-configuration", "/jwks", "not an https URL"},
		"keys with a password":    {"https://a.example", "https://a.example/.well-known/openid-configuration", "https://u:p@keys.example/jwks", "it holds a user name"},
		"keys of another scheme":  {"https://a.example", "https://a.example/.well-known/openid-configuration", "file:///etc/jwks", "not an https URL"},
		"keys that are elsewhere": {"https://a.example", "https://a.example/.well-known/openid-configuration", other + "2", "https://keys.example/jwks2: HTTP status 404"},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
				p.Serve(test.at, document(test.issuer, test.keys))
				for _, at := range []string{other, "http://127.0.0.1:2/jwks"} {
					p.Serve(at, testkit.Page(jwks))
				}
				v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Issuer = test.issuer })
				_, err := v.Verify(t.Context(), testkit.AccessToken(key, "iss", `"`+test.issuer+`"`))
				if test.want == "" {
					require.NoError(t, err)
					require.Len(t, p.Requests(test.keys), 1)
					return
				}
				require.ErrorIs(t, err, fleetkey.ErrUnavailable)
				require.ErrorContains(t, v.Status().LoadErr, test.want)
			})
		})
	}
}

// TestDiscoveryHangs: an issuer whose keys can be fetched needs no discovery for that.
func TestDiscoveryHangs(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v := p.Verifier(t)
		p.Serve(testkit.DiscoveryURL, testkit.Slowly(time.Hour, nil))
		time.Sleep(50 * time.Hour)
		require.Zero(t, v.Status().Counters.FailedLoads)
		require.LessOrEqual(t, len(p.Requests(testkit.DiscoveryURL)), 3, "once a day")
		_, err := v.Verify(t.Context(), testkit.AccessToken(key))
		require.NoError(t, err)
	})
}

// TestDiscoveryOfAnotherIssuer: no other try can help, so NewVerifier says what to change.
func TestDiscoveryOfAnotherIssuer(t *testing.T) {
	for says, want := range map[string]string{
		jwstest.Issuer + "/":                                "they differ in the slash at the end",
		"HTTPS://ISSUER.example":                            "set VerifierConfig.Issuer to what tokens have as iss",
		"https://evil.example":                              "set VerifierConfig.Issuer to what tokens have as iss",
		"https://login.microsoftonline.com/{tenantid}/v2.0": "use the issuer of one tenant",
		strings.Repeat("x", 100_000):                        strings.Repeat("x", 100),
	} {
		testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, _ *jwstest.Forger, _ string) {
			p.Serve(testkit.DiscoveryURL, document(says, testkit.JWKSURL))
			v, err := fleetkey.NewVerifier(t.Context(), p.Config())
			require.Nil(t, v)
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, `"`+jwstest.Issuer+`"`)
			require.ErrorContains(t, err, says[:min(len(says), 50)])
			require.Less(t, len(err.Error()), 600)
			require.Empty(t, p.Requests(testkit.JWKSURL))
		})
	}
}

// TestDiscoveryThatIsNone: whatever is wrong with the document besides its issuer, the
// Verifier keeps trying.
func TestDiscoveryThatIsNone(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"500": testkit.Answer(500, ""), "HTML": testkit.Page("<html>secret of the server</html>"), "no issuer": testkit.Page("{}"), "a list": testkit.Page("[]"),
		"a wrong type": testkit.Page(`{"issuer":7}`), "elsewhere": testkit.Answer(302, "https://evil.example/"), "silence": testkit.Slowly(time.Hour, nil),
		"huge": testkit.Page(`{"issuer":"` + strings.Repeat("x", 1<<20)),
	} {
		testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
			p.Serve(testkit.DiscoveryURL, answer)
			v := p.Verifier(t)
			require.ErrorIs(t, v.Status().Err, fleetkey.ErrUnavailable, name)
			require.NotContains(t, v.Status().Err.Error(), "secret of the server")
			p.Serve(testkit.DiscoveryURL, document(jwstest.Issuer, testkit.JWKSURL))
			time.Sleep(2 * time.Second)
			_, err := v.Verify(t.Context(), testkit.AccessToken(key))
			require.NoError(t, err, name)
			require.Empty(t, p.Requests("https://evil.example/"))
			require.Empty(t, p.Requests(jwstest.Issuer+"/.well-known/oauth-authorization-server"), "404 alone leads there")
		})
	}
}

// TestJWKSURLSkipsDiscovery, for issuers that have none or are no address at all.
func TestJWKSURLSkipsDiscovery(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Issuer, c.JWKSURL = "kubernetes/serviceaccount?", testkit.JWKSURL })
		other := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.JWKSURL = testkit.JWKSURL })
		p.Serve(testkit.DiscoveryURL, document("https://evil.example", testkit.JWKSURL))
		time.Sleep(48 * time.Hour)
		accepts(t, v, testkit.AccessToken(key, "iss", `"kubernetes/serviceaccount?"`))
		accepts(t, other, testkit.AccessToken(key))
		require.Empty(t, p.Requests(testkit.DiscoveryURL))
	})
}

// TestDiscoveryIsRepeated daily, and after three failures, since the keys may have moved. Its
// own failures then have no effect, but a document of another issuer is one.
func TestDiscoveryIsRepeated(t *testing.T) {
	const moved = jwstest.Issuer + "/new"
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
		good := func(v *fleetkey.Verifier) {
			t.Helper()
			_, err := v.Verify(t.Context(), testkit.AccessToken(key))
			require.NoError(t, err)
		}
		v := p.Verifier(t)
		time.Sleep(24*time.Hour - time.Minute)
		require.Len(t, p.Requests(testkit.DiscoveryURL), 1)
		p.Serve(moved, testkit.Page(jwks))
		p.Serve(testkit.DiscoveryURL, document(jwstest.Issuer, moved))
		time.Sleep(6 * time.Minute)
		require.Len(t, p.Requests(testkit.DiscoveryURL), 2)
		require.NotEmpty(t, p.Requests(moved))

		p.Serve(testkit.DiscoveryURL, document(jwstest.Issuer, testkit.JWKSURL))
		p.Serve(moved, nil)
		time.Sleep(7 * time.Minute)
		require.NoError(t, v.Status().LoadErr, "after three failures it has found the keys again")
		require.Len(t, p.Requests(testkit.DiscoveryURL), 3)

		p.Serve(testkit.DiscoveryURL, testkit.Answer(500, ""))
		time.Sleep(49 * time.Hour)
		require.NoError(t, v.Status().LoadErr)
		p.Serve(testkit.DiscoveryURL, document("https://evil.example", moved))
		time.Sleep(25 * time.Hour)
		require.ErrorContains(t, v.Status().LoadErr, "another issuer's")
		good(v)
	})
}
