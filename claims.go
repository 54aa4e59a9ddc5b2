package fleetkey

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
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

// accessTokenType is the typ of a JWT access token (RFC 9068 section 2.1).
const accessTokenType = "at+jwt"

// Claims is what [Signer.Issue] signs into an access token (RFC 9068 section
// 2.2). Zero fields are filled in or left out, as each says.
type Claims struct {
	Issuer    string         // iss; zero: Config.Issuer, and nothing else is accepted
	Subject   string         // sub; zero: ClientID, as for a client's own token
	Audience  []string       // aud; zero: Config.Audience
	ClientID  string         // client_id; zero: left out
	Scope     string         // scope, separated by spaces (RFC 6749 section 3.3); zero: left out
	ID        string         // jti; zero: a random one of 130 bits
	IssuedAt  time.Time      // iat; zero: now
	NotBefore time.Time      // nbf; zero: left out
	ExpiresAt time.Time      // exp; zero: IssuedAt + Config.TokenTTL
	Extra     map[string]any // further claims; the names above are refused, in any case
}

// registered are the claims that have a field in [Claims] and a meaning for
// Verify.
var registered = [...]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope"}

// isRegistered reports whether a name would be taken for a registered claim by
// a reader that compares names without case, as encoding/json does.
func isRegistered(name string) bool {
	return slices.ContainsFunc(registered[:], func(r string) bool { return strings.EqualFold(r, name) })
}

// Issue signs an access token. It works from memory.
//
// Claims that Verify would not accept match [ErrInvalidClaims]: a lifetime over
// Config.MaxTokenTTL, another issuer, a registered name in Extra. With no key
// to sign, the error matches [ErrNoSigningKey], [ErrKeyExpired] or [ErrStale].
func (s *Signer) Issue(ctx context.Context, c Claims) (string, error) {
	now := s.clock.Now()
	k, err := s.signingKey(now)
	if err != nil {
		return "", fmt.Errorf("fleetkey: issue: %w", err)
	}
	if err := s.fillIn(&c, now); err != nil {
		return "", fmt.Errorf("fleetkey: issue: %w: %w", ErrInvalidClaims, err)
	}
	var buf [512]byte // on the stack, as long as it suffices
	payload, err := c.appendTo(buf[:0])
	if err != nil {
		return "", fmt.Errorf("fleetkey: issue: %w: %w", ErrInvalidClaims, err)
	}
	return s.sign(k.key, k.header, payload)
}

// Sign signs any claims as a JWT of any type, such as an ID token ("JWT") or a
// logout token ("logout+jwt"). The claims are what go-json-experiment/json, the
// Go team's json/v2, encodes as an object; nothing is filled in. An exp that
// lies more than Config.MaxTokenTTL ahead is refused, since the key may not be
// trusted for so long.
func (s *Signer) Sign(ctx context.Context, typ string, claims any) (string, error) {
	now := s.clock.Now()
	k, err := s.signingKey(now)
	if err != nil {
		return "", fmt.Errorf("fleetkey: sign: %w", err)
	}
	if err := checkType(typ); err != nil {
		return "", fmt.Errorf("fleetkey: sign: %w", err)
	}
	payload, err := json.Marshal(claims, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("fleetkey: sign: %w: %w", ErrInvalidClaims, err)
	}
	var times struct {
		Expires *float64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &times); err != nil || payload[0] != '{' {
		return "", fmt.Errorf("fleetkey: sign: %w: not a JSON object with a numeric exp", ErrInvalidClaims)
	}
	if latest := now.Add(s.cfg.MaxTokenTTL); times.Expires != nil && *times.Expires > float64(latest.Unix()) {
		return "", fmt.Errorf("fleetkey: sign: %w: exp is more than Config.MaxTokenTTL %v ahead", ErrInvalidClaims, s.cfg.MaxTokenTTL)
	}
	return s.sign(k.key, k.key.header(typ), payload)
}

