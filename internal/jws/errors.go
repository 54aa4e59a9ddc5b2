package jws

import "github.com/golang-jwt/jwt/v5"

// An Error is one of the errors below. It also matches golang-jwt's error with the same
// cause, so that code written for golang-jwt keeps working.
type Error struct {
	text    string
	matches []error
}

func (e *Error) Error() string { return e.text }

// Unwrap returns the other errors that e matches.
func (e *Error) Unwrap() []error { return e.matches }

// Reasons to reject a token, or not to sign claims. The root package exports and documents
// these errors.
var (
	ErrInvalidClaims  error = &Error{"claims are invalid", []error{jwt.ErrTokenInvalidClaims}}
	ErrMalformed      error = &Error{"token is malformed", []error{jwt.ErrTokenMalformed}}
	ErrWrongType      error = &Error{"token is not an access token", []error{jwt.ErrTokenUnverifiable}}
	ErrUnknownKey     error = &Error{"unknown key", []error{jwt.ErrTokenUnverifiable}}
	ErrWrongAlgorithm error = &Error{"token has the wrong algorithm", []error{jwt.ErrTokenSignatureInvalid}}
	ErrBadSignature   error = &Error{"token signature is invalid", []error{jwt.ErrTokenSignatureInvalid}}
	ErrMissingClaim   error = &Error{"token is missing a required claim", []error{jwt.ErrTokenRequiredClaimMissing, ErrInvalidClaims}}
	ErrWrongIssuer    error = &Error{"token has the wrong issuer", []error{jwt.ErrTokenInvalidIssuer, ErrInvalidClaims}}
	ErrWrongAudience  error = &Error{"token has the wrong audience", []error{jwt.ErrTokenInvalidAudience, ErrInvalidClaims}}
	ErrExpired        error = &Error{"token is expired", []error{jwt.ErrTokenExpired, ErrInvalidClaims}}
	ErrNotYetValid    error = &Error{"token is not valid yet", []error{jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, ErrInvalidClaims}}
)
