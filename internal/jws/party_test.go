package jws_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/trust"
)

const (
	issuer   = "https://id.example"
	api      = "https://api.example"
	otherAPI = "urn:other-api"
	skew     = time.Minute
	longest  = time.Hour
)

// noon is when all tokens of these tests are verified.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

var rules = jws.Rules{Issuer: issuer, Audience: []string{api, otherAPI}, MaxTokenTTL: longest, ClockSkew: skew}

var allAlgorithms = []string{"ES256", "RS256", "PS256", "ES384", "EdDSA"}

// A party has a private key, and trusts the public half of it.
type party struct {
	private  crypto.Signer
	alg, kid string
	view     *trust.View
}

// newParty makes a party with the same key in every process, except for RSA, so that
// a token that one fuzz worker finds is well signed for all.
func newParty(t testing.TB, alg string) *party {
	t.Helper()
	private, err := privateKey(alg)
	require.NoError(t, err)
	p := &party{private: private, alg: alg, kid: jws.Thumbprint(private.Public())}
	p.trusts(t, false)
	return p
}

// trusts makes p trust its key under its kid, as one of the fleet or of a former system.
func (p *party) trusts(t testing.TB, former bool) {
	t.Helper()
	alg, err := jws.AlgorithmNamed(p.alg)
	require.NoError(t, err)
	k := trust.Former(p.private.Public(), alg, nil, p.kid)
	k.Former = former
	p.view, err = trust.FromKeys([]*trust.Key{k}, "", trust.Moment{Wall: noon})
	require.NoError(t, err)
}

func privateKey(alg string) (crypto.Signer, error) {
	switch alg {
	case "ES256":
		return ecdsa.ParseRawPrivateKey(elliptic.P256(), make32(7))
	case "ES384":
		return ecdsa.ParseRawPrivateKey(elliptic.P384(), append(make32(7), make([]byte, 16)...))
	case "EdDSA":
		return ed25519.NewKeyFromSeed(make32(7)), nil
	}
	return rsaKeys[alg]()
}

func make32(first byte) []byte { return append([]byte{first}, make([]byte, 31)...) }

// rsaKeys takes its time, so each is made once.
var rsaKeys = map[string]func() (crypto.Signer, error){"RS256": sync.OnceValues(newRSAKey), "PS256": sync.OnceValues(newRSAKey)}

func newRSAKey() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// verify does what the Verifier of the root package does, without its cache.
func (p *party) verify(token string) (*jws.Claims, error) {
	parts, err := jws.Split(token)
	if err != nil {
		return nil, err
	}
	k, _, err := p.view.KeyFor(parts.Header, noon)
	if err != nil {
		return nil, err
	}
	if err := parts.Verify(k.Alg, k.Public); err != nil {
		return nil, err
	}
	var claims jws.Claims
	if err := parts.Read(&claims); err != nil {
		return nil, err
	}
	if err := rules.Check(&claims, k.Former, k.Issuer, noon); err != nil {
		return nil, err
	}
	return &claims, nil
}

// parser is golang-jwt with all its options on.
func parser(alg string) *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithIssuer(issuer), jwt.WithAudience(api, otherAPI),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithLeeway(2*skew),
		jwt.WithTimeFunc(func() time.Time { return noon }), jwt.WithJSONNumber()) // numbers may be larger than float64 can hold
}

// keyfunc gives golang-jwt the key that a kid names.
func (p *party) keyfunc(t *jwt.Token) (any, error) {
	if t.Header["kid"] != p.kid {
		return nil, jws.ErrUnknownKey
	}
	return p.private.Public(), nil
}

// changed returns a JSON object: the members of base, with changes as pairs of a name
// and a raw value. An empty value removes a member; a name that base lacks is added.
func changed(base []string, changes ...string) string {
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

// payload is that of a good token, changed.
func payload(changes ...string) string {
	return changed([]string{"iss", `"` + issuer + `"`, "sub", `"alice"`, "aud", `"` + api + `"`,
		"exp", unix(30 * time.Minute), "iat", unix(0)}, changes...)
}

// unix is a NumericDate that lies so far ahead of noon.
func unix(ahead time.Duration) string { return fmt.Sprint(noon.Add(ahead).Unix()) }

// header is that of a good token of p, changed.
func (p *party) header(changes ...string) string {
	return changed([]string{"alg", `"` + p.alg + `"`, "kid", `"` + p.kid + `"`, "typ", `"at+jwt"`}, changes...)
}

func b64[T string | []byte](data T) string { return base64.RawURLEncoding.EncodeToString([]byte(data)) }

// sign signs any two texts with p's key.
func (p *party) sign(header, payload string) string {
	return signWith(jwt.GetSigningMethod(p.alg), p.private, header, payload)
}

func signWith(method jwt.SigningMethod, key any, header, payload string) string {
	return resign(method, key, b64(header)+"."+b64(payload))
}

func resign(method jwt.SigningMethod, key any, signed string) string {
	signature, err := method.Sign(signed, key)
	if err != nil {
		panic(err)
	}
	return signed + "." + b64(signature)
}

// good is a token that p accepts.
func (p *party) good() string {
	token := p.sign(p.header(), payload())
	if _, err := p.verify(token); err != nil {
		panic(err)
	}
	return token
}

// signatureOf and withSignature take a token apart and put it together.
func signatureOf(token string) []byte {
	signature, _ := base64.RawURLEncoding.DecodeString(token[strings.LastIndexByte(token, '.')+1:])
	return signature
}

func withSignature(token string, signature []byte) string {
	return token[:strings.LastIndexByte(token, '.')+1] + b64(signature)
}
