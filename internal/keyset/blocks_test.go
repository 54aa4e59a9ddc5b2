package keyset_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// TestStateBlocks reads RETIRED KEY and REVOKED KEY blocks written by an operator.
func TestStateBlocks(t *testing.T) {
	const until = "Until: 2026-05-02T00:00:00Z"
	spki := func(public any) []byte {
		der, err := x509.MarshalPKIXPublicKey(public)
		require.NoError(t, err)
		return der
	}
	digest := func(letter string) []byte {
		digest, err := base64.RawURLEncoding.DecodeString(kid(letter))
		require.NoError(t, err)
		return digest
	}
	x, kidX := spki(privateOf("x").Public()), "Kid: "+kid("x")
	rsaKey := keysettest.Key(t, "RS256", day(t, "2026-01-01"))
	ofRSA, kidRSA := spki(rsaKey.Public), "Kid: "+rsaKey.ID
	weak := spki(&rsa.PublicKey{N: rsaKey.Public.(*rsa.PublicKey).N, E: 3})
	// summed adds the Sum given in the error, as an operator would.
	summed := func(der []byte, headers ...string) string {
		_, err := keyset.Parse([]byte(block("RETIRED KEY", der, headers...)))
		require.ErrorContains(t, err, "PEM block 1: PEM header Sum does not match the other headers; if you changed them by hand, write Sum: ")
		return block("RETIRED KEY", der, append(headers, err.Error()[strings.LastIndex(err.Error(), "Sum: "):])...)
	}
	retired, revoked := summed(x, kidX, until), block("REVOKED KEY", digest("x"), kidX)
	own, pair := string(encode(t, schedule(t, "x: 2026-01-01"))), string(encode(t, schedule(t, "a: 2026-01-01")))
	require.Equal(t, retired+revoked, string(encode(t, schedule(t, "x: retired until 2026-05-02")))+string(encode(t, schedule(t, "x: revoked"))))

	for title, tc := range map[string]struct{ bundle, want string }{
		"in any order":             {revoked + pair + summed(spki(privateOf("b").Public()), until, "Kid: "+kid("b")), "a signs, b until 2026-05-02, x revoked"},
		"retired, with its key":    {own + retired, "x until 2026-05-02"},
		"revoked and retired":      {revoked + retired + own, "x revoked"},
		"revoked twice":            {revoked + revoked, "x revoked"},
		"for PS256":                {summed(ofRSA, kidRSA, until, "Alg: PS256"), "new until 2026-05-02"},
		"for RS256":                {summed(ofRSA, kidRSA, until), "new until 2026-05-02"},
		"retired twice":            {pair + retired + retired, "PEM block 4: the same key as in block 3"},
		"between key and its cert": {strings.Replace(pair, "-----BEGIN CERT", retired+"-----BEGIN CERT", 1), "PEM block 1: private key not followed by its certificate"},
		"Alg that the key tells":   {block("RETIRED KEY", x, kidX, until, "Alg: EdDSA"), `PEM block 1: PEM header Alg "EdDSA": only PS256 is allowed`},
		"Alg of another key":       {block("RETIRED KEY", x, kidX, until, "Alg: PS256"), `PEM header Alg "PS256"`},
		"Alg taken away":           {strings.Replace(summed(ofRSA, kidRSA, until, "Alg: PS256"), "Alg: PS256\n", "", 1), "PEM header Sum does not match"},
		"later Until":              {strings.Replace(retired, "2026-05", "2027-05", 1), "PEM header Sum does not match"},
		"no Until":                 {block("RETIRED KEY", x, kidX), "PEM header Until is not a time such as 2026-01-02T15:04:05Z"},
		"Until without a date":     {block("RETIRED KEY", x, kidX, "Until: 0001-01-01T00:00:00Z"), "PEM header Until is not a time such as"},
		"Until with a fraction":    {block("RETIRED KEY", x, kidX, "Until: 2026-05-02T00:00:00.5Z"), "PEM header Until is not a time such as"},
		"Kid of another":           {block("RETIRED KEY", x, "Kid: "+kid("b"), until), "PEM header Kid does not match the key"},
		"no public key":            {block("RETIRED KEY", x[1:], kidX, until), "PEM block 1: not a public key (SubjectPublicKeyInfo)"},
		"weak key":                 {block("RETIRED KEY", weak, kidRSA, until), "PEM block 1: the RSA key has public exponent 3"},
		"unknown header":           {block("RETIRED KEY", x, kidX, until, "For: ever"), `PEM block 1: PEM header "For" is not supported`},
		"Until of a revoked key":   {block("REVOKED KEY", digest("x"), kidX, until), `PEM block 1: PEM header "Until" is not supported`},
		"revoked, of another":      {block("REVOKED KEY", digest("x"), "Kid: "+kid("b")), "PEM header Kid does not match the thumbprint; it should be " + kid("x")},
		"a revoked public key":     {block("REVOKED KEY", x, kidX), "PEM block 1: 44 bytes are not an RFC 7638 SHA-256 thumbprint"},
	} {
		set, err := keyset.Parse([]byte(tc.bundle))
		if err != nil {
			require.ErrorContains(t, err, tc.want, title)
			require.Nil(t, set, title)
			continue
		}
		require.Equal(t, tc.want, show(set, day(t, "2026-04-01"), policy()), title)
		require.Equal(t, title == "for PS256", len(set.Retired) == 1 && set.Retired[0].Alg.Name == "PS256", title)
	}
}

func TestCheckThumbprint(t *testing.T) {
	good := kid("a")
	require.NoError(t, keyset.CheckThumbprint(good))
	for _, id := range []string{"", "a", good[1:], good + "A", good + "=", good[:42] + "B", good[:42] + "+", "x\nlevel=INFO\x1b[2J"} {
		err := keyset.CheckThumbprint(id)
		require.ErrorContains(t, err, " is not an RFC 7638 SHA-256 thumbprint, 43 characters of base64url")
		require.NotContains(t, err.Error(), "\n")
	}
}
