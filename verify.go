package fleetkey

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

// MaxTokenSize is the longest token, in bytes, that is issued or verified. HTTP
// servers commonly limit all headers of a request to as much.
const MaxTokenSize = 16 << 10

// maxKeyID is the longest kid, in bytes, that is looked up.
const maxKeyID = 128

// Verify checks an access token and returns what it says. The error tells which
// check failed and matches one of the sentinels ([ErrExpired], [ErrUnknownKey],
// ...); the token is then nil.
//
// The checks and their order follow RFC 8725 and RFC 9068 section 4: form and
// size, header, typ, kid, alg (given by the key, not by the token), signature,
// and only then the claims: exp, iat, nbf, lifetime, iss, aud and sub. Nothing
// that a token says is ever fetched. The algorithm and the strictness cannot be
// configured.
//
// Verify works from memory. Only a token whose kid is not known makes it look
// into the store, as [Signer] says; ctx bounds the wait.
func (s *Signer) Verify(ctx context.Context, token string) (*Token, error) {
	snap, now := s.current.Load(), s.clock.Now()
	if e := snap.cache.find(token); e != nil && now.Before(e.key.until) && s.checkTimes(&e.token.claims, now) == nil {
		s.counters.cacheHits.Add(1)
		return e.token, nil
	}
	t, err := s.verify(ctx, token)
	if err != nil {
		s.counters.reject(err)
		return nil, fmt.Errorf("fleetkey: %w", err)
	}
	s.counters.accepted.Add(1)
	return t, nil
}

// verify checks a token that is not remembered.
func (s *Signer) verify(ctx context.Context, token string) (*Token, error) {
	parts, err := split(token)
	if err != nil {
		return nil, err
	}
	snap, now := s.current.Load(), s.clock.Now()
	k, err := snap.keyFor(parts, now)
	if errors.Is(err, ErrUnknownKey) && s.lookForKey(ctx) {
		snap, now = s.current.Load(), s.clock.Now()
		k, err = snap.keyFor(parts, now)
	}
	if err != nil {
		return nil, err
	}
	t, err := k.open(parts)
	if err != nil {
		return nil, err
	}
	if err := s.checkClaims(&t.claims, k.foreign, now); err != nil {
		return nil, err
	}
	snap.cache.add(token, t, k, now)
	return t, nil
}

// parts are what a token consists of, and what was signed.
type parts struct {
	header, signed     string // encoded
	payload, signature []byte
	damage             error // of the payload, to be told once the signature is right
}

var errSegments = fmt.Errorf("%w: not three base64url segments", ErrMalformed)

// split takes a compact JWS apart (RFC 7515 section 7.1) and decodes it, but for
// the header, which keyFor knows or reads. RFC 8725bis wants anything but
// base64url characters and dots refused, and Go's base64 skips line breaks, so
// these are looked for apart.
func split(token string) (parts, error) {
	if len(token) > MaxTokenSize {
		return parts{}, fmt.Errorf("%w: %d bytes long; at most %d are accepted", ErrMalformed, len(token), MaxTokenSize)
	}
	first, last := strings.IndexByte(token, '.'), strings.LastIndexByte(token, '.')
	if first <= 0 || last <= first+1 || last == len(token)-1 || strings.IndexByte(token, '\n') >= 0 || strings.IndexByte(token, '\r') >= 0 {
		return parts{}, errSegments
	}
	p := parts{header: token[:first], signed: token[:last]}
	var err error
	if p.signature, err = decode(token[last+1:], "signature"); err != nil {
		return parts{}, err
	}
	payload := token[first+1 : last]
	if p.payload, p.damage = decode(payload, "payload"); p.damage != nil && strings.ContainsFunc(payload, notBase64url) {
		return parts{}, errSegments
	}
	return p, nil
}

func notBase64url(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_')
}

// decode reads a segment in the one canonical form: no padding, no bits unused.
func decode(segment, what string) ([]byte, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return nil, fmt.Errorf("%w: the %s is not canonical base64url", ErrMalformed, what)
	}
	return data, nil
}

// keyFor returns the key that a token's header names. The headers that the
// fleet itself writes are the same bytes for each key; only others are parsed.
// Other systems' access tokens may lack a typ of their own (it came with RFC
// 9068) and carry a certificate's thumbprint.
func (s *snapshot) keyFor(p parts, now time.Time) (*trustedKey, error) {
	k := s.byHeader[p.header]
	if k == nil {
		h, err := parseHeader(p.header)
		if err != nil {
			return nil, err
		}
		k = s.byKID[h.keyID]
		untyped := k != nil && k.foreign && (h.typ == "" || strings.EqualFold(h.typ, "JWT"))
		if !untyped && !strings.EqualFold(h.typ, accessTokenType) && !strings.EqualFold(h.typ, "application/"+accessTokenType) {
			return nil, fmt.Errorf("%w: its typ is not %s", ErrWrongType, accessTokenType)
		}
		if k == nil {
			return nil, fmt.Errorf("%w: kid %q", ErrUnknownKey, h.keyID)
		}
		if h.algorithm != k.alg.name {
			return nil, fmt.Errorf("%w: the key's is %s", ErrWrongAlgorithm, k.alg.name)
		}
		if h.thumbprint && !k.foreign {
			return nil, fmt.Errorf("%w: x5t in the header", ErrMalformed)
		}
	}
	if !now.Before(k.until) {
		return nil, fmt.Errorf("%w: kid %q was trusted until %s", ErrUnknownKey, k.id, k.until.Format(time.RFC3339))
	}
	return k, nil
}

// header is what a JOSE header may say.
type header struct {
	text                  string // all of it, decoded
	algorithm, keyID, typ string
	thumbprint            bool // x5t or x5t#S256, which other systems write
}

