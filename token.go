package fleetkey

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// A Token is a verified access token. It is immutable and safe for concurrent use. Only
// Verify creates one.
type Token struct {
	keyID  string
	claims jws.Claims
}

// size returns the approximate size of the Token in bytes. Its strings are parts of the
// text, except if the text has escapes, and for a scope joined from an array.
func (t *Token) size() int {
	size := 256 + len(t.claims.Text) + len(t.claims.Scope) + 16*cap(t.claims.Audience)
	if strings.Contains(t.claims.Text, `\`) {
		size += len(t.claims.Text)
	}
	return size
}

// Subject returns the sub claim, which identifies the user or client. It can be "" only in
// a token of another system (see [Former]).
func (t *Token) Subject() string { return t.claims.Subject }

// Issuer returns the iss claim: Config.Issuer, or the Issuer of a [Former].
func (t *Token) Issuer() string { return t.claims.Issuer }

// ClientID returns the client_id claim (RFC 8693 section 4.3), or "".
func (t *Token) ClientID() string { return t.claims.ClientID }

// Scope returns the scope claim (RFC 8693 section 4.2), separated by spaces, or "". For a
// token of another system it may come from scp.
func (t *Token) Scope() string { return t.claims.Scope }

// SenderConstrained reports whether the token has a cnf claim (RFC 7800), as with DPoP and
// mutual TLS: only the holder of a certain key may use it. Verify does not check that.
func (t *Token) SenderConstrained() bool { return t.claims.Constrained }

// ID returns the jti claim, or "". To revoke single tokens, keep a list of IDs rather than
// of tokens: an ECDSA signature can be changed into another valid one, so a token has more
// than one spelling.
func (t *Token) ID() string { return t.claims.ID }

// KeyID returns the kid of the key that signed the token.
func (t *Token) KeyID() string { return t.keyID }

// IssuedAt returns the iat claim. It can be zero only in a token of another system.
func (t *Token) IssuedAt() time.Time { return t.claims.IssuedAt }

// ExpiresAt returns the exp claim. Verify accepts the token for Config.ClockSkew longer.
func (t *Token) ExpiresAt() time.Time { return t.claims.ExpiresAt }

// Audience returns a copy of the aud claim.
func (t *Token) Audience() []string { return slices.Clone(t.claims.Audience) }

// HasScope reports whether the scope claim contains scope (RFC 6749 section 3.3,
// case-sensitive).
func (t *Token) HasScope(scope string) bool {
	if scope == "" {
		return false
	}
	for held := range strings.SplitSeq(t.claims.Scope, " ") {
		if held == scope {
			return true
		}
	}
	return false
}

// Decode stores all claims in the value that v points to. Names are case-sensitive, as in
// json/v2 (go-json-experiment/json). The result shares no memory with the Token.
func (t *Token) Decode(v any) error {
	// A copy, since a careless UnmarshalJSON may keep what it is given.
	if err := json.Unmarshal([]byte(t.claims.Text), v); err != nil {
		return fmt.Errorf("fleetkey: decode claims: %w", err)
	}
	return nil
}
