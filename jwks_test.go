package fleetkey_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

const service = "https://api.example.com"

var forAPI = fleetkey.Claims{Subject: "alice", ClientID: "web", Audience: []string{service}}

func TestNewVerifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := fleetkeytest.NewIssuer(t)
		v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer.URL, Audience: []string{service}, HTTPClient: issuer.HTTPClient})
		require.NoError(t, err)
		defer func() { require.NoError(t, v.Close()) }()
		token, err := v.Verify(t.Context(), issuer.Token(forAPI))
		require.NoError(t, err)
		require.Equal(t, "alice", token.Subject())
		require.NoError(t, v.Status().Err)
		require.Equal(t, fleetkey.RolePublished, v.Status().Keys[0].Role)

		stolen := issuer.Signer.SigningKey().KeyID
		require.NoError(t, issuer.Signer.Revoke(t.Context(), stolen))
		time.Sleep(10 * time.Second) // the first fetch has taken the slot
		_, err = v.Verify(t.Context(), issuer.Token(forAPI))
		require.NoError(t, err, "an unknown kid makes it fetch the keys")
		require.NotEqual(t, stolen, v.Status().Keys[0].KeyID)
		require.Len(t, v.Status().Keys, 1)
	})
}
