// Package jwstest makes tokens for tests, including ones that no Signer would issue. They are
// issued by Issuer for API, and valid at Noon.
package jwstest

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The issuer and audiences of the tokens.
const (
	Issuer   = "https://issuer.example"
	API      = "https://api.example"
	OtherAPI = "urn:other-api"
)

// Noon is when these tokens are issued and verified.
var Noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// A Forger signs any header and payload.
type Forger struct {
	Private  crypto.Signer
	Alg, KID string
}

// Forge returns a signed token with any header and payload.
func (f *Forger) Forge(header, payload string) string {
	return SignWith(jwt.GetSigningMethod(f.Alg), f.Private, header, payload)
}

// Header returns the header of a valid token, with changes.
func (f *Forger) Header(changes ...string) string {
	return Changed([]string{"alg", `"` + f.Alg + `"`, "kid", `"` + f.KID + `"`, "typ", `"at+jwt"`}, changes...)
}

// Payload returns the payload of a valid token, with changes.
func Payload(changes ...string) string {
	return Changed([]string{"iss", `"` + Issuer + `"`, "sub", `"alice"`, "aud", `"` + API + `"`,
		"exp", Unix(30 * time.Minute), "iat", Unix(0)}, changes...)
}

// Unix returns Noon plus ahead as a NumericDate.
func Unix(ahead time.Duration) string { return fmt.Sprint(Noon.Add(ahead).Unix()) }

// Changed returns a JSON object: the members of base, with changes as pairs of a name
// and a raw value. An empty value removes a member; a name that base lacks is added.
func Changed(base []string, changes ...string) string {
	members := slices.Clone(base)
	for change := range slices.Chunk(changes, 2) {
		i := 0
		for i < len(members) && members[i] != change[0] {
			i += 2
		}
		members = slices.Replace(members, i, min(i+2, len(members)), change...)
	}
	var out []string
	for member := range slices.Chunk(members, 2) {
		if member[1] != "" {
			out = append(out, `"`+member[0]+`":`+member[1])
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

// SignWith is Forge with a given method and key.
func SignWith(method jwt.SigningMethod, key any, header, payload string) string {
	return SignSegments(method, key, B64(header)+"."+B64(payload))
}

// SignSegments adds a signature to the first two segments of a token.
func SignSegments(method jwt.SigningMethod, key any, signed string) string {
	signature, err := method.Sign(signed, key)
	if err != nil {
		panic(err)
	}
	return signed + "." + B64(string(signature))
}

// B64 encodes a segment of a token.
func B64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// Strict returns a golang-jwt parser with its strictest options.
func Strict(alg string, now time.Time) *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithIssuer(Issuer), jwt.WithAudience(API, OtherAPI),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithLeeway(2*time.Minute),
		jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithJSONNumber()) // numbers may be out of range for float64
}
