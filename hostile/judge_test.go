package hostile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file brings a vector before fleetkey: its JSON Web Key becomes a
// verify-only certificate in a bundle, as an operator would bring another
// system's key along, and a Signer on that bundle verifies its JWS.

// signatureAccepted tells from Verify's error whether the signature passed. The
// payload of a vector is no set of claims, so Verify refuses every one of them;
// but it reads the payload only once the signature is good (RFC 8725 section
// 3.10 has the reason), so an error about the payload means that it was.
//
// The sentinels tell all but one case apart: ErrMalformed stands for a malformed
// header and for a malformed payload. There the text decides. The vectors pin it: one of
// them would be judged wrong otherwise.
func signatureAccepted(err error) bool {
	switch {
	case err == nil, errors.Is(err, fleetkey.ErrInvalidClaims): // and all about single claims, which match it
		return true
	case errors.Is(err, fleetkey.ErrMalformed):
		return strings.Contains(err.Error(), ": the payload is not ")
	}
	return false
}

// All certificates live from begin to end.
var (
	begin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	end   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

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
// that fleetkey lacks: an RSA key in a bundle signs RS256 or PS256, and a vector
// in which a PS512 key has signed so is only wrong because of that key's alg.
var errNoCertificate = errors.New("no certificate says so")

// certificate makes a verify-only certificate of a key, in PEM and under its kid.
func (k *jwk) certificate(t *testing.T) (string, error) {
	t.Helper()
	if k.Type == "oct" {
		return "", fmt.Errorf("%w: a shared secret", errNoCertificate)
	}
	var key jose.JSONWebKey
	if err := json.Unmarshal(k.raw, &key); err != nil {
		return "", fmt.Errorf("%w: no such key: %w", errNoCertificate, err)
	}
	switch k.Algorithm {
	case "", "RS256", "PS256", "ES256", "ES384", "EdDSA":
	default:
		return "", fmt.Errorf("%w: alg %s", errNoCertificate, k.Algorithm)
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
		return "", fmt.Errorf("%w: %w", errNoCertificate, err)
	}
	block := &pem.Block{Type: "CERTIFICATE", Bytes: der}
	if k.KeyID != "" {
		block.Headers = map[string]string{"Kid": k.KeyID}
	}
	return string(pem.EncodeToMemory(block)), nil
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

// standIn is the certificate of a fresh key under a kid. It takes the place of a
// key that has no certificate, so that a token does not fail for its kid alone.
func standIn(t *testing.T, kid string) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	text, err := json.Marshal(jose.JSONWebKey{Key: private.Public(), KeyID: kid})
	require.NoError(t, err)
	k := parseJWK(t, string(text))
	certificate, err := k.certificate(t)
	require.NoError(t, err)
	return certificate
}

// signerWith starts a Signer on a bundle of the keys' certificates. A key that
// has none is replaced by a stand-in. The error is NewSigner's, which may refuse
// a key.
func signerWith(t *testing.T, keys ...jwk) (*fleetkey.Signer, error) {
	t.Helper()
	var bundle strings.Builder
	for _, k := range keys {
		certificate, err := k.certificate(t)
		if errors.Is(err, errNoCertificate) {
			certificate, err = standIn(t, k.KeyID), nil
		}
		require.NoError(t, err)
		bundle.WriteString(certificate)
	}
	return newSigner(t, []byte(bundle.String()))
}

func newSigner(t *testing.T, bundle []byte) (*fleetkey.Signer, error) {
	t.Helper()
	store := fleetkeytest.NewStore()
	store.Set(bundle)
	s, err := fleetkey.NewSigner(testkit.At(testkit.Noon), store, testkit.Config())
	if err == nil {
		t.Cleanup(func() { require.NoError(t, s.Close()) })
	}
	return s, err
}
