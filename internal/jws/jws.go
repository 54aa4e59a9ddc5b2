// Package jws reads and writes signed tokens. It implements the compact serialization of
// RFC 7515, the algorithms and required key strengths, strict parsing of headers and
// claims, the rules for claims, and public keys as JWKs.
//
// The package is pure: it has no certificates, no clocks and no key lookup. A caller splits
// a token, looks up the key that its header names, verifies the signature, reads the claims
// and checks them:
//
//	p, err := jws.Split(token)
//	h, err := jws.ParseHeader(p.Header)
//	err = p.Verify(alg, public)
//	err = p.Read(&claims)
//	err = rules.Check(&claims, false, now)
package jws

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"strings"
)

// MaxTokenSize is the longest token, in bytes, that is issued or verified.
const MaxTokenSize = 16 << 10

// Parts are the segments of a token.
type Parts struct {
	Header             string // still encoded
	signed             string
	payload, signature []byte
}

var errSegments = fmt.Errorf("%w: not three base64url segments", ErrMalformed)

// Split splits a compact JWS (RFC 7515 section 7.1) and decodes its payload and signature.
// RFC 8725bis requires rejecting anything but base64url characters and dots; Go's base64
// skips line breaks, so Split checks for these itself.
func Split(token string) (Parts, error) {
	if len(token) > MaxTokenSize {
		return Parts{}, fmt.Errorf("%w: %d bytes long; at most %d are accepted", ErrMalformed, len(token), MaxTokenSize)
	}
	first, last := strings.IndexByte(token, '.'), strings.LastIndexByte(token, '.')
	if first <= 0 || last <= first+1 || last == len(token)-1 || strings.IndexByte(token, '\n') >= 0 || strings.IndexByte(token, '\r') >= 0 {
		return Parts{}, errSegments
	}
	p := Parts{Header: token[:first], signed: token[:last]}
	var err error
	if p.signature, err = decode(token[last+1:], "signature"); err != nil {
		return Parts{}, err
	}
	if p.payload, err = decode(token[first+1:last], "payload"); err != nil {
		return Parts{}, err
	}
	return p, nil
}

// decode decodes a segment in its only canonical form: no padding and no unused bits.
func decode(segment, what string) ([]byte, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return nil, fmt.Errorf("%w: the %s is not canonical base64url", ErrMalformed, what)
	}
	return data, nil
}

// Verify verifies the signature.
func (p Parts) Verify(alg Algorithm, public crypto.PublicKey) error {
	if err := alg.method.Verify(p.signed, p.signature, public); err != nil {
		return ErrBadSignature
	}
	return nil
}

// Read reads the claims. The signature must have been verified.
func (p Parts) Read(claims *Claims) error {
	claims.Text = string(p.payload)
	return claims.read(p.payload)
}

// Sign returns the compact serialization (RFC 7515 section 7.1) of an encoded header and a
// payload. The error matches ErrInvalidClaims if the token would be too long.
func Sign(alg Algorithm, private crypto.Signer, header string, payload []byte) (string, error) {
	var room [1024]byte // on the stack while it is large enough
	buf := append(append(room[:0], header...), '.')
	buf = base64.RawURLEncoding.AppendEncode(buf, payload)
	signature, err := alg.sign(private, buf)
	if err != nil {
		return "", err
	}
	buf = base64.RawURLEncoding.AppendEncode(append(buf, '.'), signature)
	if len(buf) > MaxTokenSize {
		return "", fmt.Errorf("%w: the token would have %d bytes; at most %d are allowed", ErrInvalidClaims, len(buf), MaxTokenSize)
	}
	return string(buf), nil
}
