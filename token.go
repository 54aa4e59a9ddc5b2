package fleetkey

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A Token is a verified access token. It cannot be changed, so it may be shared
// between goroutines. Only [Signer.Verify] makes one.
type Token struct {
	keyID   string
	payload []byte
	claims  claimSet
}

// Subject returns the sub claim: whom the token speaks of. It can be "" in a
// token of another system only (see [Signer.Trust]).
func (t *Token) Subject() string { return t.claims.subject }

// Issuer returns the iss claim: Config.Issuer, or one of Config.FormerIssuers.
func (t *Token) Issuer() string { return t.claims.issuer }

// ClientID returns the client_id claim (RFC 8693 section 4.3), or "".
func (t *Token) ClientID() string { return t.claims.clientID }

// Scope returns the scope claim (RFC 8693 section 4.2), separated by spaces, or "".
func (t *Token) Scope() string { return t.claims.scope }

// ID returns the jti claim, or "". To revoke single tokens, keep a list of
// these: the same token has more than one spelling, since an ECDSA signature
// can be changed into another valid one.
func (t *Token) ID() string { return t.claims.id }

// KeyID returns the kid of the key that signed the token.
func (t *Token) KeyID() string { return t.keyID }

// IssuedAt returns the iat claim. It can be zero in a token of another system only.
func (t *Token) IssuedAt() time.Time { return t.claims.issued }

// ExpiresAt returns the exp claim. Verify has allowed for Config.ClockSkew
// beyond it.
func (t *Token) ExpiresAt() time.Time { return t.claims.expires }

// Audience returns a copy of the aud claim.
func (t *Token) Audience() []string { return slices.Clone(t.claims.audience) }

// HasScope reports whether the scope claim holds a scope (RFC 6749 section
// 3.3; compared with case).
func (t *Token) HasScope(scope string) bool {
	if scope == "" {
		return false
	}
	for held := range strings.SplitSeq(t.claims.scope, " ") {
		if held == scope {
			return true
		}
	}
	return false
}

// Decode stores all claims in the value that v points to, as json/v2
// (go-json-experiment/json) does: names are compared with case. The result
// shares no memory with the Token.
func (t *Token) Decode(v any) error {
	// A copy, since a careless UnmarshalJSON may keep what it is given.
	if err := json.Unmarshal(bytes.Clone(t.payload), v); err != nil {
		return fmt.Errorf("fleetkey: decode claims: %w", err)
	}
	return nil
}

// A claimSet holds the claims that have a meaning here (RFC 7519 section 4.1,
// RFC 9068 section 2.2).
type claimSet struct {
	issuer, subject, clientID, scope, id string
	audience                             []string
	expires, issued, notBefore           time.Time
}

// UnmarshalJSONFrom reads the claims by their exact names; a name that differs
// only in case from one of them is refused, since another reader of the same
// token might take the one for the other.
func (c *claimSet) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return eachMember(dec, func(name string) error {
		var err error
		switch name {
		case "iss":
			c.issuer, err = readString(dec)
		case "sub":
			c.subject, err = readString(dec)
		case "aud":
			c.audience, err = readStrings(dec)
		case "exp":
			c.expires, err = readTime(dec)
		case "iat":
			c.issued, err = readTime(dec)
		case "nbf":
			c.notBefore, err = readTime(dec)
		case "jti":
			c.id, err = readString(dec)
		case "client_id":
			c.clientID, err = readString(dec)
		case "scope":
			c.scope, err = readScope(dec)
		default:
			if isRegistered(name) {
				return &claimError{"a registered claim's name is written in another case"}
			}
			return dec.SkipValue()
		}
		return err
	})
}

// A claimError says what is wrong with a claim of a well-formed payload.
type claimError struct{ text string }

func (e *claimError) Error() string { return e.text }

// missing returns the name of a required claim that is absent, or "".
func (c *claimSet) missing(foreign bool) string {
	switch {
	case c.expires.IsZero():
		return "exp"
	case c.issuer == "":
		return "iss"
	case len(c.audience) == 0:
		return "aud"
	case c.issued.IsZero() && !foreign:
		return "iat"
	case c.subject == "" && !foreign:
		return "sub"
	}
	return ""
}

// readStrings reads a string or an array of strings (RFC 7519 section 4.1.3).
func readStrings(dec *jsontext.Decoder) ([]string, error) {
	if dec.PeekKind() == '"' {
		one, err := readString(dec)
		return []string{one}, err
	}
	if dec.PeekKind() != '[' {
		return nil, &claimError{"a claim is neither a string nor an array of strings"}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	var names []string
	for dec.PeekKind() != ']' {
		name, err := readString(dec)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	_, err := dec.ReadToken()
	return names, err
}

// readScope reads a scope claim (RFC 8693 section 4.2). IdentityServer writes
// an array of scopes instead.
func readScope(dec *jsontext.Decoder) (string, error) {
	if dec.PeekKind() == '"' {
		return readString(dec)
	}
	scopes, err := readStrings(dec)
	for _, scope := range scopes {
		if scope == "" || strings.Contains(scope, " ") {
			return "", &claimError{"a scope is empty or holds a space"}
		}
	}
	return strings.Join(scopes, " "), err
}

// readTime reads a NumericDate (RFC 7519 section 2): seconds since 1970, with
// or without a fraction.
func readTime(dec *jsontext.Decoder) (time.Time, error) {
	if dec.PeekKind() != '0' {
		return time.Time{}, &claimError{"a time is not a number"}
	}
	token, err := dec.ReadToken()
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := token.Float()
	if err != nil || !(seconds >= 0 && seconds <= maxTime) {
		return time.Time{}, &claimError{"a time is not between 1970 and 9999"}
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}
