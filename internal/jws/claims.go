package jws

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Claims are the claims that this package interprets (RFC 7519 section 4.1, RFC 9068
// section 2.2). An absent claim is zero.
type Claims struct {
	Text                                 string // the payload; the other strings are parts of it
	Issuer, Subject, ClientID, Scope, ID string
	Audience                             []string
	ExpiresAt, IssuedAt, NotBefore       time.Time

	FormerScope  string // scp, which some systems use instead of scope; only read
	FormerClient string // azp or appid, which some use instead of client_id; only read
	Constrained  bool   // has cnf (RFC 7800); only read
	hints        hints
}

// registered are the claims that have a field in Claims.
var registered = [...]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope"}

// IsRegistered reports whether a name looks like a registered claim to a reader
// that ignores case, as encoding/json does.
func IsRegistered(name string) bool {
	return slices.ContainsFunc(registered[:], func(r string) bool { return strings.EqualFold(r, name) })
}

// ReadClaims reads the payload of a token.
func ReadClaims(payload []byte) (*Claims, error) {
	c := &Claims{Text: string(payload)}
	return c, c.read(payload)
}

func (c *Claims) read(payload []byte) error {
	if err := json.Unmarshal(payload, c); err != nil {
		if wrong, ok := errors.AsType[*claimError](err); ok {
			return fmt.Errorf("%w: %w", ErrInvalidClaims, wrong)
		}
		return fmt.Errorf("%w: the payload is not a strict JSON object", ErrMalformed)
	}
	return nil
}

// UnmarshalJSONFrom reads the claims by their exact names. It rejects a name that differs
// from one of them only in case, since another reader of the token might confuse the two.
func (c *Claims) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	r := reader{dec, c.Text}
	return r.eachMember(func(name string) error {
		var err error
		switch name {
		case "iss":
			c.Issuer, err = r.readString()
		case "sub":
			c.Subject, err = r.readString()
		case "aud":
			c.Audience, err = r.readStrings()
		case "exp":
			c.ExpiresAt, err = r.readTime()
		case "iat":
			c.IssuedAt, err = r.readTime()
		case "nbf":
			c.NotBefore, err = r.readTime()
		case "jti":
			c.ID, err = r.readString()
		case "client_id":
			c.ClientID, err = r.readString()
		case "scope":
			c.Scope, err = r.readScope()
		case "scp":
			c.FormerScope, err = r.readFormerScope()
		case "azp", "appid":
			err = c.readClient(r, name == "azp")
		case "cnf":
			c.Constrained = true
			return r.SkipValue()
		case "typ", "token_use", "roles", "at_hash", "c_hash", "nonce", "events":
			err = c.hints.read(r, name)
		default:
			if IsRegistered(name) {
				return &claimError{"the name of a registered claim has the wrong case"}
			}
			return r.SkipValue()
		}
		return err
	})
}

// Append appends the claims and extra ones as a JSON object to an empty slice.
func (c *Claims) Append(empty []byte, extra map[string]any) ([]byte, error) {
	o := object{json: empty}.string("iss", c.Issuer).string("sub", c.Subject)
	if len(c.Audience) == 1 {
		o = o.string("aud", c.Audience[0])
	} else {
		o = o.strings("aud", c.Audience)
	}
	o = o.time("exp", c.ExpiresAt).time("iat", c.IssuedAt)
	if !c.NotBefore.IsZero() {
		o = o.time("nbf", c.NotBefore)
	}
	o = o.string("jti", c.ID)
	if c.ClientID != "" {
		o = o.string("client_id", c.ClientID)
	}
	if c.Scope != "" {
		o = o.string("scope", c.Scope)
	}
	if len(extra) > 0 {
		for _, name := range slices.Sorted(maps.Keys(extra)) {
			value, err := json.Marshal(extra[name], json.Deterministic(true))
			if err != nil {
				return nil, fmt.Errorf("claim %q: %w", name, err)
			}
			o = o.quote(',', name)
			o.json = append(append(o.json, ':'), value...)
		}
	}
	if o.invalid {
		return nil, errors.New("a name or a string contains invalid UTF-8")
	}
	return append(o.json, '}'), nil
}

// An object is a JSON object being built. It is passed by value and records errors as a
// flag, so that its bytes can stay on the stack.
type object struct {
	json    []byte
	invalid bool // contains invalid UTF-8, which readers reject
}

// quote appends the character before and a quoted string.
func (o object) quote(before byte, text string) object {
	quoted, err := jsontext.AppendQuote(append(o.json, before), text)
	return object{json: quoted, invalid: o.invalid || err != nil}
}

// name appends the name of a registered claim, which needs no escapes.
func (o object) name(name string) object {
	before := byte(',')
	if len(o.json) == 0 {
		before = '{'
	}
	o.json = append(append(append(o.json, before, '"'), name...), '"')
	return o
}

func (o object) string(name, value string) object {
	return o.name(name).quote(':', value)
}

// strings requires at least one value.
func (o object) strings(name string, values []string) object {
	o = o.name(name)
	o.json = append(o.json, ':')
	before := byte('[')
	for _, value := range values {
		o = o.quote(before, value)
		before = ','
	}
	o.json = append(o.json, ']')
	return o
}

func (o object) time(name string, t time.Time) object {
	o = o.name(name)
	o.json = strconv.AppendInt(append(o.json, ':'), t.Unix(), 10)
	return o
}