// checkType accepts a typ header value: a media type with or without its
// application/ prefix (RFC 7515 section 4.1.9), in the characters that RFC 6838
// section 4.2 allows.
func checkType(typ string) error {
	ok := typ != "" && len(typ) <= 127
	for _, c := range []byte(typ) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$&-^_.+/", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%w: typ %q is not a media type", ErrInvalidClaims, typ)
	}
	return nil
}

// signingKey returns the key that signs now, unless a token signed by it might
// be refused before it expires.
func (s *Signer) signingKey(now time.Time) (*trustedKey, error) {
	snap := s.current.Load()
	k := snap.signing(now)
	if k == nil {
		return nil, snap.whyNoKey(now)
	}
	if last := k.until.Add(-s.cfg.MaxTokenTTL - 2*s.cfg.ClockSkew); now.After(last) {
		return nil, fmt.Errorf("%w: key %s was to be replaced by %s", ErrKeyExpired, k.id, last.Format(time.RFC3339))
	}
	if s.cfg.Rotation.Every > 0 {
		r := s.cfg.Rotation
		// One ClockSkew each: a slow clock announced the next key, a fast one
		// dates this token, and a fast one drops the present key.
		limit := r.Announce + r.Retain - s.cfg.MaxTokenTTL - 3*s.cfg.ClockSkew - staleRead
		if age := s.health.Load().age(now); age > limit {
			return nil, fmt.Errorf("%w: %v, more than %v", ErrStale, age.Round(time.Second), limit)
		}
	}
	return k, nil
}

// whyNoKey says why no key signs at a time.
func (s *snapshot) whyNoKey(now time.Time) error {
	for _, k := range s.set.keys {
		switch {
		case k.private == nil:
		case k.cert.NotBefore.After(now):
			return fmt.Errorf("%w: key %s begins to sign at %s; is the clock right?", ErrNoSigningKey, k.id, k.cert.NotBefore.Format(time.RFC3339))
		default:
			return fmt.Errorf("%w: key %s ended at %s", ErrKeyExpired, k.id, k.cert.NotAfter.Format(time.RFC3339))
		}
	}
	return fmt.Errorf("%w: the bundle holds no private key", ErrNoSigningKey)
}

// sign returns the JWS compact serialization (RFC 7515 section 7.1).
func (s *Signer) sign(k *key, header string, payload []byte) (string, error) {
	var room [1024]byte // on the stack, as long as it suffices
	buf := append(append(room[:0], header...), '.')
	buf = base64.RawURLEncoding.AppendEncode(buf, payload)
	signature, err := k.signature(buf)
	if err != nil {
		return "", fmt.Errorf("fleetkey: sign with %s key %s: %w", k.alg.name, k.id, err)
	}
	buf = base64.RawURLEncoding.AppendEncode(append(buf, '.'), signature)
	if len(buf) > MaxTokenSize {
		return "", fmt.Errorf("fleetkey: %w: the token would have %d bytes; at most %d are allowed", ErrInvalidClaims, len(buf), MaxTokenSize)
	}
	s.counters.issued.Add(1)
	return string(buf), nil
}

// signature signs what a JWS covers. golang-jwt's ES256 and ES384 turn what
// crypto/ecdsa returns into two big integers and these into the bytes of RFC
// 7518 section 3.4; here they stay bytes, which saves eight allocations and
// three hundredths of the time.
func (k *key) signature(text []byte) ([]byte, error) {
	private, ok := k.private.(*ecdsa.PrivateKey)
	if !ok {
		return k.alg.method.Sign(string(text), k.private)
	}
	size := (private.Params().BitSize + 7) / 8
	var der []byte
	var err error
	if size == sha256.Size {
		digest := sha256.Sum256(text)
		der, err = ecdsa.SignASN1(rand.Reader, private, digest[:])
	} else {
		digest := sha512.Sum384(text)
		der, err = ecdsa.SignASN1(rand.Reader, private, digest[:])
	}
	if err != nil {
		return nil, err
	}
	return concatenated(der, size), nil
}

