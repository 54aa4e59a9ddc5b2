package keyset_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// TestForms: whatever somebody pastes instead of a bundle is named, by the error of a store
// as well, and nothing of it is shown.
func TestForms(t *testing.T) {
	k := privateOf("k")
	pair := privateKey(t, k) + own(t, k)
	elliptic := keysettest.Key(t, "ES256", day(t, "2026-05-01")).Private.(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(elliptic)
	require.NoError(t, err)
	pkcs1 := x509.MarshalPKCS1PrivateKey(keysettest.Key(t, "RS256", day(t, "2026-05-01")).Private.(*rsa.PrivateKey))
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	require.NoError(t, err)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "r"}}, k)
	require.NoError(t, err)
	negative := derOf(own(t, k))
	negative[bytes.Index(negative, []byte{0xa0, 3, 2, 1, 2, 2})+7] |= 0x80
	cert, pkcs8 := derOf(own(t, k)), derOf(privateKey(t, k))
	type nested []byte // DER
	sequence := func(parts ...any) nested {
		var all []byte
		for _, part := range parts {
			if nested, ok := part.(nested); ok {
				part = asn1.RawValue{FullBytes: nested}
			}
			der, err := asn1.Marshal(part)
			require.NoError(t, err)
			all = append(all, der...)
		}
		der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: all})
		require.NoError(t, err)
		return der
	}
	oid := func(numbers ...int) asn1.ObjectIdentifier { return numbers }
	utf16le := strings.Join(strings.Split(pair, ""), "\x00") + "\x00"
	b64 := func(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
	pfx := sequence(3, sequence(oid(1, 2, 840, 113549, 1, 7, 1), make([]byte, 300)))
	pss := sequence(0, sequence(oid(1, 2, 840, 113549, 1, 1, 10)), pkcs1)
	encrypted := sequence(sequence(oid(1, 2, 840, 113549, 1, 5, 13), sequence(1)), []byte("ciphertext"))

	for title, tc := range map[string]struct{ data, name, advice string }{
		"empty":                         {"", "empty", "export"},
		"white space":                   {" \n", "empty", "export"},
		"JSON around PEM":               {`{"key":"` + strings.ReplaceAll(pair, "\n", `\n`) + `"}`, "JSON around PEM", ""},
		"JWK":                           {` {"kty":"RSA","n":"AQAB"}`, "a JSON Web Key", ""},
		"JWK of .NET":                   {`{"Kty":"RSA","N":"AQAB"}`, "a JSON Web Key", ""},
		"JWK set":                       {`{"keys":[{"kty":"RSA"}]}`, "a JSON Web Key", ""},
		"other JSON":                    {`[1]`, "JSON", "take the PEM"},
		"escaped line breaks":           {strings.ReplaceAll(pair, "\n", `\n`), `PEM with its line breaks written as \n`, ""},
		"all on one line":               {strings.ReplaceAll(pair, "\n", " "), "PEM without line breaks", ""},
		"old Mac line ends":             {strings.ReplaceAll(pair, "\n", "\r"), "PEM without line breaks", ""},
		"base64 of PEM":                 {b64([]byte(pair)), "base64 of PEM", ""},
		"base64 of PEM, wrapped":        {strings.Replace(b64([]byte(pair)), "U", "U\r\n  ", 9), "base64 of PEM", ""},
		"base64url of PEM, unpadded":    {base64.RawURLEncoding.EncodeToString([]byte(pair)), "base64 of PEM", ""},
		"base64 of base64":              {b64([]byte(b64([]byte(pair)))), "base64 of base64 of PEM", ""},
		"base64 of DER":                 {b64(cert), "base64 of a certificate in DER", ""},
		"base64 of PFX":                 {b64(pfx), "base64 of a PFX (PKCS#12)", ""},
		"UTF-16":                        {"\xff\xfe" + utf16le, "text in UTF-16", ""},
		"UTF-16, the other way":         {"\xfe\xff\x00-\x00-", "text in UTF-16", ""},
		"UTF-16 without a mark":         {utf16le, "text in UTF-16 without a byte order mark", "save it as UTF-8"},
		"UTF-8 mark before JSON":        {"\xef\xbb\xbf{}", "JSON", "take the PEM"},
		"certificate":                   {string(cert), "a certificate in DER", ""},
		"negative serial":               {string(negative), "a certificate with a negative serial number", "openssl pkey"},
		"request":                       {string(request), "a certificate request", "private key alone"},
		"PKCS#8":                        {string(pkcs8), "a private key in DER", ""},
		"PKCS#1":                        {string(pkcs1), "a private key in DER", ""},
		"SEC 1":                         {string(sec1), "a private key in DER", ""},
		"encrypted PKCS#8":              {string(encrypted), "an encrypted private key", ""},
		"public key":                    {string(spki), "a public key", "Config.Former"},
		"PFX":                           {string(pfx), "a PFX (PKCS#12)", ""},
		"PFX in BER":                    {"\x30\x80\x02\x01\x03\x30\x80", "a PFX or another structure in BER", "openssl pkcs12 -in FILE"},
		"PKCS#7":                        {string(sequence(oid(1, 2, 840, 113549, 1, 7, 2), 1)), "a .p7b (PKCS#7)", "openssl pkcs7 -print_certs"},
		"RSA-PSS":                       {string(pss), "an RSA-PSS key", "openssl rsa -in FILE -traditional -outform DER"},
		"other DER":                     {string(sequence([]byte("x"), 2)), "", ""},
		"JKS":                           {"\xfe\xed\xfe\xed\x00\x00\x00\x02", "a Java keystore (JKS)", "keytool -importkeystore"},
		"JCEKS":                         {"\xce\xce\xce\xce\x00\x00\x00\x02", "a Java keystore (JCEKS)", "-srcstoretype JCEKS"},
		"PuTTY":                         {"PuTTY-User-Key-File-3: ssh-rsa\n", "a PuTTY key", "puttygen"},
		"SSH public key":                {"ssh-ed25519 AAAA me\n", "an SSH public key", "private"},
		"XML of .NET":                   {"\r\n<RSAKeyValue><Modulus>", "an RSA key in XML", "PKCS#8"},
		"XML with its head":             {"<?xml version=\"1.0\"?>\n<RSAKeyValue><Modulus>", "an RSA key in XML", "PKCS#8"},
		"Kubernetes, JSON":              {`{"data":{"tls.key":"LS0t"},"kind":"Secret","apiVersion":"v1"}`, "a Kubernetes object", "kubectl get secret NAME -o jsonpath"},
		"Kubernetes, YAML":              {"data:\n  tls.key: LS0t\napiVersion: v1\n", "a Kubernetes object", "kubectl get secret NAME -o jsonpath"},
		"IdentityServer4":               {`{"KeyId":"x","Parameters":{"D":"AA=="}}`, "an RSA key of IdentityServer4", ""},
		"data: URL":                     {"data:application/x-pkcs12;base64,MIIJ", "a data: URL", "comma"},
		"hexadecimal":                   {"308204bc020100\n300d06", "hexadecimal", "xxd -r -p"},
		"gzip":                          {"\x1f\x8b\x08\x00", "a compressed file", "unpack"},
		"zip":                           {"PK\x03\x04", "a compressed file", "unpack"},
		"PVK":                           {"\x1e\xf1\xb5\xb0\x00", "a private key of Windows (.pvk)", "openssl rsa -inform PVK"},
		"key blob":                      {"\x07\x02\x00\x00\x00\xa4\x00\x00RSA2", "a private key of Windows", "openssl rsa -inform MSBLOB"},
		"web page":                      {"<!DOCTYPE html><html>", "a web page", "download"},
		"PEM of PKCS#1":                 {block("RSA PRIVATE KEY", pkcs1), "a PKCS#1 private key (RSA PRIVATE KEY)", ""},
		"PEM of SEC 1":                  {block("EC PRIVATE KEY", sec1), "a SEC 1 private key (EC PRIVATE KEY)", ""},
		"PEM of EC parameters":          {block("EC PARAMETERS", []byte{6, 0}), "an EC PARAMETERS block", ""},
		"PEM of an encrypted key":       {block("ENCRYPTED PRIVATE KEY", encrypted), "an encrypted private key", ""},
		"PEM of an old encrypted key":   {"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", "a private key, encrypted as", ""},
		"PEM of SSH":                    {block("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), "an SSH key (OPENSSH PRIVATE KEY)", ""},
		"PEM of DSA":                    {block("DSA PRIVATE KEY", sec1), "a DSA or OpenPGP key", "cannot sign"},
		"PEM of a trusted certificate":  {block("TRUSTED CERTIFICATE", cert), "a certificate with OpenSSL trust settings", "openssl x509"},
		"explicit parameters":           {string(sequence(1, make([]byte, 32), sequence(1, sequence(oid(1, 2, 840, 10045, 1, 1), 1)))), "an EC key with explicit curve parameters", "openssl ec"},
		"PEM of a request":              {block("CERTIFICATE REQUEST", request), "a certificate request", "private key alone"},
		"PEM of a request by Microsoft": {block("NEW CERTIFICATE REQUEST", request), "a certificate request", "private key alone"},
		"PEM of a public key":           {block("PUBLIC KEY", spki), "a public key", "Config.Former"},
		"PEM of PKCS#7":                 {block("PKCS7", cert), "a .p7b (PKCS#7)", "openssl pkcs7 -print_certs"},
		"PEM of RSA-PSS":                {block("PRIVATE KEY", pss), "an RSA-PSS key", "openssl rsa -in FILE -traditional -outform DER"},
		"PEM of OpenPGP":                {block("PGP PRIVATE KEY BLOCK", cert), "a DSA or OpenPGP key", "cannot sign"},
		"bag attributes, PKCS#1":        {"Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n" + block("RSA PRIVATE KEY", pkcs1), "a PKCS#1 private key", ""},
		"a bundle":                      {pair, "", ""},
		"text":                          {"hello, world\n", "", ""},
		"token":                         {"eyJhbGciOiJSUzI1NiJ9.e30.AAAA", "", ""},
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
			require.Regexp(t, `^(the bundle contains no PEM block|PEM block 1: (not a block of a bundle|not a PKCS#8 private key|damaged or truncated: .+)): this is `+regexp.QuoteMeta(tc.name), err)
			require.ErrorContains(t, err, tc.advice)
			require.Equal(t, tc.advice == "", strings.Contains(err.Error(), "`fleetkey import FILE`"), err)
			for line := range bytes.Lines([]byte(tc.data)) {
				if line = bytes.TrimSpace(line); len(line) > 40 && !bytes.HasPrefix(line, []byte("-----")) {
					require.NotContains(t, err.Error(), string(line), "the error shows key material")
				}
			}
		})
	}
}
