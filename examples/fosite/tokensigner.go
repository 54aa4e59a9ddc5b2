// Package fositefleet connects an OAuth 2.0 server built with ory/fosite to the signing key
// of a fleet. The test runs two instances of such a server.
package fositefleet

import (
	"context"
	"fmt"

	"github.com/ory/fosite/token/jwt"

	"github.com/fleetkey/fleetkey"
)

// A tokenSigner is fosite's jwt.Signer for tokens of one type. It asks the fleetkey Signer
// for the key of each token, so fosite follows a rotation without a restart.
// (jwt.DefaultSigner is designed for a single key: it writes no kid, and verifies only with
// the current signing key.)
type tokenSigner struct {
	jwt.DefaultSigner // for Hash, GetSignature and GetSigningMethodLength
	keys              *fleetkey.Signer
	typ               string // of the tokens: "at+jwt" or "JWT"
}

// Generate signs a token. The header has only alg, kid and typ.
func (s *tokenSigner) Generate(ctx context.Context, claims jwt.MapClaims, header jwt.Mapper) (token, signature string, err error) {
	for name := range header.ToMap() {
		if name != "alg" && name != "kid" && name != "typ" {
			return "", "", fmt.Errorf("the token's header shall hold %q, which is not supported", name)
		}
	}
	if token, err = s.keys.Sign(ctx, s.typ, map[string]any(claims)); err != nil {
		return "", "", err
	}
	signature, err = s.GetSignature(ctx, token)
	return token, signature, err
}

// Decode verifies a token with the fleet's key that its header names. It rejects tokens of
// another type, so that an ID token cannot be used as an access token.
func (s *tokenSigner) Decode(_ context.Context, token string) (*jwt.Token, error) {
	return jwt.Parse(token, func(t *jwt.Token) (any, error) {
		if typ, _ := t.Header["typ"].(string); typ != s.typ {
			return nil, fmt.Errorf("the token is of type %q, not %q", typ, s.typ)
		}
		for _, key := range s.keys.PublicKeys() {
			if key.KeyID == t.Header["kid"] && key.Algorithm == string(t.Method) {
				return key.Key, nil
			}
		}
		return nil, fleetkey.ErrUnknownKey
	})
}

// Validate verifies a token and returns its signature.
func (s *tokenSigner) Validate(ctx context.Context, token string) (string, error) {
	if _, err := s.Decode(ctx, token); err != nil {
		return "", err
	}
	return s.GetSignature(ctx, token)
}