// concatenated turns the DER form of an ECDSA signature, SEQUENCE { INTEGER r,
// INTEGER s } under 128 bytes (RFC 3279 section 2.2.3), into r and s at full
// size, one behind the other (RFC 7518 section 3.4).
func concatenated(der []byte, size int) []byte {
	out := make([]byte, 2*size)
	rest := der[2:]
	for end := size; end <= 2*size; end += size {
		value := rest[2 : 2+rest[1]]
		rest = rest[2+len(value):]
		value = value[max(0, len(value)-size):] // a zero keeps DER integers positive
		copy(out[end-len(value):end], value)
	}
	return out
}

// fillIn completes the claims, and refuses what Verify would refuse at any time.
func (s *Signer) fillIn(c *Claims, now time.Time) error {
	setDefault(&c.Issuer, s.cfg.Issuer)
	setDefault(&c.Subject, c.ClientID)
	// A token knows whole seconds only, and Verify goes by what it says.
	if c.IssuedAt.IsZero() {
		c.IssuedAt = now
	}
	c.IssuedAt = c.IssuedAt.Truncate(time.Second)
	if c.ExpiresAt.IsZero() {
		c.ExpiresAt = c.IssuedAt.Add(s.cfg.TokenTTL)
	}
	c.ExpiresAt = c.ExpiresAt.Truncate(time.Second)
	setDefault(&c.ID, rand.Text())
	if len(c.Audience) == 0 {
		c.Audience = s.cfg.Audience
	}
	switch longest := s.cfg.MaxTokenTTL; {
	case c.Issuer != s.cfg.Issuer:
		return fmt.Errorf("issuer %q is not Config.Issuer %q", c.Issuer, s.cfg.Issuer)
	case c.Subject == "":
		return errors.New("neither Subject nor ClientID is given")
	case slices.Contains(c.Audience, ""):
		return errors.New("the audience holds an empty name")
	case !inRange(c.IssuedAt) || !inRange(c.ExpiresAt) || !c.NotBefore.IsZero() && !inRange(c.NotBefore):
		return errors.New("a time is outside of the years 1970 to 9999")
	case !c.ExpiresAt.After(c.IssuedAt) || !c.ExpiresAt.After(c.NotBefore):
		return errors.New("ExpiresAt is not after IssuedAt and NotBefore")
	case c.IssuedAt.After(now.Add(2 * s.cfg.ClockSkew)):
		return errors.New("IssuedAt lies ahead")
	case c.ExpiresAt.Sub(c.IssuedAt) > longest || c.ExpiresAt.Sub(now) > longest:
		return fmt.Errorf("the lifetime is over Config.MaxTokenTTL %v", longest)
	}
	for name := range c.Extra {
		if isRegistered(name) {
			return fmt.Errorf("Extra holds the registered claim %q; use the field for it", name)
		}
	}
	return nil
}

// maxTime is 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const maxTime = 253402300799

func inRange(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= maxTime }

// appendTo appends the filled-in claims as a JSON object to an empty slice.
func (c *Claims) appendTo(empty []byte) ([]byte, error) {
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
	if len(c.Extra) > 0 {
		for _, name := range slices.Sorted(maps.Keys(c.Extra)) {
			value, err := json.Marshal(c.Extra[name], json.Deterministic(true))
			if err != nil {
				return nil, fmt.Errorf("claim %q: %w", name, err)
			}
			o = o.quote(',', name)
			o.json = append(append(o.json, ':'), value...)
		}
	}
	if o.invalid {
		return nil, errors.New("a name or a string holds invalid UTF-8")
	}
	return append(o.json, '}'), nil
}

// An object is a JSON object in the making. It is passed by value, and what is
// wrong with it is no error that could refer to it, so that its bytes can lie on
// a stack.
type object struct {
	json    []byte
	invalid bool // UTF-8, which what reads it refuses
}

// quote appends a character and a quoted string.
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

// strings takes at least one value.
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
