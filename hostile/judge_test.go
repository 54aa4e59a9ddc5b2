package hostile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
)

// This file brings a vector before fleetkey: its JSON Web Key becomes a certificate in
// Config.Former, as an operator would bring another system's key along, and a Signer with
// that configuration verifies its JWS.

// signatureAccepted tells from Verify's error whether the signature passed. The
// payload of a vector is no set of claims, so Verify refuses every one of them;
// but it reads the payload only once the signature is good (RFC 8725 section
// 3.10 has the reason), so an error about the payload means that it was.
//
// The sentinels tell all but one case apart: ErrMalformed stands for a malformed
// header and for a malformed payload. There the text decides, which
// TestSignatureAccepted pins.
func signatureAccepted(err error) bool {
	switch {
	case err == nil, errors.Is(err, fleetkey.ErrInvalidClaims): // and all about single claims, which match it
		return true
	case errors.Is(err, fleetkey.ErrMalformed):
		return strings.Contains(err.Error(), ": the payload is not ")
	}
	return false
}

// TestSignatureAccepted: the judge is right about tokens of which the answer is
// known, for every algorithm and any payload.
func TestSignatureAccepted(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		s := fleetkeytest.NewSigner(t, fleetkey.Config{Algorithm: alg})
		k := s.SigningKey()
		header := fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"at+jwt"}`, k.Algorithm, k.KeyID)
		for _, payload := range []string{"foo", "\x00", "{}", `{"iss":"joe","exp":1300819380}`, `[]`, `{"iss":1}`} {
			signed := b64(header) + "." + b64(payload)
			signature, err := jwt.GetSigningMethod(alg).Sign(signed, k.Signer)
			require.NoError(t, err)
			_, err = s.Verify(t.Context(), signed+"."+b64(string(signature)))
			require.Error(t, err)
			require.True(t, signatureAccepted(err), "%s %q: %v", alg, payload, err)

			signature[len(signature)/2] ^= 1
			_, err = s.Verify(t.Context(), signed+"."+b64(string(signature)))
			require.ErrorIs(t, err, fleetkey.ErrBadSignature)
			require.False(t, signatureAccepted(err), "%s %q: %v", alg, payload, err)
		}
		for _, bad := range []string{"", "..", "foo", b64("{}") + "." + b64("foo") + "." + b64("x"), b64(header) + "." + b64("foo") + ".!"} {
			_, err := s.Verify(t.Context(), bad)
			require.False(t, signatureAccepted(err), "%s %q: %v", alg, bad, err)
		}
	}
}

// All certificates live from begin to end, and it is now.
var (
	begin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	now   = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	end   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// A jwk is a JSON Web Key (RFC 7517 section 4) as a vector has it.
type jwk struct {
	Type       string   `json:"kty"`
	Algorithm  string   `json:"alg"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	KeyID      string   `json:"kid"`

	raw     json.RawMessage
	private json.RawMessage // the same with the private half; nil: not known
}

func (k *jwk) UnmarshalJSON(data []byte) error {
	type plain jwk
	k.raw = slices.Clone(data)
	return json.Unmarshal(data, (*plain)(k))
}

func parseJWK(t *testing.T, text string) jwk {
	t.Helper()
	var k jwk
	require.NoError(t, json.Unmarshal([]byte(text), &k))
	return k
}

// errNoCertificate says that what a JSON Web Key says of itself cannot be said by
// a certificate, so that nobody can bring it to fleetkey. That goes for an alg
// that fleetkey lacks: an RSA key signs RS256 or PS256, and a vector
// in which a PS512 key has signed so is only wrong because of that key's alg.
var errNoCertificate = errors.New("no certificate says so")

// former makes a key of another system of it, under its kid.
func (k *jwk) former(t *testing.T) (f fleetkey.Former, err error) {
	t.Helper()
	if k.Type == "oct" {
		return f, fmt.Errorf("%w: a shared secret", errNoCertificate)
	}
	var key jose.JSONWebKey
	if err := json.Unmarshal(k.raw, &key); err != nil {
		return f, fmt.Errorf("%w: no such key: %w", errNoCertificate, err)
	}
	switch k.Algorithm {
	case "", "RS256", "PS256", "ES256", "ES384", "EdDSA":
	default:
		return f, fmt.Errorf("%w: alg %s", errNoCertificate, k.Algorithm)
	}
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "vector"}, KeyUsage: k.keyUsage(),
		NotBefore: begin, NotAfter: end}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "throw-away authority"}}
	var signer crypto.Signer = ca
	if k.Algorithm == "PS256" { // a certificate says so by its own signature
		var private jose.JSONWebKey
		require.NoError(t, json.Unmarshal(k.private, &private))
		issuer, signer = template, private.Key.(crypto.Signer)
		template.SignatureAlgorithm = x509.SHA256WithRSAPSS
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public().Key, signer)
	if err != nil {
		return f, fmt.Errorf("%w: %w", errNoCertificate, err)
	}
	f.KeyID = k.KeyID
	f.Certificate, err = x509.ParseCertificate(der)
	if err != nil {
		return f, fmt.Errorf("%w: %w", errNoCertificate, err)
	}
	return f, nil
}

// keyUsage says what use and key_ops say (RFC 7517 sections 4.2 and 4.3, RFC
// 5280 section 4.2.1.3). None: nothing is said.
func (k *jwk) keyUsage() x509.KeyUsage {
	forSignatures := k.Use == "sig" || slices.Contains(k.Operations, "verify") || slices.Contains(k.Operations, "sign")
	switch {
	case k.Use == "" && k.Operations == nil:
		return 0
	case forSignatures:
		return x509.KeyUsageDigitalSignature
	case k.Type == "EC":
		return x509.KeyUsageKeyAgreement
	}
	return x509.KeyUsageKeyEncipherment
}

// standIn is a fresh key under a kid. It takes the place of a
// key that has no certificate, so that a token does not fail for its kid alone.
func standIn(t *testing.T, kid string) fleetkey.Former {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	point, err := private.PublicKey.Bytes()
	require.NoError(t, err)
	text := fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q,"kid":%q}`, b64(string(point[1:33])), b64(string(point[33:])), kid)
	k := parseJWK(t, text)
	f, err := k.former(t)
	require.NoError(t, err)
	return f
}

// signerWith starts a Signer that knows the keys as another system's. A key that has no
// certificate is replaced by a stand-in. The error is NewSigner's, which may refuse a key.
func signerWith(t *testing.T, keys ...jwk) (*fleetkey.Signer, error) {
	t.Helper()
	var former []fleetkey.Former
	for _, k := range keys {
		f, err := k.former(t)
		if errors.Is(err, errNoCertificate) {
			f, err = standIn(t, k.KeyID), nil
		}
		require.NoError(t, err)
		former = append(former, f)
	}
	return newSigner(t, "", former...)
}

// signerOf starts a Signer whose key is a private one.
func signerOf(t *testing.T, private crypto.Signer) *fleetkey.Signer {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "vector"}, NotBefore: begin, NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	s, err := newSigner(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))+
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	require.NoError(t, err)
	return s
}

func newSigner(t *testing.T, bundle string, former ...fleetkey.Former) (*fleetkey.Signer, error) {
	t.Helper()
	store := fleetkeytest.NewStore()
	if bundle != "" {
		store.Set([]byte(bundle))
	}
	ctx := clock.With(t.Context(), clock.Wall(func() time.Time { return now }))
	s, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer: "https://issuer.example", Algorithm: "ES256", Former: former,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		t.Cleanup(func() { require.NoError(t, s.Close()) })
	}
	return s, err
}
