package fleetkeytest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// claims are valid claims for the API.
var claims = fleetkey.Claims{Subject: "alice", ClientID: "web", Audience: []string{"https://api.example.com"}, Scope: "read"}

// newVerifier returns the Verifier of a service under test.
func newVerifier(t *testing.T, issuer *fleetkeytest.Issuer) *fleetkey.Verifier {
	t.Helper()
	v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{
		Issuer: issuer.URL, HTTPClient: issuer.HTTPClient, Audience: claims.Audience})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, v.Close()) })
	return v
}

// TestNewIssuer: a Verifier accepts an issuer's tokens, in a synctest bubble and on loopback,
// for any Config and path of the issuer.
func TestNewIssuer(t *testing.T) {
	accepts := func(t *testing.T, issuer *fleetkeytest.Issuer) {
		token, err := newVerifier(t, issuer).Verify(t.Context(), issuer.Token(claims))
		require.NoError(t, err)
		require.Equal(t, []string{issuer.URL, "alice"}, []string{token.Issuer(), token.Subject()})
	}
	for _, address := range []string{"", "https://id.example.com/", "https://id.example.com/realms/a", "https://id.example.com:8443/a%20b/{c}/"} {
		synctest.Test(t, func(t *testing.T) {
			accepts(t, fleetkeytest.NewIssuer(t, func(o *fleetkeytest.IssuerOptions) { o.Config.Issuer = address }))
		})
	}
	issuer := fleetkeytest.NewIssuer(t, func(o *fleetkeytest.IssuerOptions) {
		o.Loopback, o.Config.Algorithm, o.Config.Issuer = true, "EdDSA", "https://ignored.example.com"
	})
	require.Regexp(t, `^http://127\.0\.0\.1:\d+$`, issuer.URL)
	require.Equal(t, "EdDSA", issuer.Signer.SigningKey().Algorithm)
	accepts(t, issuer)
	issuer.HTTPClient = nil // as in a program that has only the address
	accepts(t, issuer)
}

// TestIssuerIsAlone: the client of an issuer reaches no other address, so that a test fails if
// a service uses the wrong one.
func TestIssuerIsAlone(t *testing.T) {
	issuer := fleetkeytest.NewIssuer(t, func(o *fleetkeytest.IssuerOptions) { o.Config.Issuer = "https://id.example.com/a" })
	for _, url := range []string{"https://other.example.com/a", "http://id.example.com/a", "https://id.example.com:444/a"} {
		_, err := issuer.HTTPClient.Get(url + fleetkey.JWKSPath)
		require.ErrorContains(t, err, "https://id.example.com/a", url)
	}
	for path, want := range map[string]int{"/a" + fleetkey.JWKSPath: 200, "/a" + fleetkey.DiscoveryPath: 200, fleetkey.JWKSPath: 404, "/a": 404} {
		answer, err := issuer.HTTPClient.Get("https://id.example.com" + path)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, want, answer.StatusCode, path)
		require.Equal(t, path, answer.Request.URL.Path)
	}
}

// TestIssuerChangesKeys: a Verifier sees a rotation at once, and a revocation within
// RefreshEvery.
func TestIssuerChangesKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := fleetkeytest.NewIssuer(t)
		v := newVerifier(t, issuer)
		verify := func(token string) error {
			_, err := v.Verify(t.Context(), token)
			return err
		}
		require.NoError(t, issuer.Signer.Rotate(t.Context()))
		time.Sleep(time.Until(issuer.Signer.Status().NextActivation))
		token := issuer.Token(claims)
		require.NoError(t, verify(token))
		require.Len(t, v.PublicKeys(), 2)

		require.NoError(t, issuer.Signer.Revoke(t.Context(), issuer.Signer.SigningKey().KeyID))
		require.NoError(t, verify(token), "valid until the next fetch")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		require.ErrorIs(t, verify(token), fleetkey.ErrUnknownKey)
		require.NoError(t, verify(issuer.Token(claims)))
	})
}

// Two issuers with the same algorithm have the same key, but do not accept each other's tokens.
func TestIssuersOfOneAlgorithmShareTheirKey(t *testing.T) {
	a := fleetkeytest.NewIssuer(t)
	b := fleetkeytest.NewIssuer(t, func(o *fleetkeytest.IssuerOptions) { o.Config.Issuer = "https://b.example.com" })
	require.Equal(t, a.Signer.SigningKey().KeyID, b.Signer.SigningKey().KeyID)
	_, err := newVerifier(t, a).Verify(t.Context(), b.Token(claims))
	require.ErrorIs(t, err, fleetkey.ErrWrongIssuer)
}
