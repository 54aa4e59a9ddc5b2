package fleetkey

import (
	"errors"

	"github.com/golang-jwt/jwt/v5"
)

// A sentinel is an error of ours that also matches golang-jwt's error for the
// same thing, so that code written for golang-jwt keeps working.
type sentinel struct {
	text    string
	matches []error
}

func (e *sentinel) Error() string   { return e.text }
func (e *sentinel) Unwrap() []error { return e.matches }

// Reasons why [Signer.Verify] refuses a token, to be matched with [errors.Is].
// Each also matches golang-jwt's error for the same reason. With every one of
// them, Verify returns no token.
var (
	// ErrMalformed: not a token in the one form that is accepted (RFC 7515
	// section 7.1 compact serialization, at most 16 KiB, canonical base64url,
	// strict JSON, no header parameters but alg, typ and kid).
	ErrMalformed error = &sentinel{"token is malformed", []error{jwt.ErrTokenMalformed}}
	// ErrWrongType: the header's typ is not at+jwt (RFC 9068 section 2.1).
	ErrWrongType error = &sentinel{"token is not an access token", []error{jwt.ErrTokenUnverifiable}}
	// ErrUnknownKey: no trusted key has the token's kid.
	ErrUnknownKey error = &sentinel{"unknown key", []error{jwt.ErrTokenUnverifiable}}
	// ErrWrongAlgorithm: the header's alg is not the one of the key.
	ErrWrongAlgorithm error = &sentinel{"token names another algorithm than its key's", []error{jwt.ErrTokenSignatureInvalid}}
	// ErrBadSignature: the signature does not fit the content.
	ErrBadSignature error = &sentinel{"token signature is invalid", []error{jwt.ErrTokenSignatureInvalid}}
	// ErrMissingClaim: a required claim is absent: iss, sub, aud, exp or iat.
	ErrMissingClaim error = &sentinel{"token lacks a required claim", []error{jwt.ErrTokenRequiredClaimMissing, ErrInvalidClaims}}
	// ErrWrongIssuer: iss is not Config.Issuer.
	ErrWrongIssuer error = &sentinel{"token has another issuer", []error{jwt.ErrTokenInvalidIssuer, ErrInvalidClaims}}
	// ErrWrongAudience: aud names none of Config.Audience.
	ErrWrongAudience error = &sentinel{"token is for another audience", []error{jwt.ErrTokenInvalidAudience, ErrInvalidClaims}}
	// ErrExpired: exp has passed by more than Config.ClockSkew.
	ErrExpired error = &sentinel{"token is expired", []error{jwt.ErrTokenExpired, ErrInvalidClaims}}
	// ErrNotYetValid: nbf or iat lies ahead by more than 2 Config.ClockSkew.
	ErrNotYetValid error = &sentinel{"token is not valid yet", []error{jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, ErrInvalidClaims}}
)

// ErrInvalidClaims says that claims are of a wrong type or value. Verify
// returns it, and Issue and Sign do for claims that they refuse to sign.
var ErrInvalidClaims error = &sentinel{"claims are invalid", []error{jwt.ErrTokenInvalidClaims}}

// Reasons why [Signer.Issue] and [Signer.Sign] do not sign.
var (
	// ErrNoSigningKey: no key of the set has begun to sign, or none has a
	// private half.
	ErrNoSigningKey = errors.New("no key can sign now")
	// ErrKeyExpired: the signing key's certificate ends before a token issued
	// now would, so that nobody could trust it. The key has to be rotated.
	ErrKeyExpired = errors.New("the signing key's certificate is about to end")
	// ErrStale: the store could not be read for so long that the fleet may
	// have moved on to a key that this instance does not know.
	ErrStale = errors.New("the keys are stale: the store has not been read for too long")
)

// ErrClosed is returned by the methods of a [Signer] that need its store, after
// Close.
var ErrClosed = errors.New("the signer is closed")
