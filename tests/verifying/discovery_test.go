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

// document serves a discovery document.
func document(issuer, keys string) http.HandlerFunc {
	return testkit.Page(`{"issuer":"` + issuer + `","jwks_uri":"` + keys + `"}`)
}

// TestDiscoveryFinds: where an issuer's document is found, and which JWKS URL it may contain.
func TestDiscoveryFinds(t *testing.T) {
	const config, rfc8414 = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
	const issuer, local, jwks = "https://a.example", "http://localhost:1", "https://keys.example/jwks"
	for _, test := range []struct{ issuer, at, keys, want string }{ // want "": the keys are found
		{issuer, issuer + config, jwks, ""},
		{issuer + "/", issuer + config, jwks, ""},
		{issuer + "/realms/r", issuer + "/realms/r" + config, jwks, ""},
		{issuer + "/t/", issuer + "/t" + config, jwks, ""},
		{issuer, issuer + rfc8414, jwks, ""},
		{issuer + "/realms/r", issuer + rfc8414 + "/realms/r", jwks, ""},
		{issuer + "/t/", issuer + rfc8414 + "/t", jwks, ""},
		{local, local + config, "http://127.0.0.1:2/jwks", ""},
		{issuer, "https://b.example" + config, jwks, "HTTP status 404"},
		{issuer, issuer + config, jwks + "2", jwks + "2: HTTP status 404"},
		{issuer, issuer + config, "http://keys.example/jwks", "without TLS"},
		{issuer, issuer + config, "https://127.0.0.1/jwks", "it is a loopback address"},
		{issuer, issuer + config, "https://LocalHost./jwks", "it is a loopback address"},
		{issuer, issuer + config, "https://[::]/jwks", "it is a loopback address"},
		{issuer, issuer + config, "https://127.1/jwks", "it is a loopback address"},
		{issuer, issuer + config, "", `jwks_uri "" of "https://a.example": it is not an https URL`},
	} {
		t.Run(test.at+" "+test.keys, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, set string) {
				p.Serve(test.at, document(test.issuer, test.keys))
				p.Serve(jwks, testkit.Page(set))
				p.Serve("http://127.0.0.1:2/jwks", testkit.Page(set))
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

// TestDiscoveryOfAnotherIssuer: retrying cannot help, so NewVerifier says what to change.
func TestDiscoveryOfAnotherIssuer(t *testing.T) {
	for says, want := range map[string]string{
		jwstest.Issuer + "/":                                "they differ in the trailing slash",
		"HTTPS://ISSUER.example":                            "set VerifierConfig.Issuer to the iss of the tokens",
		"https://evil.example":                              "set VerifierConfig.Issuer to the iss of the tokens",
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

// TestDiscoveryThatIsNone: if anything but the issuer is wrong with the document, the
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
			require.Empty(t, p.Requests(jwstest.Issuer+"/.well-known/oauth-authorization-server"), "only a 404 leads there")
		})
	}
}

// TestJWKSURLSkipsDiscovery covers issuers without discovery, and issuers that are not URLs.
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

// TestDiscoveryIsRepeated: daily, and after three failures, since the keys may have moved. A
// failed or hanging repetition has no effect, but a document of another issuer is an error.
func TestDiscoveryIsRepeated(t *testing.T) {
	const moved = jwstest.Issuer + "/new"
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, jwks string) {
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

		failed := v.Status().Counters.FailedLoads
		for _, answer := range []http.HandlerFunc{testkit.Answer(500, ""), testkit.Slowly(time.Hour, nil)} {
			p.Serve(testkit.DiscoveryURL, answer)
			time.Sleep(49 * time.Hour)
		}
		require.Equal(t, failed, v.Status().Counters.FailedLoads)
		require.LessOrEqual(t, len(p.Requests(testkit.DiscoveryURL)), 3+5)
		p.Serve(testkit.DiscoveryURL, document("https://evil.example", moved))
		time.Sleep(25 * time.Hour)
		require.ErrorContains(t, v.Status().LoadErr, "another issuer's")
		accepts(t, v, testkit.AccessToken(key))
	})
}
