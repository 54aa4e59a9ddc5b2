package jws

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// AccessTokenType is the typ of a JWT access token (RFC 9068 section 2.1).
	AccessTokenType = "at+jwt"
	// MaxKeyID is the longest accepted kid, in bytes.
	MaxKeyID = 128
)

// A Header is the content of a JOSE header.
type Header struct {
	text                   string // the decoded JSON
	Algorithm, KeyID, Type string
	Thumbprint             bool // has x5t or x5t#S256, which other systems add
}

// ParseHeader reads an encoded JOSE header. It rejects parameters that could name a key
// elsewhere or change what is signed (jwk, jku, x5u, x5c, b64, zip, crit, ...), regardless
// of their value.
func ParseHeader(segment string) (Header, error) {
	data, err := decode(segment, "header")
	if err != nil {
		return Header{}, err
	}
	h := Header{text: string(data)}
	if err := json.Unmarshal(data, &h); err != nil {
		return Header{}, fmt.Errorf("%w: the header is not a JSON object with only alg, typ and kid", ErrMalformed)
	}
	if h.KeyID == "" || len(h.KeyID) > MaxKeyID {
		return Header{}, fmt.Errorf("%w: kid is missing or longer than %d bytes", ErrMalformed, MaxKeyID)
	}
	return h, nil
}

// UnmarshalJSONFrom is called by json.Unmarshal, whose decoder rejects duplicate names,
// invalid UTF-8 and trailing data.
func (h *Header) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	r := reader{dec, h.text}
	return r.eachMember(func(name string) error {
		value, err := r.readString()
		switch name {
		case "alg":
			h.Algorithm = value
		case "kid":
			h.KeyID = value
		case "typ":
			h.Type = value
		case "x5t", "x5t#S256":
			h.Thumbprint = true
		default:
			return errors.New("unknown header parameter")
		}
		return err
	})
}

// IsAccessToken reports whether typ is at+jwt, in any case and with or without the
// application/ prefix (RFC 9068 section 4, RFC 7515 section 4.1.9).
func (h Header) IsAccessToken() bool {
	return strings.EqualFold(h.Type, AccessTokenType) || strings.EqualFold(h.Type, "application/"+AccessTokenType)
}

// Supported reports whether any key can have the header's alg.
func (h Header) Supported() bool {
	_, err := AlgorithmNamed(h.Algorithm)
	return err == nil || h.Algorithm == "Ed25519" // RFC 9864's name for EdDSA
}

// IsUntyped reports whether typ says only that this is a JWT, as in access tokens of
// systems older than RFC 9068.
func (h Header) IsUntyped() bool { return h.Type == "" || strings.EqualFold(h.Type, "JWT") }

// EncodeHeader returns the encoded header of tokens of a type that a key signs. All three
// values are printable ASCII without quotes, so nothing needs escaping.
func EncodeHeader(alg Algorithm, kid, typ string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + alg.Name + `","kid":"` + kid + `","typ":"` + typ + `"}`))
}

const mediaTypeChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+/"

// CheckType checks a typ header value: a media type with or without the application/ prefix
// (RFC 7515 section 4.1.9), in the characters that RFC 6838 section 4.2 allows.
func CheckType(typ string) error {
	if typ == "" || len(typ) > 127 || strings.TrimLeft(typ, mediaTypeChars) != "" {
		return fmt.Errorf("%w: typ %q is not a media type", ErrInvalidClaims, typ)
	}
	return nil
}

// CheckKeyID checks a kid given by hand. It must be printable ASCII, so that it means the
// same in a PEM header and in JSON. The error does not quote it, as it could be anything.
func CheckKeyID(kid string) error {
	ok := kid != "" && len(kid) <= MaxKeyID && strings.TrimSpace(kid) == kid
	for _, c := range []byte(kid) {
		ok = ok && c >= ' ' && c <= '~' && c != '"' && c != '\\'
	}
	if !ok {
		return fmt.Errorf("the kid (%d bytes) is not 1 to %d printable ASCII characters without quotes and backslashes", len(kid), MaxKeyID)
	}
	return nil
}
