package fleetkey_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// This file spoils bundles so that an error about them may show the key in them,
// for TestSecretsStaySecret.

// badBundle brings a bundle that is none before everyone who reads it.
func (w *witness) badBundle(t *testing.T, alg, name string, good, bad []byte) {
	cell := fleetkeytest.NewStore()
	cell.Set(good)
	s, err := fleetkey.NewSigner(t.Context(), cell, w.config(alg))
	require.NoError(t, err)
	cell.Set(bad)
	w.failed(t, "Refresh: "+name, s.Refresh(t.Context()))
	w.failed(t, "Rotate: "+name, s.Rotate(t.Context()))
	w.answers(t, s)
	require.NoError(t, s.Close())
	_, err = fleetkey.NewSigner(t.Context(), cell, w.config(alg))
	w.failed(t, "NewSigner: "+name, err)
	cfg := w.config(alg)
	cfg.Adopt = cell
	_, err = fleetkey.NewSigner(t.Context(), fleetkeytest.NewStore(), cfg)
	w.failed(t, "adopt: "+name, err)
}

// badBundles spoils a good one as people, editors and networks do.
func badBundles(t *testing.T, good []byte) map[string][]byte {
	keyBlock, rest := pem.Decode(good)
	certBlock, _ := pem.Decode(rest)
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	require.NoError(t, err)
	text, keyPEM, certPEM := string(good), string(pem.EncodeToMemory(keyBlock)), string(pem.EncodeToMemory(certBlock))
	secret := base64.StdEncoding.EncodeToString(keyBlock.Bytes)
	line := secret[len(secret)/2:]
	line = line[:min(len(line), 64)]
	asType := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	bad := map[string]string{
		"on one line":             strings.ReplaceAll(text, "\n", " "),
		"with escaped line ends":  strings.ReplaceAll(text, "\n", `\n`),
		"as YAML, indented":       "key: |\n  " + strings.ReplaceAll(text, "\n", "\n  "),
		"base64 alone":            secret,
		"DER":                     string(keyBlock.Bytes),
		"base64 of it all":        base64.StdEncoding.EncodeToString(good),
		"UTF-16":                  "\xff\xfe" + strings.Join(strings.Split(text, ""), "\x00"),
		"a key as certificate":    asType("CERTIFICATE", keyBlock.Bytes),
		"a certificate as key":    asType("PRIVATE KEY", certBlock.Bytes) + certPEM,
		"a key alone":             keyPEM,
		"a key without its last":  asType("PRIVATE KEY", keyBlock.Bytes[:len(keyBlock.Bytes)-1]) + certPEM,
		"a key damaged":           asType("PRIVATE KEY", bytes.Replace(keyBlock.Bytes, []byte{4}, []byte{5}, -1)) + certPEM,
		"another type":            asType("OPENSSH PRIVATE KEY", keyBlock.Bytes) + certPEM,
		"a type that is a key":    strings.ReplaceAll(keyPEM, "PRIVATE KEY", line),
		"a header that is a key":  strings.Replace(keyPEM, "-----\n", "-----\n"+line+": x\n\n", 1) + certPEM,
		"a value that is a key":   strings.Replace(keyPEM, "-----\n", "-----\nProc-Type: "+line+"\n\n", 1) + certPEM,
		"a kid that is a key":     strings.Replace(certPEM, "-----\n", "-----\nKid: "+strings.Repeat(secret, 3)+"\n\n", 1),
		"a kid with a quote":      strings.Replace(certPEM, "-----\n", "-----\nKid: \""+line+"\"\n\n", 1),
		"twice":                   text + text,
		"too long":                strings.Repeat(text, 1+fleetkey.MaxBundleSize/len(text)),
		"another's certificate":   keyPEM + asType("CERTIFICATE", certificateOf(t, newParty(t, "ES384"))),
		"text with a PEM frame":   "-----" + line + "-----\n" + text,
		"a space in every line":   strings.ReplaceAll(text, "\n", " \n x"),
		"a character in the key":  strings.Replace(text, "KEY-----\n", "KEY-----\n!", 1),
		"encrypted, by its frame": strings.ReplaceAll(keyPEM, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY") + certPEM,
	}
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		bad["PKCS#1"] = asType("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)) + certPEM
		bad["PKCS#1 in a PKCS#8 frame"] = asType("PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)) + certPEM
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		require.NoError(t, err)
		bad["SEC 1"] = asType("EC PRIVATE KEY", der) + certPEM
		bad["SEC 1 in a PKCS#8 frame"] = asType("PRIVATE KEY", der) + certPEM
	case ed25519.PrivateKey:
		bad["a seed"] = asType("PRIVATE KEY", k.Seed()) + certPEM
	}
	step := len(keyPEM) / 7
	for cut := 1; cut < len(keyPEM)-10; cut += step {
		bad[fmt.Sprintf("without the first %d bytes", cut)] = text[cut:]
		bad[fmt.Sprintf("with the first %d bytes", cut)] = text[:cut]
	}
	bundles := map[string][]byte{}
	for name, text := range bad {
		bundles[name] = []byte(text)
	}
	return bundles
}
