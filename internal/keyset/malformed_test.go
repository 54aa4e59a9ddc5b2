package keyset_test

import (
	"crypto/ecdh"
	"crypto/fips140"
	"crypto/rand"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// TestMalformedBundles tests damaged bundles. For data that is not a bundle, see TestForms.
func TestMalformedBundles(t *testing.T) {
	k, other, ca := privateOf("k"), privateOf("o"), privateOf("c")
	key, cert := privateKey(t, k), own(t, k)
	pair := key + cert
	var exchange *ecdh.PrivateKey
	var err error
	fips140.WithoutEnforcement(func() { exchange, err = ecdh.X25519().GenerateKey(rand.Reader) })
	require.NoError(t, err)
	leaf := certificate(t, k.Public(), "leaf", "ca", ca)
	address, err := url.Parse("fleetkey:retired")
	require.NoError(t, err)
	template := &x509.Certificate{NotBefore: day(t, "2026-05-01"), NotAfter: day(t, "2026-06-01"), URIs: []*url.URL{address}}
	marked := block("CERTIFICATE", certify(t, template, template, k.Public(), k).Raw)
	bare := "a certificate not preceded by its private key: this looks like an export, a chain or a truncated bundle"
	flipped := derOf(cert)
	flipped[len(flipped)-1] ^= 1
	with := func(header, block string) string {
		return strings.Replace(block, "-----\n", "-----\n"+header+"\n\n", 1)
	}

	for title, tc := range map[string]struct{ bundle, want string }{
		"empty":                          {"", "no PEM block"},
		"certificate first":              {cert + key, "PEM block 1: " + bare},
		"certificate of the fleet":       {pair + cert, "PEM block 3: " + bare},
		"key alone":                      {key, "PEM block 1: private key not followed by its certificate"},
		"two keys, one certificate":      {privateKey(t, other) + pair, "PEM block 1: private key not followed by its certificate"},
		"another's key":                  {privateKey(t, other) + cert, "PEM block 2: the private key before the certificate does not match"},
		"key that cannot sign":           {privateKey(t, exchange) + cert, "PEM block 1: "},
		"type in lower case":             {strings.ReplaceAll(cert, "CERTIFICATE", "certificate"), `PEM block 1: unknown type "..."`},
		"DER after the private key":      {block("PRIVATE KEY", append(derOf(key), 0)) + cert, "PEM block 1: not a PKCS#8 private key"},
		"DER after the certificate":      {key + block("CERTIFICATE", append(derOf(cert), 0)), "PEM block 2: not a certificate"},
		"flipped bit":                    {key + block("CERTIFICATE", flipped), "PEM block 2: damaged: the certificate's own signature does not verify"},
		"PEM headers":                    {with("Proc-Type: 4,ENCRYPTED", pair), `PEM block 1: PEM header "Proc-Type" is not supported; is the key encrypted?`},
		"PEM header like a key's line":   {with("Sixteen-letters-: x", pair), `PEM header "..." is`},
		"Kid of a private key":           {with("Kid: x", pair), `PEM block 1: PEM header "Kid" is not supported`},
		"old form, a kid":                {pair + with("Kid: x", own(t, other)), "PEM block 3: a bundle of an unreleased version before 0.1: start with a new store"},
		"old form, a mark":               {key + marked, "PEM block 2: a bundle of an unreleased version before 0.1"},
		"same key twice":                 {pair + pair, "PEM block 4: the same key as in block 2"},
		"same key, another certificate":  {pair + key + leaf, "PEM block 4: the same key as in block 2"},
		"chain with its authority":       {key + leaf + certificate(t, ca.Public(), "ca", "ca", ca), "PEM block 3: " + bare},
		"by an authority":                {key + leaf, ""},
		"no end, and another block":      {strings.Split(cert, "-----END")[0] + pair, "PEM block 1: damaged"},
		"begin in the block":             {strings.Replace(cert, "MI", "-----BEGIN X-----\nMI", 1), "PEM block 1: damaged"},
		"no begin":                       {strings.Replace(pair, "-----BEGIN PRIV", "PRIV", 1), "PEM block 1: damaged"},
		"second begin lost a dash":       {strings.Replace(pair, "-----BEGIN CERT", "----BEGIN CERT", 1), "PEM block 2: damaged"},
		"indented, as YAML may leave it": {strings.ReplaceAll(pair, "\n", "\n  "), "PEM block 1: damaged"},
	} {
		t.Run(title, func(t *testing.T) {
			set, err := keyset.Parse([]byte(tc.bundle))
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
			require.Nil(t, set)
			for line := range strings.Lines(key) {
				if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
					require.NotContains(t, err.Error(), line, "the error must not contain key material")
				}
			}
		})
	}
}
