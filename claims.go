package fleetkey

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// MaxTokenSize is the longest token, in bytes, that is issued or verified. HTTP servers
// commonly limit the headers of a request to this size.
const MaxTokenSize = jws.MaxTokenSize

// Claims are the claims of an access token (RFC 9068 section 2.2) for [Signer.Issue]. The
// comments say how zero fields are set.
type Claims struct {
	Issuer    string         // iss; must be Config.Issuer, which is the default
	Subject   string         // sub; zero: ClientID, as in a client credentials grant
	Audience  []string       // aud; zero: Config.Audience
	ClientID  string         // client_id; required (RFC 9068 section 2.2)
	Scope     string         // scope, separated by spaces (RFC 6749 section 3.3); zero: omitted
	ID        string         // jti; zero: 130 random bits
	IssuedAt  time.Time      // iat; zero: now
	NotBefore time.Time      // nbf; zero: omitted
	ExpiresAt time.Time      // exp; zero: IssuedAt + Config.TokenTTL
	Extra     map[string]any // further claims; must not have the claim names above (iss, sub, ...), whatever their case
}

// Issue signs an access token. It works from memory. The token expires at Claims.ExpiresAt
// or, by default, after Config.TokenTTL. A token response gives this lifetime in seconds as
// expires_in (RFC 6749 section 5.1).
//
// The error matches [ErrInvalidClaims] for claims that Verify would reject, such as a
// lifetime longer than Config.MaxTokenTTL or another issuer, and for a registered name in
// Extra.
// If no key can sign, it matches [ErrNoSigningKey], [ErrKeyExpired] or [ErrStale].
func (s *Signer) Issue(ctx context.Context, c Claims) (string, error) {
	now := s.verifier.clock.Now()
	k, err := s.signingKey(now)
	if err != nil {
		return "", fmt.Errorf("fleetkey: issue: %w", err)
	}
	filled, err := s.fillIn(&c, now)
	if err != nil {
		return "", fmt.Errorf("fleetkey: issue: %w: %w", ErrInvalidClaims, err)
	}
	var buf [512]byte // on the stack while it is large enough
	payload, err := filled.Append(buf[:0], c.Extra)
	if err != nil {
		return "", fmt.Errorf("fleetkey: issue: %w: %w", ErrInvalidClaims, err)
	}
	return s.sign(k, k.Header, payload)
}

// Sign signs claims as a JWT of any type, such as an ID token ("JWT") or a logout token
// ("logout+jwt"). claims is a value that encoding/json encodes as an object, such as a map
// or a struct. Sign adds no claims. A claim whose name differs only in case from one that
// [Claims] lists, such as "Sub", is an error. So is an exp more than Config.MaxTokenTTL in
// the future, since the key may not be trusted for that long.
func (s *Signer) Sign(ctx context.Context, typ string, claims any) (string, error) {
	now := s.verifier.clock.Now()
	k, err := s.signingKey(now)
	if err != nil {
		return "", fmt.Errorf("fleetkey: sign: %w", err)
	}
	if err := jws.CheckType(typ); err != nil {
		return "", fmt.Errorf("fleetkey: sign: %w", err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("fleetkey: sign: %w: %w", ErrInvalidClaims, err)
	}
	read, err := jws.ReadClaims(payload)
	if err != nil {
		return "", fmt.Errorf("fleetkey: sign: %w: %w", ErrInvalidClaims, err)
	}
	if latest := now.Add(s.cfg.MaxTokenTTL); read.ExpiresAt.After(latest) {
		return "", fmt.Errorf("fleetkey: sign: %w: exp is more than Config.MaxTokenTTL %v in the future", ErrInvalidClaims, s.cfg.MaxTokenTTL)
	}
	return s.sign(k, jws.EncodeHeader(k.Alg, k.ID, typ), payload)
}

// sign signs a header and a payload.
func (s *Signer) sign(k *trust.Key, header string, payload []byte) (string, error) {
	token, err := jws.Sign(k.Alg, k.Source.Private, header, payload)
	if err != nil {
		return "", fmt.Errorf("fleetkey: sign with %s key %s: %w", k.Alg.Name, k.ID, err)
	}
	s.verifier.counters.issued.Add(1)
	return token, nil
}

// fillIn sets the missing claims, and rejects what Verify would always reject.
func (s *Signer) fillIn(c *Claims, now time.Time) (jws.Claims, error) {
	out := jws.Claims{Issuer: c.Issuer, Subject: c.Subject, ClientID: c.ClientID, Scope: c.Scope, ID: c.ID,
		Audience: c.Audience, IssuedAt: c.IssuedAt, ExpiresAt: c.ExpiresAt, NotBefore: c.NotBefore}
	setDefault(&out.Issuer, s.cfg.Issuer)
	setDefault(&out.Subject, c.ClientID)
	// A token has whole seconds only, and Verify uses what the token says.
	if out.IssuedAt.IsZero() {
		out.IssuedAt = now
	}
	out.IssuedAt = out.IssuedAt.Truncate(time.Second)
	if out.ExpiresAt.IsZero() {
		out.ExpiresAt = out.IssuedAt.Add(s.cfg.TokenTTL)
	}
	out.ExpiresAt = out.ExpiresAt.Truncate(time.Second)
	setDefault(&out.ID, rand.Text())
	if len(out.Audience) == 0 {
		out.Audience = s.cfg.Audience
	}
	return out, s.check(&out, c.Extra, now)
}

func (s *Signer) check(c *jws.Claims, extra map[string]any, now time.Time) error {
	switch longest := s.cfg.MaxTokenTTL; {
	case c.Issuer != s.cfg.Issuer:
		return fmt.Errorf("issuer %q is not Config.Issuer %q", c.Issuer, s.cfg.Issuer)
	case c.ClientID == "":
		return errors.New("ClientID is empty: an access token requires client_id (RFC 9068 section 2.2)")
	case slices.Contains(c.Audience, ""):
		return errors.New("the audience contains an empty name")
	case !jws.InRange(c.IssuedAt) || !jws.InRange(c.ExpiresAt) || !c.NotBefore.IsZero() && !jws.InRange(c.NotBefore):
		return errors.New("a time is not between 1970 and 9999")
	case !c.ExpiresAt.After(c.IssuedAt) || !c.ExpiresAt.After(c.NotBefore):
		return errors.New("ExpiresAt is not after IssuedAt and NotBefore")
	case c.IssuedAt.After(now.Add(2 * s.cfg.ClockSkew)):
		return errors.New("IssuedAt is in the future")
	case c.ExpiresAt.Sub(c.IssuedAt) > longest || c.ExpiresAt.Sub(now) > longest:
		return fmt.Errorf("the lifetime is longer than Config.MaxTokenTTL %v", longest)
	}
	for name := range extra {
		if jws.IsRegistered(name) {
			return fmt.Errorf("Extra contains the registered claim %q; use the field of Claims", name)
		}
	}
	return nil
}