// parseHeader reads a JOSE header. Parameters that could name a key elsewhere or
// change what is signed (jwk, jku, x5u, x5c, b64, zip, crit, ...) are refused,
// whatever they say.
func parseHeader(segment string) (header, error) {
	data, err := decode(segment, "header")
	if err != nil {
		return header{}, err
	}
	h := header{text: string(data)}
	if err := json.Unmarshal(data, &h); err != nil {
		return header{}, fmt.Errorf("%w: the header is not a JSON object of alg, typ and kid alone", ErrMalformed)
	}
	if h.keyID == "" || len(h.keyID) > maxKeyID {
		return header{}, fmt.Errorf("%w: kid is absent or over %d bytes", ErrMalformed, maxKeyID)
	}
	return h, nil
}

// UnmarshalJSONFrom is called by json.Unmarshal, whose decoder refuses
// duplicate names, invalid UTF-8 and trailing data.
func (h *header) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	r := reader{dec, h.text}
	return r.eachMember(func(name string) error {
		value, err := r.readString()
		switch name {
		case "alg":
			h.algorithm = value
		case "kid":
			h.keyID = value
		case "typ":
			h.typ = value
		case "x5t", "x5t#S256":
			h.thumbprint = true
		default:
			return errors.New("unknown header parameter")
		}
		return err
	})
}

// open verifies the signature and only then reads the claims.
func (k *trustedKey) open(p parts) (*Token, error) {
	if err := k.alg.method.Verify(p.signed, p.signature, k.cert.PublicKey); err != nil {
		return nil, fmt.Errorf("%w: key %s", ErrBadSignature, k.id)
	}
	if p.damage != nil {
		return nil, p.damage
	}
	t := &Token{keyID: k.id, claims: claimSet{text: string(p.payload)}}
	if err := json.Unmarshal(p.payload, &t.claims); err != nil {
		var wrong *claimError
		if errors.As(err, &wrong) {
			return nil, fmt.Errorf("%w: %w", ErrInvalidClaims, wrong)
		}
		return nil, fmt.Errorf("%w: the payload is not a strict JSON object", ErrMalformed)
	}
	return t, nil
}

// checkClaims checks the registered claims (RFC 7519 section 4.1) of a token
// whose signature is good. A foreign token need not have iat and sub, may have
// lived by another lifetime, and may name a former issuer.
func (s *Signer) checkClaims(c *claimSet, foreign bool, now time.Time) error {
	if missing := c.missing(foreign); missing != "" {
		return fmt.Errorf("%w: %s", ErrMissingClaim, missing)
	}
	if err := s.checkTimes(c, now); err != nil {
		return err
	}
	switch {
	case !foreign && (!c.expires.After(c.issued) || c.expires.Sub(c.issued) > s.cfg.MaxTokenTTL):
		return fmt.Errorf("%w: the lifetime is not within Config.MaxTokenTTL %v", ErrInvalidClaims, s.cfg.MaxTokenTTL)
	case c.issuer != s.cfg.Issuer && !(foreign && slices.Contains(s.cfg.FormerIssuers, c.issuer)):
		return fmt.Errorf("%w: %s", ErrWrongIssuer, quoted(c.issuer))
	case !slices.ContainsFunc(c.audience, func(a string) bool { return slices.Contains(s.cfg.Audience, a) }):
		return fmt.Errorf("%w: %s", ErrWrongAudience, "["+quoted(c.audience...)+"]")
	}
	return nil
}

// quoted shows in an error what a token claims, but no more of it than a log can
// bear: it may be as long as the token, and longer where it needs escapes.
func quoted(claims ...string) string {
	const longest, most = 100, 3 // bytes, claims
	var parts []string
	for _, text := range claims[:min(len(claims), most)] {
		if len(text) > longest {
			parts = append(parts, strconv.QuoteToASCII(text[:longest])+"...")
		} else {
			parts = append(parts, strconv.QuoteToASCII(text))
		}
	}
	if more := len(claims) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, " ")
}

// checkTimes checks the claims that depend on when they are looked at.
func (s *Signer) checkTimes(c *claimSet, now time.Time) error {
	latest := now.Add(2 * s.cfg.ClockSkew) // on the fastest clock, if this is the slowest
	switch {
	case !now.Before(c.expires.Add(s.cfg.ClockSkew)):
		return fmt.Errorf("%w since %s", ErrExpired, c.expires.Format(time.RFC3339))
	case c.issued.After(latest):
		return fmt.Errorf("%w: issued at %s, ahead of the clock", ErrNotYetValid, c.issued.Format(time.RFC3339))
	case c.notBefore.After(latest):
		return fmt.Errorf("%w before %s", ErrNotYetValid, c.notBefore.Format(time.RFC3339))
	}
	return nil
}

// Keyfunc gives golang-jwt the key of a token, for code that parses with
// jwt.Parse and the like. It knows the keys of memory only. The token's alg has
// to be the key's; golang-jwt checks the claims that it is told to check, but
// neither typ nor crit: it takes an ID token for an access token. Prefer Verify.
func (s *Signer) Keyfunc(t *jwt.Token) (any, error) {
	kid, _ := t.Header["kid"].(string)
	k := s.current.Load().byKID[kid]
	if k == nil || !s.clock.Now().Before(k.until) {
		return nil, fmt.Errorf("fleetkey: %w: kid %s", ErrUnknownKey, quoted(kid)) // of any length here
	}
	if t.Method.Alg() != k.alg.name {
		return nil, fmt.Errorf("fleetkey: %w: the key's is %s", ErrWrongAlgorithm, k.alg.name)
	}
	return k.cert.PublicKey, nil
}
