package hostile

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// judge returns what a service's Verifier says of a signature, with keys that its issuer
// publishes. It follows the former rules: no vector has the typ of an access token.
func judge(t *testing.T, keys ...json.RawMessage) func(token string) error {
	t.Helper()
	var published []string
	for _, k := range keys {
		published = append(published, public(t, k))
	}
	v := testkit.NewProvider(published...).Verifier(t, func(c *fleetkey.VerifierConfig) { c.Legacy = true })
	return func(token string) error {
		_, err := v.Verify(t.Context(), token)
		require.Error(t, err, "the payload of a vector is no set of claims")
		if errors.Is(err, jws.ErrMissingClaim) || strings.Contains(err.Error(), "the payload is not") {
			return nil // the signature is checked before
		}
		return err
	}
}

// public returns a key as an issuer publishes it: of some, a vector has the private half,
// too, and many have no kid.
func public(t *testing.T, key json.RawMessage) string {
	t.Helper()
	var members map[string]any
	require.NoError(t, json.Unmarshal(key, &members))
	if members["kty"] != "oct" {
		for _, name := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			delete(members, name)
		}
		var parsed jose.JSONWebKey
		if members["kid"] == nil && json.Unmarshal(key, &parsed) == nil {
			members["kid"] = jws.Thumbprint(parsed.Public().Key)
		}
	}
	text, err := json.Marshal(members)
	require.NoError(t, err)
	return string(text)
}
