package jws

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rules define which claims are accepted.
type Rules struct {
	Issuer      string
	Audience    []string // a token must name one of them
	MaxTokenTTL time.Duration
	FormerTTL   time.Duration // longest lifetime by the former rules; 0: no limit
	ClockSkew   time.Duration
}

// Check checks the registered claims (RFC 7519 section 4.1) of a token whose signature is
// valid. By the former rules, for systems older than RFC 9068, a token may lack iat and sub
// but must not look like another type of token. The issuer is that of the Rules unless
// another one is given.
func (r *Rules) Check(c *Claims, former bool, issuer string, now time.Time) error {
	if issuer == "" {
		issuer = r.Issuer
	}
	if missing := c.missing(former); missing != "" {
		return fmt.Errorf("%w: %s", ErrMissingClaim, missing)
	}
	if err := r.checkTimes(c, now); err != nil {
		return err
	}
	longest, begin := r.MaxTokenTTL, c.IssuedAt
	if former {
		longest = r.FormerTTL
		if begin.IsZero() {
			begin = now
		}
	}
	if !former && !c.ExpiresAt.After(c.IssuedAt) || longest > 0 && c.ExpiresAt.Sub(begin) > longest {
		return fmt.Errorf("%w: the lifetime is longer than MaxTokenTTL %v", ErrInvalidClaims, longest)
	}
	if c.Issuer != issuer {
		return fmt.Errorf("%w: %s", ErrWrongIssuer, Quote(c.Issuer))
	}
	none := former && len(c.Audience) == 0 // see checkFormer
	if !none && !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(r.Audience, a) }) {
		return fmt.Errorf("%w: %s", ErrWrongAudience, "["+Quote(c.Audience...)+"]")
	}
	if former {
		return r.checkFormer(c)
	}
	return nil
}

// missing returns the name of a required claim that is absent, or "".
func (c *Claims) missing(former bool) string {
	switch {
	case c.ExpiresAt.IsZero():
		return "exp"
	case c.Issuer == "":
		return "iss"
	case len(c.Audience) == 0 && !(former && c.hints&usedForAccess != 0 && c.ClientID != ""):
		return "aud"
	case c.IssuedAt.IsZero() && !former:
		return "iat"
	case c.Subject == "" && !former:
		return "sub"
	}
	return ""
}

func (r *Rules) checkTimes(c *Claims, now time.Time) error {
	from, until := r.Validity(c)
	switch {
	case !now.Before(until):
		return fmt.Errorf("%w since %s", ErrExpired, c.ExpiresAt.Format(time.RFC3339))
	case !now.Before(from):
		return nil
	case c.IssuedAt.After(c.NotBefore):
		return fmt.Errorf("%w: issued in the future, at %s", ErrNotYetValid, c.IssuedAt.Format(time.RFC3339))
	}
	return fmt.Errorf("%w before %s", ErrNotYetValid, c.NotBefore.Format(time.RFC3339))
}

// Validity returns the times from which and until which a token with these claims is
// accepted. nbf and iat have twice the leeway of exp, because the clock that wrote them may
// be ahead while this one is behind.
func (r *Rules) Validity(c *Claims) (from, until time.Time) {
	from = c.NotBefore
	if c.IssuedAt.After(from) {
		from = c.IssuedAt
	}
	return from.Add(-2 * r.ClockSkew), c.ExpiresAt.Add(r.ClockSkew)
}

// Quote quotes claims for an error and shortens them: a claim can be as long as the token,
// and longer when escaped.
func Quote(claims ...string) string {
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
