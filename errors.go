package fleetkey

import (
	"errors"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
)

// Errors returned by [Verifier.Verify], for use with [errors.Is]. The token is nil with
// each of them. Each also matches the golang-jwt error that has the same cause.
var (
	// ErrMalformed: the token is not in the only accepted form: RFC 7515 section 7.1
	// compact serialization, at most 16 KiB, canonical base64url, strict JSON, and no
	// header parameters other than alg, typ and kid. Tokens of other systems may also have
	// x5t and x5t#S256.
	ErrMalformed error = jws.ErrMalformed
	// ErrWrongType: typ is not at+jwt (RFC 9068 section 2.1), or the token is not an access
	// token by the rules of VerifierConfig.Legacy.
	ErrWrongType error = jws.ErrWrongType
	// ErrUnknownKey: no trusted key has the token's kid. If the error also matches
	// [ErrUnavailable], the keys could not be loaded, and the token may be valid.
	ErrUnknownKey error = jws.ErrUnknownKey
	// ErrWrongAlgorithm: alg is not the key's algorithm.
	ErrWrongAlgorithm error = jws.ErrWrongAlgorithm
	// ErrBadSignature: the signature does not match the content.
	ErrBadSignature error = jws.ErrBadSignature
	// ErrMissingClaim: iss, sub, aud, exp or iat is required and missing.
	ErrMissingClaim error = jws.ErrMissingClaim
	// ErrWrongIssuer: iss is not the configured Issuer or, in a token of a [Former], not
	// Former.Issuer.
	ErrWrongIssuer error = jws.ErrWrongIssuer
	// ErrWrongAudience: aud contains none of the configured Audience.
	ErrWrongAudience error = jws.ErrWrongAudience
	// ErrExpired: exp is more than ClockSkew in the past.
	ErrExpired error = jws.ErrExpired
	// ErrNotYetValid: nbf or iat is more than 2 ClockSkew in the future.
	ErrNotYetValid error = jws.ErrNotYetValid
)

// ErrInvalidClaims means that a claim has the wrong type or value. It is returned by
// Verify, and by Issue and Sign for claims that they refuse to sign.
var ErrInvalidClaims error = jws.ErrInvalidClaims

// Errors returned by [Signer.Issue] and [Signer.Sign] when no key can sign.
var (
	// ErrNoSigningKey: the set holds no private key, or its first key begins to sign more
	// than a year from now, in which case this clock is probably wrong.
	ErrNoSigningKey = keyset.ErrNoSigningKey
	// ErrKeyExpired: the signing key's certificate ends before a token issued now would
	// expire, so the token would be rejected. Rotate the key.
	ErrKeyExpired = keyset.ErrKeyExpired
	// ErrStale: the store has not been read for so long that the fleet may be using a key
	// that this instance does not know.
	ErrStale = errors.New("the keys are stale: the store has not been read for too long")
)

// ErrClosed is returned after Close by the methods of a [Signer] that need its store.
var ErrClosed = refresh.ErrClosed
