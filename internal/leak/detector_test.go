package leak

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func keysOfEveryKind(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return map[string]crypto.Signer{"RSA": rsaKey, "P-256": p256, "P-384": p384, "Ed25519": ed}
}

// printed is a key as careless programs show it. A shape is one that tells by
// itself that a private key is there.
type printed struct {
	shape bool
	text  string
}

func carelessly(t *testing.T, key crypto.Signer) map[string]printed {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	inPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key})
	require.NoError(t, err)
	encoded, err := json.Marshal(key)
	require.NoError(t, err)
	var log bytes.Buffer
	record := slog.NewRecord(time.Time{}, slog.LevelInfo, "x", 0) // no Logger: leaktest looks at what those log
	record.AddAttrs(slog.Any("key", key))
	require.NoError(t, slog.NewTextHandler(&log, nil).Handle(t.Context(), record))
	require.NoError(t, slog.NewJSONHandler(&log, nil).Handle(t.Context(), record))
	base64d := base64.StdEncoding.EncodeToString(der)
	return map[string]printed{
		"PEM":                 {true, inPEM},
		"PEM, in a log":       {true, strings.ReplaceAll(inPEM, "\n", "\n        ")},
		"PEM, in JSON":        {true, strings.ReplaceAll(inPEM, "\n", `\n`)},
		"PEM, quoted twice":   {true, fmt.Sprintf("%q", fmt.Sprintf("%q", inPEM))},
		"base64":              {true, base64d},
		"base64url":           {true, base64.RawURLEncoding.EncodeToString(der)},
		"JWK":                 {true, string(jwk)},
		"JWK, quoted":         {true, fmt.Sprintf("%q", jwk)},
		"%+v":                 {false, fmt.Sprintf("%+v", key)},
		"%v":                  {false, fmt.Sprintf("%v", key)},
		"%#v":                 {false, fmt.Sprintf("%#v", key)},
		"%x of it":            {false, fmt.Sprintf("%x", key)},
		"DER":                 {false, string(der)},
		"DER, quoted":         {false, fmt.Sprintf("%q", der)},
		"hexadecimal":         {false, fmt.Sprintf("%x", der)},
		"HEXADECIMAL":         {false, fmt.Sprintf("%X", der)},
		"hexadecimal, spaced": {false, fmt.Sprintf("% x", der)},
		"bytes":               {false, fmt.Sprint(der)},
		"bytes, as Go":        {false, fmt.Sprintf("%#v", der)},
		"json.Marshal":        {false, string(encoded)},
		"slog":                {false, log.String()},
		"an error":            {false, fmt.Errorf("bad key %v: %w", key, asn1.SyntaxError{Msg: "x"}).Error()},
	}
}

