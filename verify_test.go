package fleetkey_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// This file makes signers and tokens by hand, and tests what Verify accepts.
// What it refuses is in verify_hostile_test.go.

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
		Issuer: issuer, Audience: []string{api, otherAPI}, Algorithm: "ES256",
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
	s, err := fleetkey.NewSigner(by(now), store, cfg)
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
	return changed([]string{"iss", `"` + issuer + `"`, "sub", `"alice"`, "aud", `"` + api + `"`,
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

func TestVerifyAccepts(t *testing.T) {
	p := newParty(t, "ES256")
	twin := func(token string) string { // RFC 7515 does not forbid it, and no verifier refuses it
		signature := signatureOf(token)
		n := p.private.(*ecdsa.PrivateKey).Params().N
		s := new(big.Int).Sub(n, new(big.Int).SetBytes(signature[32:]))
		s.FillBytes(signature[32:])
		return withSignature(token, signature)
	}
	filled := func(size int) string { // a token of exactly so many bytes
		for n := size * 3 / 4; ; n-- {
			token := p.sign(p.header(), payload("x", `"`+strings.Repeat("x", n)+`"`))
			if len(token) <= size {
				return token
			}
		}
	}
	require.Len(t, filled(fleetkey.MaxTokenSize), fleetkey.MaxTokenSize)
	for name, token := range map[string]string{
		"plain":                      p.good(),
		"typ with its prefix":        p.sign(p.header("typ", `"application/at+jwt"`), payload()),
		"typ in capitals":            p.sign(p.header("typ", `"AT+JWT"`), payload()),
		"typ, both":                  p.sign(p.header("typ", `"Application/At+Jwt"`), payload()),
		"header in another order":    p.sign(changed(nil, "typ", `"at+jwt"`, "kid", `"`+p.kid+`"`, "alg", `"ES256"`), payload()),
		"header with escapes":        p.sign(p.header("typ", `"\u0061t+jwt"`), payload()),
		"header with spaces":         p.sign(" {\n"+strings.Trim(p.header(), "{}")+" }\t", payload()),
		"payload with spaces":        p.sign(p.header(), "\r\n"+payload()+"\n"),
		"twin signature":             twin(p.good()),
		"one of the audience":        p.sign(p.header(), payload("aud", `["urn:x","`+otherAPI+`"]`)),
		"the same audience twice":    p.sign(p.header(), payload("aud", `["`+api+`","`+api+`"]`)),
		"exactly 16 KiB":             filled(fleetkey.MaxTokenSize),
		"expired within the skew":    p.sign(p.header(), payload("iat", unix(-longest), "exp", unix(-skew+time.Second))),
		"expired by a fraction less": p.sign(p.header(), payload("iat", unix(-longest+skew), "exp", unix(-skew)+".001")),
		"issued ahead by two skews":  p.sign(p.header(), payload("iat", unix(2*skew))),
		"nbf ahead by two skews":     p.sign(p.header(), payload("nbf", unix(2*skew))),
		"nbf of 1970":                p.sign(p.header(), payload("nbf", "0")),
		"times with a fraction":      p.sign(p.header(), payload("exp", unix(time.Minute)+".25", "iat", unix(0)+".75")),
		"times with an exponent":     p.sign(p.header(), payload("exp", "17776386E2")),
		"longest lifetime":           p.sign(p.header(), payload("exp", unix(longest))),
		"unknown claims":             p.sign(p.header(), payload("x", `{"y":[null,1e999]}`, "", `""`)),
		"scopes in an array":         p.sign(p.header(), payload("scope", `["read","write"]`)),
		"5000 brackets":              p.sign(p.header(), payload("x", strings.Repeat("[", 5000)+strings.Repeat("]", 5000))),
		"claims of other names":      p.sign(p.header(), payload("Issuer", "1", "expiry", "2", "iss ", "3")),
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time from memory
				got, err := p.Verify(t.Context(), token)
				require.NoError(t, err)
				assert.Equal(t, "alice", got.Subject())
				assert.Equal(t, p.kid, got.KeyID())
			}
		})
	}
}

// TestRememberedTokens: a token that was accepted is refused once its time has
// come, or while the clock has not come to it.
func TestRememberedTokens(t *testing.T) {
	now := noon
	p := openPartyBy(t, func() time.Time { return now }, fleetkeytest.NewStore(), testConfig())
	token := p.sign(p.header(), payload("nbf", unix(0), "exp", unix(time.Minute)))
	for _, tc := range []struct {
		after time.Duration
		want  error
	}{
		{0, nil}, {0, nil}, {time.Minute + skew - 1, nil}, {time.Minute + skew, fleetkey.ErrExpired}, {0, nil}, {-2 * skew, nil}, {-2*skew - 1, fleetkey.ErrNotYetValid}, {0, nil},
	} {
		now = noon.Add(tc.after)
		got, err := p.Verify(t.Context(), token)
		require.ErrorIs(t, err, tc.want, "%v", tc.after)
		require.Equal(t, tc.want == nil, got != nil)
	}
}

