package fleetkey

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A Token is a verified access token. It cannot be changed, so it may be shared
// between goroutines. Only [Signer.Verify] makes one.
type Token struct {
	keyID  string
	claims claimSet
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
	if err := json.Unmarshal([]byte(t.claims.text), v); err != nil {
		return fmt.Errorf("fleetkey: decode claims: %w", err)
	}
	return nil
}

// A claimSet holds the claims that have a meaning here (RFC 7519 section 4.1,
// RFC 9068 section 2.2).
type claimSet struct {
	text                                 string // the payload, of which the others are parts
	issuer, subject, clientID, scope, id string
	audience                             []string
	expires, issued, notBefore           time.Time
}

// UnmarshalJSONFrom reads the claims by their exact names; a name that differs
// only in case from one of them is refused, since another reader of the same
// token might take the one for the other.
func (c *claimSet) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	r := reader{dec, c.text}
	return r.eachMember(func(name string) error {
		var err error
		switch name {
		case "iss":
			c.issuer, err = r.readString()
		case "sub":
			c.subject, err = r.readString()
		case "aud":
			c.audience, err = r.readStrings()
		case "exp":
			c.expires, err = r.readTime()
		case "iat":
			c.issued, err = r.readTime()
		case "nbf":
			c.notBefore, err = r.readTime()
		case "jti":
			c.id, err = r.readString()
		case "client_id":
			c.clientID, err = r.readString()
		case "scope":
			c.scope, err = r.readScope()
		default:
			if isRegistered(name) {
				return &claimError{"a registered claim's name is written in another case"}
			}
			return r.SkipValue()
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

// A reader reads one JSON object, and takes strings out of its text without
// copying them.
type reader struct {
	*jsontext.Decoder
	text string // what the Decoder reads
}

// eachMember calls f for the name of each member; f has to read the value.
func (r reader) eachMember(f func(name string) error) error {
	if r.PeekKind() != '{' {
		return errors.New("not a JSON object")
	}
	if _, err := r.ReadToken(); err != nil {
		return err
	}
	for r.PeekKind() != '}' {
		name, err := r.next()
		if err != nil {
			return err
		}
		if err := f(name); err != nil {
			return err
		}
	}
	_, err := r.ReadToken()
	return err
}

func (r reader) readString() (string, error) {
	if r.PeekKind() != '"' {
		return "", &claimError{"a value is not a string"}
	}
	return r.next()
}

// next reads a string, or a name.
func (r reader) next() (string, error) {
	value, err := r.ReadValue()
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(value, '\\') >= 0 {
		unquoted, err := jsontext.AppendUnquote(nil, value)
		return string(unquoted), err
	}
	end := int(r.InputOffset())
	return r.text[end-len(value)+1 : end-1], nil
}

// readStrings reads a string or an array of strings (RFC 7519 section 4.1.3).
func (r reader) readStrings() ([]string, error) {
	switch r.PeekKind() {
	case '"':
		one, err := r.readString()
		return []string{one}, err
	case '[':
	default:
		return nil, &claimError{"a claim is neither a string nor an array of strings"}
	}
	if _, err := r.ReadToken(); err != nil {
		return nil, err
	}
	var names []string
	for r.PeekKind() != ']' {
		name, err := r.readString()
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	_, err := r.ReadToken()
	return names, err
}

// readScope reads a scope claim (RFC 8693 section 4.2). IdentityServer writes
// an array of scopes instead.
func (r reader) readScope() (string, error) {
	if r.PeekKind() == '"' {
		return r.readString()
	}
	scopes, err := r.readStrings()
	for _, scope := range scopes {
		if scope == "" || strings.Contains(scope, " ") {
			return "", &claimError{"a scope is empty or holds a space"}
		}
	}
	return strings.Join(scopes, " "), err
}

// readTime reads a NumericDate (RFC 7519 section 2): seconds since 1970, with
// or without a fraction.
func (r reader) readTime() (time.Time, error) {
	if r.PeekKind() != '0' {
		return time.Time{}, &claimError{"a time is not a number"}
	}
	value, err := r.ReadValue()
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil || !(seconds >= 0 && seconds <= maxTime) {
		return time.Time{}, &claimError{"a time is not between 1970 and 9999"}
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}
