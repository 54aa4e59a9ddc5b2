package fleetkey_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	api      = "https://api.example"
	otherAPI = "urn:other-api"
	skew     = time.Minute
	longest  = time.Hour
)

// noon is the time on every clock of these tests.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// A party is a signer together with its private key, so that a test can sign
// what the signer never would.
type party struct {
	*fleetkey.Signer
	store   *fleetkeytest.Store
	private crypto.Signer
	alg     string
	kid     string
}

func testConfig(change ...func(*fleetkey.Config)) fleetkey.Config {
	cfg := fleetkey.Config{
		Issuer: testkit.Issuer, Audience: []string{api, otherAPI}, Algorithm: "ES256",
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func newParty(t testing.TB, alg string, change ...func(*fleetkey.Config)) *party {
	t.Helper()
	cfg := testConfig(append(change, func(c *fleetkey.Config) { c.Algorithm = alg })...)
	store := fleetkeytest.NewStore()
	return openParty(t, store, cfg)
}

// openParty starts a signer on a store that is empty, or whose first block is a
// private key.
func openParty(t testing.TB, store *fleetkeytest.Store, cfg fleetkey.Config) *party {
	t.Helper()
	return openPartyBy(t, func() time.Time { return noon }, store, cfg)
}

func openPartyBy(t testing.TB, now func() time.Time, store *fleetkeytest.Store, cfg fleetkey.Config) *party {
	t.Helper()
	s, err := fleetkey.NewSigner(testkit.By(now), store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	bundle, _ := store.Content()
	block, _ := pem.Decode(bundle)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	k := s.SigningKey()
	return &party{Signer: s, store: store, private: private.(crypto.Signer), alg: k.Algorithm, kid: k.KeyID}
}

// bundleOf makes a key pair in PEM, or the certificate alone if private is nil.
func bundleOf(t testing.TB, public crypto.PublicKey, private crypto.Signer, begin, end time.Time) string {
	t.Helper()
	signer, issuerName := private, "test"
	if private == nil {
		signer, issuerName = newParty(t, "ES256").private, "some authority"
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, NotBefore: begin, NotAfter: end}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: issuerName}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	require.NoError(t, err)
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if private == nil {
		return certificate
	}
	der, err = x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})) + certificate
}

// changed returns a JSON object: the members of base, with changes as pairs of
// a name and a raw value. An empty value takes a member away; a name that base
// lacks is added.
func changed(base []string, changes ...string) string {
	members := append([]string(nil), base...)
	for i := 0; i < len(changes); i += 2 {
		at := len(members)
		for j := 0; j < len(members); j += 2 {
			if members[j] == changes[i] {
				at = j
			}
		}
		members = append(members[:at:at], append([]string{changes[i], changes[i+1]}, members[min(at+2, len(members)):]...)...)
	}
	var out []string
	for i := 0; i < len(members); i += 2 {
		if members[i+1] != "" {
			out = append(out, fmt.Sprintf(`"%s":%s`, members[i], members[i+1]))
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

// payload is that of a good token, changed.
func payload(changes ...string) string {
	return changed([]string{"iss", `"` + testkit.Issuer + `"`, "sub", `"alice"`, "aud", `"` + api + `"`,
		"exp", unix(30 * time.Minute), "iat", unix(0)}, changes...)
}

// unix is a NumericDate that lies so far ahead of noon.
func unix(ahead time.Duration) string { return fmt.Sprint(noon.Add(ahead).Unix()) }

// header is that of a good token of p, changed.
func (p *party) header(changes ...string) string {
	return changed([]string{"alg", `"` + p.alg + `"`, "kid", `"` + p.kid + `"`, "typ", `"at+jwt"`}, changes...)
}

func b64[T string | []byte](data T) string {
	return base64.RawURLEncoding.EncodeToString([]byte(data))
}

// sign signs any two texts with p's key.
func (p *party) sign(header, payload string) string {
	return signWith(jwt.GetSigningMethod(p.alg), p.private, header, payload)
}

func signWith(method jwt.SigningMethod, key any, header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	signature, err := method.Sign(signed, key)
	if err != nil {
		panic(err)
	}
	return signed + "." + b64(signature)
}

// good is a token that p.Verify has accepted once, and so remembers.
func (p *party) good() string {
	token := p.sign(p.header(), payload())
	if _, err := p.Verify(context.Background(), token); err != nil {
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

// parser is golang-jwt with all its options on.
func parser(alg string, now time.Time) *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithIssuer(testkit.Issuer), jwt.WithAudience(api, otherAPI),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithLeeway(2*skew),
		jwt.WithTimeFunc(func() time.Time { return now }))
}

// fixedParty has the same key in every process, so that a token that one has
// found is signed for all.
func fixedParty(t testing.TB) *party {
	t.Helper()
	bundle, err := os.ReadFile("fleetkeytest/testdata/ES256.pem")
	require.NoError(t, err)
	store := fleetkeytest.NewStore()
	store.Set(bundle)
	return openParty(t, store, testConfig())
}

// requireSameClaims: each claim that a Token gives is what golang-jwt has read.
func requireSameClaims(t *testing.T, claims jwt.MapClaims, token *fleetkey.Token) {
	t.Helper()
	sub, _ := claims.GetSubject()
	require.Equal(t, sub, token.Subject())
	iss, _ := claims.GetIssuer()
	require.Equal(t, iss, token.Issuer())
	aud, _ := claims.GetAudience()
	require.Equal(t, []string(aud), token.Audience())
	exp, _ := claims.GetExpirationTime()
	require.Equal(t, exp.Unix(), token.ExpiresAt().Unix())
	iat, _ := claims.GetIssuedAt()
	require.Equal(t, iat.Unix(), token.IssuedAt().Unix())
	text := func(name string) string { s, _ := claims[name].(string); return s }
	require.Equal(t, text("jti"), token.ID())
	require.Equal(t, text("client_id"), token.ClientID())
	scopes := strings.Split(text("scope"), " ")
	if list, ok := claims["scope"].([]any); ok { // as IdentityServer writes it
		scopes = nil
		for _, one := range list {
			scopes = append(scopes, one.(string))
		}
	}
	require.Equal(t, strings.Join(scopes, " "), token.Scope())
	for _, scope := range scopes {
		require.Equal(t, scope != "", token.HasScope(scope))
	}
}

// segment decodes one of the three segments of a token.
func segment(t *testing.T, token string, n int) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[n])
	require.NoError(t, err)
	return data
}
