package keyset_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// TestForms: data pasted instead of a bundle is named, also in a store's error, and never
// quoted. Here DER has only its head, which decides. The tests of cmd/fleetkey use files
// written by openssl and others.
func TestForms(t *testing.T) {
	k := privateOf("k")
	key, cert := privateKey(t, k), own(t, k)
	pair, pkcs8 := key+cert, string(derOf(key))
	pkcs1 := x509.MarshalPKCS1PrivateKey(keysettest.Key(t, "RS256", day(t, "2026-05-01")).Private.(*rsa.PrivateKey))
	negative := derOf(cert)
	negative[bytes.Index(negative, []byte{0xa0, 3, 2, 1, 2, 2})+7] |= 0x80
	utf16le := strings.Join(strings.Split(pair, ""), "\x00") + "\x00"
	b64 := func(data string) string { return base64.StdEncoding.EncodeToString([]byte(data)) }
	const pss = "\x30\x82\x01\x02\x02\x01\x00\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x05" // id-RSASSA-PSS
	const encrypted = "\x30\x81\xf0\x30\x57\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d"

	for title, tc := range map[string]struct{ data, name, advice string }{
		"empty":                       {"", "empty", "export"},
		"JSON around PEM":             {`{"key":"` + strings.ReplaceAll(pair, "\n", `\n`) + `"}`, "JSON around PEM", ""},
		"JWK":                         {` {"kty":"RSA","n":"AQAB"}`, "a JSON Web Key", ""},
		"JWK set of .NET":             {`{"keys":[{"Kty":"RSA"}]}`, "a JSON Web Key", ""},
		"other JSON":                  {`[1]`, "JSON", "take the PEM"},
		"escaped line breaks":         {strings.ReplaceAll(pair, "\n", `\n`), `PEM with its line breaks written as \n`, ""},
		"all on one line":             {strings.ReplaceAll(pair, "\n", " "), "PEM without line breaks", ""},
		"base64 of PEM, wrapped":      {strings.Replace(b64(pair), "U", "U\r\n  ", 9), "base64 of PEM", ""},
		"base64url of PEM, unpadded":  {base64.RawURLEncoding.EncodeToString([]byte(pair)), "base64 of PEM", ""},
		"base64 of base64 of DER":     {b64(b64(pkcs8)), "base64 of base64 of a private key in DER", ""},
		"UTF-16":                      {"\xff\xfe" + utf16le, "text in UTF-16", ""},
		"UTF-16 without a mark":       {utf16le, "text in UTF-16 without a byte order mark", "save it as UTF-8"},
		"UTF-8 mark before JSON":      {"\xef\xbb\xbf{}", "JSON", "take the PEM"},
		"certificate":                 {string(derOf(cert)), "a certificate in DER", ""},
		"negative serial":             {string(negative), "a certificate with a negative serial number", "openssl pkey"},
		"PKCS#8":                      {pkcs8, "a private key in DER", ""},
		"PKCS#1":                      {string(pkcs1), "a private key in DER", ""},
		"encrypted PKCS#8":            {encrypted, "an encrypted private key", ""},
		"public key":                  {"\x30\x59\x30\x13\x06\x07", "a public key", "Config.Former"},
		"PFX":                         {"\x30\x82\x09\x00\x02\x01\x03\x30\x82\x08\x01", "a PFX (PKCS#12)", ""},
		"PFX in BER":                  {"\x30\x80\x02\x01\x03\x30\x80", "a PFX or another structure in BER", "openssl pkcs12 -in FILE"},
		"PKCS#7":                      {"\x30\x83\x01\x00\x00\x06\x09\x2a", "a .p7b (PKCS#7)", "openssl pkcs7 -print_certs"},
		"RSA-PSS":                     {pss, "an RSA-PSS key", "openssl rsa -in FILE -traditional -outform DER"},
		"explicit parameters":         {"\x30\x10\x02\x01\x01\x04\x01\x00\x06\x07\x2a\x86\x48\xce\x3d\x01\x01", "an EC key with explicit", "openssl ec"},
		"other DER":                   {"\x30\x03\x04\x01x", "", ""},
		"JKS":                         {"\xfe\xed\xfe\xed\x00\x00\x00\x02", "a Java keystore (JKS)", "keytool -importkeystore"},
		"JCEKS":                       {"\xce\xce\xce\xce\x00\x00\x00\x02", "a Java keystore (JCEKS)", "-srcstoretype JCEKS"},
		"PuTTY":                       {"PuTTY-User-Key-File-3: ssh-rsa\n", "a PuTTY key", "puttygen"},
		"SSH public key":              {"ssh-ed25519 AAAA me\n", "an SSH public key", "private"},
		"XML of .NET":                 {"<?xml version=\"1.0\"?>\r\n<RSAKeyValue><Modulus>", "an RSA key in XML", "PKCS#8"},
		"Kubernetes":                  {"data:\n  tls.key: LS0t\napiVersion: v1\n", "a Kubernetes object", "kubectl get secret NAME -o jsonpath"},
		"IdentityServer4":             {`{"KeyId":"x","Parameters":{"D":"AA=="}}`, "an RSA key of IdentityServer4", ""},
		"data: URL":                   {"data:application/x-pkcs12;base64,MIIJ", "a data: URL", "comma"},
		"hexadecimal":                 {"308204bc020100\n300d06", "hexadecimal", "xxd -r -p"},
		"gzip":                        {"\x1f\x8b\x08\x00", "a compressed file", "unpack"},
		"PVK":                         {"\x1e\xf1\xb5\xb0\x00", "a private key of Windows (.pvk)", "openssl rsa -inform PVK"},
		"key blob":                    {"\x07\x02\x00\x00\x00\xa4\x00\x00RSA2", "a private key of Windows", "openssl rsa -inform MSBLOB"},
		"web page":                    {"<!DOCTYPE html><html>", "a web page", "download"},
		"PEM of PKCS#1":               {"Bag Attributes\n" + block("RSA PRIVATE KEY", pkcs1), "a PKCS#1 private key (RSA PRIVATE KEY)", ""},
		"PEM of SEC 1":                {block("EC PRIVATE KEY", pkcs1), "a SEC 1 private key (EC PRIVATE KEY)", ""},
		"PEM of EC parameters":        {block("EC PARAMETERS", []byte{6, 0}), "an EC PARAMETERS block", ""},
		"PEM of an encrypted key":     {block("ENCRYPTED PRIVATE KEY", []byte(encrypted)), "an encrypted private key", ""},
		"PEM of an old encrypted key": {block("RSA PRIVATE KEY", pkcs1, "DEK-Info: AES-128-CBC,00"), "a private key, encrypted as", ""},
		"PEM of SSH":                  {block("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), "an SSH key (OPENSSH PRIVATE KEY)", ""},
		"PEM of DSA":                  {block("DSA PRIVATE KEY", pkcs1), "a DSA or OpenPGP key", "cannot sign"},
		"PEM of trust settings":       {block("TRUSTED CERTIFICATE", derOf(cert)), "a certificate with OpenSSL trust settings", "openssl x509"},
		"PEM of a request":            {block("CERTIFICATE REQUEST", nil), "a certificate request", "private key alone"},
		"PEM of a public key":         {block("PUBLIC KEY", nil), "a public key", "Config.Former"},
		"PEM of RSA-PSS":              {block("PRIVATE KEY", []byte(pss)), "an RSA-PSS key", "openssl rsa -in FILE -traditional -outform DER"},
		"a bundle":                    {pair, "", ""},
		"text":                        {"hello, world\n", "", ""},
		"token":                       {"eyJhbGciOiJSUzI1NiJ9.e30.AAAA", "", ""},
	} {
		t.Run(title, func(t *testing.T) {
			name, advice := keyset.Form([]byte(tc.data))
			if tc.name == "" {
				require.Empty(t, name)
				return
			}
			require.Contains(t, name, tc.name)
			require.Equal(t, tc.advice == "", advice == "", advice)
			require.Contains(t, advice, tc.advice)

			_, err := keyset.Parse([]byte(tc.data))
			require.Regexp(t, `^(the bundle contains no PEM block|PEM block 1: (not a block of a bundle|not a PKCS#8 private key|damaged or truncated: .+)): `+
				`this is `+regexp.QuoteMeta(tc.name), err)
			require.ErrorContains(t, err, tc.advice)
			require.Equal(t, tc.advice == "", strings.Contains(err.Error(), "`fleetkey import FILE`"), err)
			for line := range strings.Lines(tc.data) {
				if line = strings.TrimSpace(line); len(line) > 40 && !strings.HasPrefix(line, "-----") {
					require.NotContains(t, err.Error(), line, "the error must not contain key material")
				}
			}
		})
	}
}
