package hostile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A group is a key or a key set of a Wycheproof file, with its tests.
type group struct {
	Comment string          `json:"comment"`
	Public  json.RawMessage `json:"public"`
	Private json.RawMessage `json:"private"`
	Tests   []struct {
		ID      int    `json:"tcId"`
		Comment string `json:"comment"`
		JWS     string `json:"jws"`
		Result  string `json:"result"`
	} `json:"tests"`
}

// An exception is a reason why fleetkey rejects some valid vectors. There are no exceptions
// for invalid vectors: accepting one is a bug.
type exception struct {
	reason string
	ids    []int
}

var signatureExceptions = []exception{
	{"HS256: a verifier could sign, too", []int{1, 348, 352, 357, 358, 359, 376, 377}},
	{"HS256, and a question mark within base64url, which others skip", []int{372, 373}},
	{"an empty payload: a token's payload is a JSON object", []int{259, 272}},
	{"RS384: RSA keys sign RS256 or PS256", []int{264, 265, 266, 267}},
	{"RS512: RSA keys sign RS256 or PS256", []int{268, 269, 270, 271}},
	{"PS384: RSA keys sign RS256 or PS256", []int{320, 321, 322, 323, 346, 350}},
	{"PS512: RSA keys sign RS256 or PS256", []int{325, 326, 327, 328}},
	{"ES512: P-521 is not among the curves", []int{347, 351}},
}

var keyExceptions = []exception{
	{"HS256: a verifier could sign, too", []int{2, 13}},
	{"HS384: a verifier could sign, too", []int{14}},
	{"HS512: a verifier could sign, too", []int{15}},
}

// TestWycheproofSignatures: 401 valid and invalid signatures, including every known way to
// damage PKCS #1 padding.
func TestWycheproofSignatures(t *testing.T) {
	run(t, "json_web_signature_test.json", 401, 230, signatureExceptions)
}

// TestWycheproofKeys: 26 key sets with a token each. Most of them have a key that must not be
// trusted: it is too short, has public exponent 1 or the ROCA weakness, is for encryption, or
// is not what it claims to be.
func TestWycheproofKeys(t *testing.T) {
	run(t, "json_web_key_test.json", 26, 0, keyExceptions)
}

// run checks every vector of a file. At least badSignatures of them must be rejected by the
// signature check itself.
func run(t *testing.T, name string, total, badSignatures int, exceptions []exception) {
	data, err := fs.ReadFile(wycheproof.TestVectors, name)
	require.NoError(t, err)
	var file struct {
		Total  int     `json:"numberOfTests"`
		Groups []group `json:"testGroups"`
	}
	require.NoError(t, json.Unmarshal(data, &file))
	require.Equal(t, total, file.Total, "the vectors have changed: review the exceptions")

	reasons := map[int]string{}
	for _, e := range exceptions {
		for _, id := range e.ids {
			require.Empty(t, reasons[id], "tcId %d has two reasons", id)
			reasons[id] = e.reason
		}
	}
	var seen, bad int
	for _, g := range file.Groups {
		key := json.RawMessage(cmp.Or(string(g.Public), string(g.Private)))
		var set struct{ Keys []json.RawMessage }
		require.NoError(t, json.Unmarshal(key, &set))
		if set.Keys == nil {
			set.Keys = []json.RawMessage{key}
		}
		verdict := judge(t, set.Keys...)
		for _, v := range g.Tests {
			seen++
			err := verdict(v.JWS)
			if errors.Is(err, jws.ErrBadSignature) {
				bad++
			}
			id := fmt.Sprintf("tcId %d %s/%s: %v", v.ID, g.Comment, v.Comment, err)
			if reason := reasons[v.ID]; reason != "" {
				delete(reasons, v.ID)
				assert.Equal(t, "valid", v.Result, "an exception for an invalid vector: %s", id)
				assert.Error(t, err, "accepted, so the exception (%s) is obsolete: %s", reason, id)
				continue
			}
			assert.Equal(t, v.Result == "valid", err == nil, id)
		}
	}
	assert.Empty(t, reasons, "exceptions for vectors that do not exist")
	assert.Equal(t, total, seen)
	assert.GreaterOrEqual(t, bad, badSignatures, "too few vectors reached the signature check")
}

// judge returns a function that verifies a signature as a service's Verifier does, with the keys
// that its issuer publishes. It sets Legacy, because no vector has the typ of an access token.
func judge(t *testing.T, keys ...json.RawMessage) func(token string) error {
	t.Helper()
	var published []string
	for _, k := range keys {
		published = append(published, public(t, k))
	}
	v := testkit.NewProvider(published...).Verifier(t, func(c *fleetkey.VerifierConfig) { c.Legacy = true })
	return func(token string) error {
		_, err := v.Verify(t.Context(), token)
		require.Error(t, err, "the payload of a vector is not a set of claims")
		if errors.Is(err, jws.ErrMissingClaim) || strings.Contains(err.Error(), "the payload is not a strict JSON object") {
			return nil // the signature was verified before
		}
		return err
	}
}

// public returns a key as an issuer publishes it. Some vectors include the private half, and
// many have no kid.
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
