package secrets

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/tests/testkit"
)

// algorithms has one for each kind of key.
var algorithms = []string{"RS256", "ES256", "EdDSA"}

// newBundle returns the bundle of a new fleet.
func newBundle(t *testing.T, alg string) []byte {
	cfg := testkit.Config()
	cfg.Algorithm = alg
	return testkit.ForeignBundle(t, cfg)
}

// carelessly returns a key as careless programs print it.
func carelessly(t *testing.T, der []byte) map[string]string {
	key, err := x509.ParsePKCS8PrivateKey(der)
	require.NoError(t, err)
	inPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	lines := strings.Split(inPEM, "\n")
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key})
	require.NoError(t, err)
	encoded, err := json.Marshal(key)
	require.NoError(t, err)
	texts := map[string]string{
		"PEM": inPEM, "PEM in a log": strings.ReplaceAll(inPEM, "\n", "\n    "), "PEM in JSON": strings.ReplaceAll(inPEM, "\n", `\n`),
		"PEM cut off": strings.Join(lines[min(2, len(lines)-4):], "\n"), "PEM as bytes": fmt.Sprint([]byte(inPEM)),
		"PEM as hexadecimal": fmt.Sprintf("%x", inPEM), "base64url": base64.RawURLEncoding.EncodeToString(der),
		"JWK": string(jwk), "JWK, quoted": fmt.Sprintf("%q", jwk), "JSON": string(encoded),
		"DER, colons": strings.ReplaceAll(fmt.Sprintf("% x", der), " ", ":"), "DER as JSON": strings.ReplaceAll(fmt.Sprint(der), " ", ","),
	}
	for shift := range 3 { // among other bytes
		texts[fmt.Sprint("base64 from ", shift)] = base64.StdEncoding.EncodeToString(append(make([]byte, shift), der...))
		texts[fmt.Sprint("PEM in base64 from ", shift)] = base64.StdEncoding.EncodeToString([]byte(inPEM)[shift:])
	}
	for _, verb := range []string{"%s", "%q", "%v", "%+v", "%#v", "%d", "%x", "%X", "% x", "% X"} {
		texts["DER as "+verb] = fmt.Sprintf(verb, der)
		if !strings.ContainsAny(verb, " sq") {
			texts["the key as "+verb] = fmt.Sprintf(verb, key)
		}
	}
	return texts
}

// TestDetectorFindsEveryForm makes sure that the search does not silently find nothing.
func TestDetectorFindsEveryForm(t *testing.T) {
	for _, alg := range algorithms {
		bundle := newBundle(t, alg)
		block, rest := pem.Decode(bundle)
		d, stranger := NewDetector(), NewDetector()
		d.HideBundle(bundle)
		stranger.HideBundle(newBundle(t, alg))
		for form, text := range carelessly(t, block.Bytes) {
			require.NotEmpty(t, d.Find("~"+text+"~"), "%s, %s", alg, form)
			if strings.Contains(form, "DER") || strings.Contains(form, "key") { // otherwise its form alone gives it away
				require.Empty(t, stranger.Find(text), "%s, %s", alg, form)
			}
		}
		require.NotEmpty(t, stranger.Find(string(bundle)), "an unknown key in PEM")
		certificate, _ := pem.Decode(rest)
		parsed, err := x509.ParseCertificate(certificate.Bytes)
		require.NoError(t, err)
		for _, public := range []string{string(rest), fmt.Sprintf("%v %+v %#v %x", parsed, parsed.PublicKey, parsed, parsed.Raw)} {
			require.Empty(t, d.Find(public), "the public half is not a secret")
		}
	}
}