func TestVerifyEveryAlgorithm(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			p := newParty(t, alg)
			issued, err := p.Issue(t.Context(), fleetkey.Claims{Subject: "bob"})
			require.NoError(t, err)
			for _, token := range []string{issued, p.good()} {
				_, err := p.Verify(t.Context(), token)
				require.NoError(t, err)
			}
			k := p.SigningKey()
			assert.Equal(t, alg, k.Algorithm)
			assert.Equal(t, p.private.Public(), k.Signer.Public())
			require.Len(t, p.PublicKeys(), 1)
			assert.Equal(t, p.private.Public(), p.PublicKeys()[0].Key)
			assert.Equal(t, k.Certificate, p.PublicKeys()[0].Certificate)
		})
	}
}

// TestForeignKeys: the certificate of another system, whose tokens are to stay
// valid, verifies tokens of before RFC 9068; its tokens are no less strictly
// checked otherwise.
func TestForeignKeys(t *testing.T) {
	own, old := newParty(t, "ES256"), newParty(t, "EdDSA")
	bundle, _ := own.store.Content()
	store := fleetkeytest.NewStore()
	store.Set([]byte(string(bundle) + bundleOf(t, old.private.Public(), nil, noon.AddDate(-6, 0, 0), noon.Add(time.Hour))))
	p := openParty(t, store, testConfig(func(c *fleetkey.Config) { c.FormerIssuers = []string{"https://old.example"} }))
	assert.Equal(t, own.kid, p.SigningKey().KeyID)

	for name, token := range map[string]string{
		"plain":             old.good(),
		"x5t":               old.sign(old.header("x5t", `"AAAA"`), payload()),
		"x5t#S256":          old.sign(old.header("x5t#S256", `"AAAA"`), payload()),
		"typ JWT":           old.sign(old.header("typ", `"JWT"`), payload()),
		"no typ":            old.sign(old.header("typ", ""), payload()),
		"no iat, no sub":    old.sign(old.header(), payload("iat", "", "sub", "")),
		"a long life":       old.sign(old.header(), payload("exp", unix(10*longest))),
		"the former issuer": old.sign(old.header(), payload("iss", `"https://old.example"`)),
	} {
		_, err := p.Verify(t.Context(), token)
		assert.NoError(t, err, name)
	}
	for _, row := range []hostile{
		{"x5t no text", old.sign(old.header("x5t", "1"), payload()), fleetkey.ErrMalformed},
		{"x5c", old.sign(old.header("x5c", `["AAAA"]`), payload()), fleetkey.ErrMalformed},
		{"typ twice", old.sign(`{"typ":"JWT",`+old.header()[1:], payload()), fleetkey.ErrMalformed},
		{"typ of a logout token", old.sign(old.header("typ", `"logout+jwt"`), payload()), fleetkey.ErrWrongType},
		{"typ application/jwt", old.sign(old.header("typ", `"application/jwt"`), payload()), fleetkey.ErrWrongType},
		{"alg of ours", own.sign(old.header("alg", `"ES256"`), payload()), fleetkey.ErrWrongAlgorithm},
		{"signed by us", own.sign(old.header(), payload()), fleetkey.ErrBadSignature},
		{"no exp", old.sign(old.header(), payload("exp", "")), fleetkey.ErrMissingClaim},
		{"no iss", old.sign(old.header(), payload("iss", "")), fleetkey.ErrMissingClaim},
		{"no aud", old.sign(old.header(), payload("aud", "")), fleetkey.ErrMissingClaim},
		{"expired", old.sign(old.header(), payload("exp", unix(-skew))), fleetkey.ErrExpired},
		{"another issuer", old.sign(old.header(), payload("iss", `"https://old.example/"`)), fleetkey.ErrWrongIssuer},
		{"an ID token, for its client", old.sign(old.header("typ", `"JWT"`), payload("aud", `"web-client"`)), fleetkey.ErrWrongAudience},
		// What goes for foreign keys does not go for our own.
		{"ours without typ", own.sign(own.header("typ", ""), payload()), fleetkey.ErrWrongType},
		{"ours with typ JWT", own.sign(own.header("typ", `"JWT"`), payload()), fleetkey.ErrWrongType},
		{"ours with x5t", own.sign(own.header("x5t", `"AAAA"`), payload()), fleetkey.ErrMalformed},
		{"ours of the former issuer", own.sign(own.header(), payload("iss", `"https://old.example"`)), fleetkey.ErrWrongIssuer},
		{"ours without iat", own.sign(own.header(), payload("iat", "")), fleetkey.ErrMissingClaim},
		{"ours with a long life", own.sign(own.header(), payload("exp", unix(10*longest))), fleetkey.ErrInvalidClaims},
	} {
		t.Run(row.name, func(t *testing.T) { checkRefused(t, p, row) })
	}
}

