package fleetkey

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// A Token is a verified access token. It cannot be changed, so it may be shared
// between goroutines. Only Verify makes one.
type Token struct {
	keyID  string
	claims jws.Claims
}

// size returns about how many bytes the Token holds. Its strings are parts of the text,
// except where that has escapes and in a scope joined from an array.
func (t *Token) size() int {
	size := 256 + len(t.claims.Text) + len(t.claims.Scope) + 16*cap(t.claims.Audience)
	if strings.Contains(t.claims.Text, `\`) {
		size += len(t.claims.Text)
	}
	return size
}

// Subject returns the sub claim: whom the token is about. It can be "" in a
// token of another system only (see [Former]).
func (t *Token) Subject() string { return t.claims.Subject }

// Issuer returns the iss claim: Config.Issuer, or that of a [Former].
func (t *Token) Issuer() string { return t.claims.Issuer }

// ClientID returns the client_id claim (RFC 8693 section 4.3), or "".
func (t *Token) ClientID() string { return t.claims.ClientID }

// Scope returns the scope claim (RFC 8693 section 4.2), separated by spaces, or "". For a
// token of a former system it may come from scp.
func (t *Token) Scope() string { return t.claims.Scope }

// SenderConstrained reports whether the token has a cnf claim (RFC 7800): only the holder of
// some other key may use it, as with DPoP and mutual TLS. Verify does not check that.
func (t *Token) SenderConstrained() bool { return t.claims.Constrained }

// ID returns the jti claim, or "". To revoke single tokens, keep a list of
// these: the same token has more than one spelling, since an ECDSA signature
// can be changed into another valid one.
func (t *Token) ID() string { return t.claims.ID }

// KeyID returns the kid of the key that signed the token.
func (t *Token) KeyID() string { return t.keyID }

// IssuedAt returns the iat claim. It can be zero in a token of another system only.
func (t *Token) IssuedAt() time.Time { return t.claims.IssuedAt }

// ExpiresAt returns the exp claim. Verify has allowed for Config.ClockSkew
// beyond it.
func (t *Token) ExpiresAt() time.Time { return t.claims.ExpiresAt }

// Audience returns a copy of the aud claim.
func (t *Token) Audience() []string { return slices.Clone(t.claims.Audience) }

// HasScope reports whether the scope claim holds a scope (RFC 6749 section
// 3.3, case-sensitive).
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

// Decode stores all claims in the value that v points to, as json/v2
// (go-json-experiment/json) does: names are case-sensitive. The result
// shares no memory with the Token.
func (t *Token) Decode(v any) error {
	// A copy, since a careless UnmarshalJSON may keep what it is given.
	if err := json.Unmarshal([]byte(t.claims.Text), v); err != nil {
		return fmt.Errorf("fleetkey: decode claims: %w", err)
	}
	return nil
}
