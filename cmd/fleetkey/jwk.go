package main

import (
	"crypto"
	"encoding/json"
	"errors"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// json adds a JWK, a JWK Set (RFC 7517), an array of JWKs, or IdentityServer4's
// tempkey.rsa.
func (b *brought) json(text []byte) error {
	var document any
	if json.Unmarshal(text, &document) != nil { // the cause could quote the key
		return notRead(text, "damaged JSON")
	}
	keys, ok := document.([]any)
	if !ok {
		object, _ := document.(map[string]any)
		if keys, ok = members(object)["keys"].([]any); !ok {
			keys = []any{object}
		}
	}
	for _, key := range keys {
		object, _ := key.(map[string]any)
		if err := b.jwk(object, text); err != nil {
			return err
		}
	}
	return nil
}

// netNames maps the names in .NET's RSAParameters to those in a JWK.
var netNames = map[string]string{"modulus": "n", "exponent": "e", "inverseq": "qi"}

// members returns the members of an object under their JWK names. IdentityServer writes its
// tempkey.jwk with capital letters and nulls, and its tempkey.rsa as RSAParameters.
func members(object map[string]any) map[string]any {
	jwk := map[string]any{}
	for name, value := range object {
		if value != nil {
			jwk[strings.ToLower(name)] = value
		}
	}
	parameters, ok := jwk["parameters"].(map[string]any)
	if !ok {
		return jwk
	}
	out := map[string]any{"kty": "RSA", "kid": jwk["keyid"]}
	for name, value := range members(parameters) {
		if other, ok := netNames[name]; ok {
			name = other
		}
		if text, ok := value.(string); ok {
			out[name] = strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(text)
		}
	}
	return out
}

func (b *brought) jwk(object map[string]any, whole []byte) error {
	fields := members(object)
	if fields["kty"] == "RSA" && fields["d"] != nil && fields["p"] == nil {
		return errors.New("an RSA JWK without its primes (p and q), which Go requires: export it with them (RFC 7518 section 6.3.2), or as PEM")
	}
	text, err := json.Marshal(fields)
	var jwk jose.JSONWebKey
	if err != nil || jwk.UnmarshalJSON(text) != nil {
		return notRead(whole, "not a JSON Web Key, or damaged, or of a kind that cannot sign tokens")
	}
	private, ok := jwk.Key.(crypto.Signer)
	if !ok || jwk.Use == "enc" {
		b.unfit = true
		return nil
	}
	b.certificates = append(b.certificates, jwk.Certificates...)
	return b.key(private, broughtKey{pss: jwk.Algorithm == "PS256", kid: jwk.KeyID, alg: jwk.Algorithm})
}
