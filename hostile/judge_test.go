package hostile

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/internal/trust"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file brings a vector before the code that reads tokens and trusts keys, and before
// the Verifier of a service that gets the keys as a JWKS. It goes as far as the signature:
// the payload of a vector is no set of claims.

// A jwk is a JSON Web Key (RFC 7517 section 4) as a vector has it.
type jwk struct {
	Type       string   `json:"kty"`
	Algorithm  string   `json:"alg"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	KeyID      string   `json:"kid"`

	raw json.RawMessage
}

func (k *jwk) UnmarshalJSON(data []byte) error {
	type plain jwk
	k.raw = slices.Clone(data)
	return json.Unmarshal(data, (*plain)(k))
}

func parseJWK(t *testing.T, text string) jwk {
	t.Helper()
	var k jwk
	require.NoError(t, json.Unmarshal([]byte(text), &k))
	return k
}

// forSignatures reports what use and key_ops say (RFC 7517 sections 4.2 and 4.3). In a
// bundle the certificate says it; TestKeyUsage is about that.
func (k *jwk) forSignatures() bool {
	if k.Use == "" && k.Operations == nil {
		return true
	}
	return k.Use == "sig" || slices.Contains(k.Operations, "verify") || slices.Contains(k.Operations, "sign")
}

// trusting returns the view of a fleet that trusts keys. A key that is not what it says
// is not among them; of one that is too weak to be trusted, the error tells.
func trusting(t *testing.T, keys ...jwk) (*trust.View, error) {
	t.Helper()
	var trusted []*trust.Key
	for _, k := range keys {
		var key jose.JSONWebKey
		if k.Type == "oct" || !k.forSignatures() || json.Unmarshal(k.raw, &key) != nil {
			continue
		}
		alg, err := jws.AlgorithmOf(key.Public().Key, k.Algorithm == "PS256")
		if err != nil {
			return nil, err
		}
		if k.Algorithm == "" || k.Algorithm == alg.Name {
			kid := k.KeyID
			if kid == "" {
				kid = jws.Thumbprint(key.Public().Key)
			}
			trusted = append(trusted, trust.Former(key.Public().Key, alg, nil, kid))
		}
	}
	return trust.FromKeys(trusted, "", false, trust.Moment{Wall: jwstest.Noon})
}

// verify returns nil if the signature is good.
func verify(v *trust.View, token string) error {
	parts, err := jws.Split(token)
	if err != nil {
		return err
	}
	k, _, err := v.KeyFor(parts.Header, jwstest.Noon)
	if err != nil {
		return err
	}
	return parts.Verify(k.Alg, k.Public)
}

// byVerifier returns what a Legacy Verifier says of a signature whose issuer publishes the
// keys; a strict one refuses any, since no vector has the typ of an access token.
func byVerifier(t *testing.T, keys ...jwk) func(token string) error {
	t.Helper()
	var texts []string
	for _, k := range keys {
		texts = append(texts, k.public(t))
	}
	p := testkit.NewProvider(texts...)
	legacy, strict := p.Verifier(t, func(c *fleetkey.VerifierConfig) { c.Legacy = true }), p.Verifier(t)
	return func(token string) error {
		_, err := strict.Verify(t.Context(), token)
		require.Error(t, err)
		require.NotErrorIs(t, err, jws.ErrMissingClaim)
		_, err = legacy.Verify(t.Context(), token)
		require.Error(t, err)
		if errors.Is(err, jws.ErrMissingClaim) || errors.Is(err, jws.ErrMalformed) && strings.Contains(err.Error(), "the payload is not") {
			return nil // the signature is checked before
		}
		return err
	}
}

// public is the key as an issuer publishes it: of some, a vector has the private half too.
// A key without a kid gets the one that trusting gives it.
func (k *jwk) public(t *testing.T) string {
	t.Helper()
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(k.raw, &members))
	if k.Type != "oct" {
		for _, name := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			delete(members, name)
		}
	}
	var key jose.JSONWebKey
	if k.KeyID == "" && json.Unmarshal(k.raw, &key) == nil && k.Type != "oct" {
		members["kid"] = json.RawMessage(`"` + jws.Thumbprint(key.Public().Key) + `"`)
	}
	text, err := json.Marshal(members)
	require.NoError(t, err)
	return string(text)
}
