package fleetkey

import (
	"errors"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
)

// Reasons why [Verifier.Verify] refuses a token, to be matched with [errors.Is].
// Each also matches golang-jwt's error for the same reason. With each of them, Verify
// returns no token.
var (
	// ErrMalformed: not a token in the one form that is accepted (RFC 7515
	// section 7.1 compact serialization, at most 16 KiB, canonical base64url,
	// strict JSON, no header parameters but alg, typ and kid).
	ErrMalformed error = jws.ErrMalformed
	// ErrWrongType: the header's typ is not at+jwt (RFC 9068 section 2.1), or by the rules
	// of VerifierConfig.Legacy, this is no access token.
	ErrWrongType error = jws.ErrWrongType
	// ErrUnknownKey: no trusted key has the token's kid. If it matches [ErrUnavailable] too,
	// the keys could not be loaded, and the token may be good.
	ErrUnknownKey error = jws.ErrUnknownKey
	// ErrWrongAlgorithm: the header's alg is not the one of the key.
	ErrWrongAlgorithm error = jws.ErrWrongAlgorithm
	// ErrBadSignature: the signature does not fit the content.
	ErrBadSignature error = jws.ErrBadSignature
	// ErrMissingClaim: a required claim is absent: iss, sub, aud, exp or iat.
	ErrMissingClaim error = jws.ErrMissingClaim
	// ErrWrongIssuer: iss is not the configured Issuer, or for a key of a Former, not its Issuer.
	ErrWrongIssuer error = jws.ErrWrongIssuer
	// ErrWrongAudience: aud names none of the configured Audience.
	ErrWrongAudience error = jws.ErrWrongAudience
	// ErrExpired: exp has passed by more than ClockSkew.
	ErrExpired error = jws.ErrExpired
	// ErrNotYetValid: nbf or iat lies ahead by more than 2 ClockSkew.
	ErrNotYetValid error = jws.ErrNotYetValid
)

// ErrInvalidClaims says that claims are of a wrong type or value. Verify
// returns it, and Issue and Sign do for claims that they refuse to sign.
var ErrInvalidClaims error = jws.ErrInvalidClaims

// Reasons why [Signer.Issue] and [Signer.Sign] do not sign.
var (
	// ErrNoSigningKey: no key of the set has a private half, or the first begins
	// more than a year after this clock, which is then probably wrong.
	ErrNoSigningKey = keyset.ErrNoSigningKey
	// ErrKeyExpired: the signing key's certificate ends before a token issued
	// now would, so that nobody could trust it. The key has to be rotated.
	ErrKeyExpired = keyset.ErrKeyExpired
	// ErrStale: the store could not be read for so long that the fleet may
	// have moved on to a key that this instance does not know.
	ErrStale = errors.New("the keys are stale: the store has not been read for too long")
)

// ErrClosed is returned by the methods of a [Signer] that need its store, after
// Close.
var ErrClosed = refresh.ErrClosed
