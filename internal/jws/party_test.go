package jws_test

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/trust"
)

const (
	issuer, api, otherAPI = jwstest.Issuer, jwstest.API, jwstest.OtherAPI
	skew                  = time.Minute
	longest               = time.Hour
)

// noon is the time at which these tests verify tokens.
var noon = jwstest.Noon

var payload, unix, changed, signWith, b64 = jwstest.Payload, jwstest.Unix, jwstest.Changed, jwstest.SignWith, jwstest.B64

var rules = jws.Rules{Issuer: issuer, Audience: []string{api, otherAPI}, MaxTokenTTL: longest, ClockSkew: skew}

var allAlgorithms = []string{"ES256", "RS256", "PS256", "ES384", "EdDSA"}

// A party has a private key, and trusts its public half.
type party struct {
	jwstest.Forger
	view *trust.View
}

// newParty returns a party with the same key in every process, so that a token found by one
// fuzz worker has a valid signature for all.
func newParty(t testing.TB, alg string) *party {
	t.Helper()
	bundle, err := os.ReadFile("../../fleetkeytest/testdata/" + alg + ".pem")
	require.NoError(t, err)
	set, err := keyset.Parse(bundle)
	require.NoError(t, err)
	p := &party{Forger: jwstest.Forger{Private: set.Keys[0].Private, Alg: alg, KID: set.Keys[0].ID}}
	p.trusts(t, false)
	return p
}

// trusts makes p trust its key under its kid, as a key of the fleet or of a former system.
func (p *party) trusts(t testing.TB, former bool) {
	t.Helper()
	alg, err := jws.AlgorithmNamed(p.Alg)
	require.NoError(t, err)
	k := trust.Former(p.Private.Public(), alg, nil, p.KID)
	k.Former = former
	p.view, err = trust.FromKeys([]*trust.Key{k}, "", false, trust.Moment{Wall: noon})
	require.NoError(t, err)
}

// verify does the same as the root package's Verifier, but without a cache.
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

// keyfunc gives golang-jwt the key that a kid names.
func (p *party) keyfunc(t *jwt.Token) (any, error) {
	if t.Header["kid"] != p.KID {
		return nil, jws.ErrUnknownKey
	}
	return p.Private.Public(), nil
}

// good returns a token that p accepts.
func (p *party) good() string {
	token := p.Forge(p.Header(), payload())
	if _, err := p.verify(token); err != nil {
		panic(err)
	}
	return token
}

// signatureOf returns the signature of a token, and withSignature replaces it.
func signatureOf(token string) []byte {
	signature, _ := base64.RawURLEncoding.DecodeString(token[strings.LastIndexByte(token, '.')+1:])
	return signature
}

func withSignature(token string, signature []byte) string {
	return token[:strings.LastIndexByte(token, '.')+1] + b64(string(signature))
}
