package main

import (
	"crypto"
	"encoding/json"
	"errors"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// json adds a JWK, or a set of them (RFC 7517).
func (b *brought) json(text []byte) error {
	var set struct{ Keys []map[string]any }
	var jwk map[string]any
	if json.Unmarshal(text, &set) != nil || json.Unmarshal(text, &jwk) != nil { // the cause could quote the key
		return errors.New("damaged JSON, or not a JSON Web Key")
	}
	if set.Keys == nil {
		set.Keys = append(set.Keys, jwk)
	}
	for _, jwk := range set.Keys {
		if err := b.jwk(jwk); err != nil {
			return err
		}
	}
	return nil
}

// jwk adds a key. IdentityServer writes its tempkey.jwk with capital letters and nulls.
func (b *brought) jwk(members map[string]any) error {
	lower := map[string]any{}
	for name, value := range members {
		if value != nil {
			lower[strings.ToLower(name)] = value
		}
	}
	text, err := json.Marshal(lower)
	var jwk jose.JSONWebKey
	if err != nil || jwk.UnmarshalJSON(text) != nil {
		return errors.New("not a JSON Web Key, or one that is damaged or of a kind that cannot sign tokens")
	}
	private, ok := jwk.Key.(crypto.Signer)
	if !ok || jwk.Use == "enc" {
		b.unfit = true
		return nil
	}
	b.certificates = append(b.certificates, jwk.Certificates...)
	return b.key(private, broughtKey{pss: jwk.Algorithm == "PS256", kid: jwk.KeyID})
}