// TestVerifyTrustsByTheSchedule moves the clock over a rotation and asks each
// time which key signs and whose tokens are accepted.
func TestVerifyTrustsByTheSchedule(t *testing.T) {
	a, b := newParty(t, "ES256"), newParty(t, "ES256")
	store := fleetkeytest.NewStore()
	store.Set([]byte(bundleOf(t, a.private.Public(), a.private, noon.AddDate(-1, 0, 0), noon.AddDate(9, 0, 0)) +
		bundleOf(t, b.private.Public(), b.private, noon.Add(time.Hour), noon.AddDate(10, 0, 0))))
	now := noon
	p := openPartyBy(t, func() time.Time { return now }, store, testConfig(func(c *fleetkey.Config) { c.Rotation.Retain = 3 * time.Hour }))
	for _, tc := range []struct {
		after   time.Duration
		signs   *party
		trusted []*party
	}{
		{0, a, []*party{a, b}},
		{time.Hour - time.Second, a, []*party{a, b}},
		{time.Hour, b, []*party{a, b}},
		{4*time.Hour - time.Second, b, []*party{a, b}},
		{4 * time.Hour, b, []*party{b}},
	} {
		now = noon.Add(tc.after)
		assert.Equal(t, tc.signs.kid, p.SigningKey().KeyID, "%v", tc.after)
		assert.Equal(t, tc.signs.kid, p.Status().SigningKeyID, "%v", tc.after)
		assert.Len(t, p.PublicKeys(), len(tc.trusted), "%v", tc.after)
		claims := payload("iat", unix(tc.after), "exp", unix(tc.after+time.Minute))
		for _, k := range []*party{a, b} {
			token, err := p.Verify(t.Context(), k.sign(k.header(), claims))
			parsed, keyfuncErr := parser("ES256", now).Parse(k.sign(k.header(), claims), p.Keyfunc)
			if k == a && len(tc.trusted) == 1 {
				require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
				require.Nil(t, token)
				require.ErrorIs(t, keyfuncErr, fleetkey.ErrUnknownKey)
				continue
			}
			require.NoError(t, err, "%v", tc.after)
			require.NoError(t, keyfuncErr, "%v", tc.after)
			require.True(t, parsed.Valid)
		}
	}
}

// parser is golang-jwt with all its options on.
func parser(alg string, now time.Time) *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithIssuer(issuer), jwt.WithAudience(api, otherAPI),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithLeeway(2*skew),
		jwt.WithTimeFunc(func() time.Time { return now }))
}

func TestKeyfunc(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		p := newParty(t, alg)
		token, err := p.Issue(t.Context(), fleetkey.Claims{Subject: "bob", Audience: []string{"urn:x", api}, Extra: map[string]any{"tenant": "t1"}})
		require.NoError(t, err)
		parsed, err := parser(alg, noon).Parse(token, p.Keyfunc)
		require.NoError(t, err, alg)
		assert.Equal(t, "t1", parsed.Claims.(jwt.MapClaims)["tenant"])
		assert.Equal(t, map[string]any{"alg": alg, "kid": p.kid, "typ": "at+jwt"}, parsed.Header)

		other := newParty(t, "ES256")
		_, err = parser("ES256", noon).Parse(other.good(), p.Keyfunc)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
		require.ErrorIs(t, err, jwt.ErrTokenUnverifiable)
		confused := signWith(jwt.SigningMethodHS256, []byte("x"), p.header("alg", `"HS256"`), payload())
		_, err = jwt.Parse(confused, p.Keyfunc)
		require.ErrorIs(t, err, fleetkey.ErrWrongAlgorithm)
		_, err = jwt.Parse(p.sign(p.header("kid", "1"), payload()), p.Keyfunc)
		require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
	}
}

// signatureOf and withSignature take a token apart and put it together.
func signatureOf(token string) []byte {
	signature, _ := base64.RawURLEncoding.DecodeString(token[strings.LastIndexByte(token, '.')+1:])
	return signature
}

func withSignature(token string, signature []byte) string {
	return token[:strings.LastIndexByte(token, '.')+1] + b64(signature)
}