// TestDetectorFindsEverySpelling: printed carelessly, every kind of key is found.
func TestDetectorFindsEverySpelling(t *testing.T) {
	for kind, key := range keysOfEveryKind(t) {
		d := NewDetector()
		d.HideKey(key)
		for name, p := range carelessly(t, key) {
			require.NotEmpty(t, d.Find(p.text), "%s of a key of kind %s", name, kind)
			require.NotEmpty(t, d.Find("x"+p.text), "%s of a key of kind %s, shifted", name, kind)
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		require.NoError(t, err)
		require.Empty(t, d.Find(fmt.Sprintf("%v %x %q", key.Public(), public, base64.StdEncoding.EncodeToString(public))), "the public half is no secret")
	}
}

// TestDetectorFindsParts: half of a line of base64 is enough, and so are 27
// digits of a number, wherever they begin.
func TestDetectorFindsParts(t *testing.T) {
	key := keysOfEveryKind(t)["RSA"].(*rsa.PrivateKey)
	d := NewDetector()
	d.HideKey(key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	lines := strings.Split(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "\n")
	for _, line := range lines[8 : len(lines)-3] { // all before it is public
		require.NotEmpty(t, d.Find(line[:32])+d.Find(line[32:]))
	}
	digits := key.D.String()
	dump := fmt.Sprintf("%x", key.Primes[1].Bytes())
	for i := range 100 {
		require.NotEmpty(t, d.Find("~"+digits[i:i+27]+"~"), "27 digits from %d", i)
		require.NotEmpty(t, d.Find("~"+dump[i:i+27]+"~"), "27 hexadecimal digits from %d", i)
	}
	words := fmt.Sprint(*key.D)
	require.Contains(t, words, "{false [", "what fmt makes of a big.Int by value")
	require.NotEmpty(t, d.Find(words))
}

// TestDetectorIgnoresWhatIsNoSecret: a key of nearly nothing but zeros, as tests
// make them, must not turn every zero into a finding.
func TestDetectorIgnoresWhatIsNoSecret(t *testing.T) {
	d := NewDetector()
	d.HideBytes("a small key", append(make([]byte, 40), 7))
	d.HideBytes("a shorter one", []byte{1})
	require.Empty(t, d.Find(strings.Repeat("0", 100)+strings.Repeat("\x00", 100)+strings.Repeat("0 ", 100)+strings.Repeat("A", 100)))
	d.HideText("a token", "a3f0.9ab42.17c6d.e5c")
	require.Equal(t, "a token", d.Find("see a3f0.9ab42.17c6d.e5c"))
	require.Empty(t, d.Find("see a3f0.9ab42.17c"))
}

// TestShape: a key that nobody has recorded is seen by its look.
func TestShape(t *testing.T) {
	for kind, key := range keysOfEveryKind(t) {
		for name, p := range carelessly(t, key) {
			if p.shape {
				require.NotEmpty(t, Shape(p.text), "%s of a key of kind %s", name, kind)
			}
		}
		for _, format := range []string{"%v", "%+v", "%#v"} {
			if kind == "Ed25519" && format != "%#v" { // any list of bytes looks so
				continue
			}
			require.NotEmpty(t, Shape(fmt.Sprintf(format, key)), "%s of a key of kind %s", format, kind)
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		require.NoError(t, err)
		jwk, err := json.Marshal(jose.JSONWebKey{Key: key.Public()})
		require.NoError(t, err)
		for _, text := range []string{
			string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})), string(jwk), fmt.Sprintf("%v", key.Public()), fmt.Sprintf("%+v %#v", key.Public(), key.Public()),
			"-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----", "no PRIVATE KEY----- here", `{"d":"the date","p":1}`, fmt.Sprint(big.NewInt(65537)),
		} {
			require.Empty(t, Shape(text))
		}
	}
}

// TestShapeOfOpenSSL: keys that other programs write.
func TestShapeOfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("FLEETKEY_REQUIRE") == "1" {
			t.Fatal("openssl is not here")
		}
		t.Skip("openssl is not here, so that the keys it writes are NOT TESTED")
	}
	for _, args := range []string{"genpkey -algorithm RSA", "genpkey -algorithm ED25519", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384", "ecparam -genkey -noout -name prime256v1", "genrsa -traditional"} {
		out, err := exec.CommandContext(t.Context(), "openssl", strings.Fields(args)...).Output()
		require.NoError(t, err, args)
		require.NotEmpty(t, Shape(string(out)), args)
	}
}

// TestHideRecord: what the hooks write is read, and what they do not write is an
// error.
func TestHideRecord(t *testing.T) {
	d := NewDetector()
	n, err := d.HideRecord(strings.NewReader("EC 0123456789abcdeffedcba9876543210\nEd25519 00112233445566778899aabbccddeeff\nEC 0123456789abcdeffedcba9876543210\nRSA  17 11\n"))
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.Equal(t, "d of an EC key, in hexadecimal", d.Find("0123456789abcdeffedcba9876543210"))
	require.Equal(t, "the seed of an Ed25519 key, as a list of bytes", d.Find("[0 17 34 51 68 85 102 119 136 153 170 187 204 221 238 255]"))
	for _, bad := range []string{"EC 00 01", "EC 0g", "RSA 00 01", "DSA 0011", "x"} {
		_, err := d.HideRecord(strings.NewReader(bad + "\n"))
		require.ErrorContains(t, err, "the record of keys is damaged", bad)
	}
}
