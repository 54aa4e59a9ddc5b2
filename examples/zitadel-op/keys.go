// Package zitadelop connects an OpenID Provider built with zitadel/oidc to the signing key of
// a fleet. The test runs two instances of such a provider.
package zitadelop

import (
	"context"
	"errors"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/fleetkey/fleetkey"
)

// keys implements the three methods of op.Storage that are about keys. Each call asks the
// Signer, which answers from memory, so zitadel/oidc follows a rotation without a restart.
type keys struct{ signer *fleetkey.Signer }

// SigningKey returns the current signing key.
func (k keys) SigningKey(context.Context) (op.SigningKey, error) {
	key := k.signer.SigningKey()
	if key.Signer == nil {
		return nil, errors.New("no key can sign now; the signer's Status says why")
	}
	return signingKey{key}, nil
}

// KeySet returns all keys to publish and to verify with: the signing key, the announced key
// and the replaced keys.
func (k keys) KeySet(context.Context) ([]op.Key, error) {
	var set []op.Key
	for _, key := range k.signer.PublicKeys() {
		set = append(set, publicKey{key})
	}
	return set, nil
}

// SignatureAlgorithms returns the algorithms of these keys, for the discovery
// document and for the verification of tokens.
func (k keys) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	var algorithms []jose.SignatureAlgorithm
	for _, key := range k.signer.PublicKeys() {
		if a := jose.SignatureAlgorithm(key.Algorithm); !slices.Contains(algorithms, a) {
			algorithms = append(algorithms, a)
		}
	}
	return algorithms, nil
}

type signingKey struct{ fleetkey.SigningKey }

func (k signingKey) ID() string { return k.KeyID }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm {
	return jose.SignatureAlgorithm(k.Algorithm)
}
func (k signingKey) Key() any { return k.Signer }

type publicKey struct{ fleetkey.PublicKey }

func (k publicKey) ID() string { return k.KeyID }
func (k publicKey) Algorithm() jose.SignatureAlgorithm {
	return jose.SignatureAlgorithm(k.PublicKey.Algorithm)
}
func (k publicKey) Use() string { return "sig" }
func (k publicKey) Key() any    { return k.PublicKey.Key }
