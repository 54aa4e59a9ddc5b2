package hostile

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// This file brings a vector before the code that reads tokens and trusts keys. It goes
// as far as the signature: the payload of a vector is no set of claims.

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
