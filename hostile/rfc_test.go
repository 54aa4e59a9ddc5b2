package hostile

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// This file holds the examples of the RFCs, as printed there except for line breaks.

const (
	rfc7515Payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

	rfc8037Public  = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	rfc8037Private = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A" // the seed, d of A.1
)

// examples are the JWS of the RFCs, with the key that verifies each. Wycheproof's vectors
// include those of RFC 7520.
var examples = []struct{ section, key, jws string }{
	{"RFC 7515 A.2, RS256", `{"kty":"RSA","e":"AQAB",
		"n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}`,
		"eyJhbGciOiJSUzI1NiJ9." + rfc7515Payload + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
	{"RFC 7515 A.3, ES256", `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
		"eyJhbGciOiJFUzI1NiJ9." + rfc7515Payload + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
	{"RFC 8037 A.4, EdDSA", rfc8037Public,
		"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
	{"RFC 7515 A.5, unsecured", rfc8037Public, "eyJhbGciOiJub25lIn0." + rfc7515Payload + "."},
}

// TestRFCExamples: fleetkey rejects each example, since none has a kid. The key that fleetkey
// publishes verifies the signature.
func TestRFCExamples(t *testing.T) {
	for _, e := range examples {
		t.Run(e.section, func(t *testing.T) {
			err := judge(t, json.RawMessage(e.key))(e.jws)
			require.ErrorIs(t, err, jws.ErrMalformed)
			parsed, err := jose.ParseSignedCompact(e.jws, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA})
			require.Equal(t, e.section == "RFC 7515 A.5, unsecured", err != nil)
			if err != nil {
				return
			}
			var key jose.JSONWebKey
			require.NoError(t, json.Unmarshal([]byte(e.key), &key))
			alg, err := jws.AlgorithmOf(key.Key, false)
			require.NoError(t, err)
			_, err = parsed.Verify(jws.JWK(key.Key, "", alg))
			require.NoError(t, err)
		})
	}
}

// rfc7517Keys are the keys of RFC 7517 A.1 without the "use":"enc" of the first, because
// fleetkey publishes only signature keys.
var rfc7517Keys = []string{
	`{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"1"}`,
	`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
}

// TestRFC7517Keys: the published JSON Web Key Set has the members of the keys, use and alg.
func TestRFC7517Keys(t *testing.T) {
	for _, text := range rfc7517Keys {
		var key jose.JSONWebKey
		require.NoError(t, json.Unmarshal([]byte(text), &key))
		alg, err := jws.AlgorithmOf(key.Key, false)
		require.NoError(t, err)
		body, _, err := jws.EncodeJWKS([]jose.JSONWebKey{jws.JWK(key.Key, key.KeyID, alg)})
		require.NoError(t, err)
		var want map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &want))
		want["use"], want["alg"] = "sig", alg.Name
		var set struct{ Keys []map[string]any }
		require.NoError(t, json.Unmarshal(body, &set))
		require.Equal(t, []map[string]any{want}, set.Keys)
	}
}

// TestThumbprintExamples checks the examples of RFC 7638 section 3.1 and RFC 8037 A.3.
func TestThumbprintExamples(t *testing.T) {
	for text, want := range map[string]string{
		rfc7517Keys[1]: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
		rfc8037Public:  "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
	} {
		var key jose.JSONWebKey
		require.NoError(t, json.Unmarshal([]byte(text), &key))
		require.Equal(t, want, jws.Thumbprint(key.Key))
	}
}

// TestRFC8037PrivateKey: signing the payload of RFC 8037 A.4 with the key of A.1 gives the
// same token, because Ed25519 is deterministic.
func TestRFC8037PrivateKey(t *testing.T) {
	seed, err := base64.RawURLEncoding.DecodeString(rfc8037Private)
	require.NoError(t, err)
	eddsa, err := jws.AlgorithmNamed("EdDSA")
	require.NoError(t, err)
	want := examples[2].jws
	parts := strings.Split(want, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	token, err := jws.Sign(eddsa, ed25519.NewKeyFromSeed(seed), parts[0], payload)
	require.NoError(t, err)
	require.Equal(t, want, token)
}
