package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// The files in testdata/pasted cannot be made by a Go library. Their password is "changeit".
// OpenSSL 3.0 made e.key with `openssl ecparam -name prime256v1 -genkey -noout` and e.crt with
// `openssl req -x509 -key e.key -subj /CN=e -days 36500`. The others:
//
//	keytool.p12         keytool -genkeypair -alias one (and two) -keyalg EC -groupname secp256r1 -dname CN=one
//	                    -validity 36500 -storetype PKCS12, of Java 17
//	keystore.jks        keytool -importkeystore -srckeystore keytool.p12 -deststoretype JKS
//	openssl3.p12        openssl pkcs12 -export -inkey e.key -in e.crt; -nomac: with -nomac; -sha512: with -macalg sha512 -iter 100000
//	openssl-keyonly.p12 the same with -nocerts
//	pkcs8.key           openssl pkcs8 -topk8 -in e.key; -v1: with -v1 PBE-SHA1-3DES; -scrypt: with -scrypt
//	ec-old.key          openssl ec -in e.key -aes128
//	rsa-pss.key         openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
//	rsa-pss.crt         openssl req -x509 -key rsa-pss.key -subj /CN=pss
//	negative.crt        openssl req -x509 -key e.key -subj /CN=e -set_serial -5; negative.p12: pkcs12 -export of it
//	tempkey.jwk, .rsa   a key in the form in which IdentityServer and IdentityServer4 write it
//	e.p7b, e.der.p7b    openssl crl2pkcs7 -nocrl -certfile e.crt -outform PEM, DER
func pasted(name string) string {
	return string(must(os.ReadFile(filepath.Join("testdata", "pasted", name))))
}

// imported runs import on files with these contents and a password. It returns the exit
// status, the output, and the content of the store afterwards.
func imported(t *testing.T, store, password string, contents ...string) (int, string, *keyset.Set) {
	t.Helper()
	t.Setenv(passwordEnv, password)
	args := []string{"import", "--file", store, "--keep", "24h", "--yes"}
	for _, content := range contents {
		path := filepath.Join(t.TempDir(), "pasted")
		write(path, []byte(content))
		args = append(args, path)
	}
	status, out, said := run(t.Context(), args...)
	bundle, err := os.ReadFile(store)
	if err != nil {
		return status, out + said, nil
	}
	return status, out + said, must(keyset.Parse(bundle))
}

func inPEM(typ string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
}

func inPKCS8(key any) string { return inPEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))) }

func inUTF16(text string) string {
	out := []byte("\xff\xfe")
	for _, unit := range utf16.Encode([]rune(text)) {
		out = binary.LittleEndian.AppendUint16(out, unit)
	}
	return string(out)
}

func inJWK(key any, kid, alg, use string, certs ...*x509.Certificate) string {
	return string(must(json.Marshal(jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: alg, Use: use, Certificates: certs})))
}

// TestImportForms: import reads a private key in each form, and the key then signs.
func TestImportForms(t *testing.T) {
	k := selfSigned("mine", 1)
	rsaKey, ecKey := k.Private.(*rsa.PrivateKey), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	key, cert := inPKCS8(rsaKey), inPEM("CERTIFICATE", k.Cert.Raw)
	pair, pkcs1 := key+cert, inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))
	pfx := func(e *pkcs12.Encoder, password string) string {
		return string(must(e.Encode(rsaKey, k.Cert, []*x509.Certificate{selfSigned("authority", 1).Cert}, password)))
	}
	b64 := base64.StdEncoding.EncodeToString
	nowhere := strings.NewReplacer("\n", `\n`)
	ofRSA, ofEC, ofEd := k.ID, jws.Thumbprint(ecKey.Public()), jws.Thumbprint(edKey.Public())
	const ofE, ofTwo = "C-wD3raH7d9Z8YyuehYV4i9fqXL8_HkLJ78oFkSFgvA", "bSavQjYOOghdD0duQgG1JN1C8Vj0cewu-_4gfSQUGiA"
	const ofTempkey = "SKT8jFQGou9UeToMsH9_06M3c_A_H8cqZjGbJwMwOa0"
	unlocked := string(pem.EncodeToMemory(must(ssh.MarshalPrivateKey(edKey, "me@host"))))
	locked := string(pem.EncodeToMemory(must(ssh.MarshalPrivateKeyWithPassphrase(ecKey, "", []byte(password)))))

	for title, tc := range map[string]struct{ content, password, kid, alg string }{
		"openssl genrsa, PKCS#1":            {pkcs1, "", ofRSA, "RS256"},
		"EC parameters":                     {"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + inPEM("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ecKey))), "", ofEC, "ES256"},
		"Ed25519":                           {inPKCS8(edKey), "", ofEd, "EdDSA"},
		"the public key too":                {key + inPEM("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(rsaKey.Public()))), "", ofRSA, "RS256"},
		"for HAProxy":                       {cert + key + inPEM("DH PARAMETERS", []byte{48, 0}), "", ofRSA, "RS256"},
		"key given twice":                   {pair + pkcs1, "", ofRSA, "RS256"},
		"bag attributes":                    {"Bag Attributes\n    localKeyID: 01\nsubject=CN = x\n" + cert + "Bag Attributes\nKey Attributes: <No Attributes>\n" + key, "", ofRSA, "RS256"},
		"UTF-8 mark, CRLF":                  {"\ufeff" + strings.ReplaceAll(pair, "\n", "\r\n"), "", ofRSA, "RS256"},
		"UTF-16":                            {inUTF16(pair), "", ofRSA, "RS256"},
		"line breaks as \\n":                {"KEY=\"" + nowhere.Replace(pair) + "\"", "", ofRSA, "RS256"},
		"line breaks as spaces":             {strings.ReplaceAll(pair, "\n", " "), "", ofRSA, "RS256"},
		"old Mac line ends":                 {strings.ReplaceAll(pair, "\n", "\r"), "", ofRSA, "RS256"},
		"indented":                          {"pem: |\n  " + strings.ReplaceAll(pair, "\n", "\n  "), "", ofRSA, "RS256"},
		"JSON around PEM":                   {`{"key":"` + nowhere.Replace(key) + `","crt":"` + nowhere.Replace(cert) + `"}`, "", ofRSA, "RS256"},
		"JSON in JSON":                      {`{"a":"{\"key\":\"` + strings.ReplaceAll(pair, "\n", `\\n`) + `\"}"}`, "", ofRSA, "RS256"},
		"JWK":                               {inJWK(rsaKey, "K1", "RS256", "sig"), "", ofRSA, "RS256"},
		"JWK for PS256":                     {inJWK(rsaKey, "K1", "PS256", "sig"), "", ofRSA, "PS256"},
		"JWK with its certificate":          {inJWK(rsaKey, "K1", "", "", k.Cert), "", ofRSA, "RS256"},
		"JWK of IdentityServer":             {pasted("tempkey.jwk"), "", ofTempkey, "RS256"},
		"tempkey.rsa of IdentityServer4":    {pasted("tempkey.rsa"), "", ofTempkey, "RS256"},
		"array of JWKs":                     {"[" + inJWK(ecKey, "", "", "") + "]", "", ofEC, "ES256"},
		"SSH, Ed25519":                      {unlocked, "", ofEd, "EdDSA"},
		"SSH with a password":               {locked, password, ofEC, "ES256"},
		"encrypted as OpenSSL 0.9 did":      {pasted("ec-old.key"), "changeit", ofE, "ES256"},
		"JWK set":                           {`{"keys":[` + inJWK(rsaKey, "enc", "RSA-OAEP", "enc") + "," + inJWK(ecKey.Public(), "p", "", "") + "," + inJWK(ecKey, "s", "", "") + "," + inJWK(edKey, "t", "", "") + `]}`, "", ofEC, "ES256"},
		"base64 of PEM":                     {b64([]byte(pair)), "", ofRSA, "RS256"},
		"base64url of a JWK":                {base64.RawURLEncoding.EncodeToString([]byte(inJWK(ecKey, "", "", ""))), "", ofEC, "ES256"},
		"base64 of PFX":                     {b64([]byte(pfx(pkcs12.Modern2023, password))), password, ofRSA, "RS256"},
		"DER, PKCS#8":                       {string(derOf(key)), "", ofRSA, "RS256"},
		"PFX of PBMAC1":                     {pfx(pkcs12.Modern2026, password), password, ofRSA, "RS256"},
		"PFX with RC2":                      {pfx(pkcs12.LegacyRC2, "pass\u00e4"), "pass\u00e4", ofRSA, "RS256"},
		"PFX without a password":            {pfx(pkcs12.Modern2023, ""), "x", ofRSA, "RS256"},
		"PFX without encryption":            {pfx(pkcs12.Passwordless, ""), "x", ofRSA, "RS256"},
		"PFX without MAC, as FIPS makes it": {pasted("openssl-nomac.p12"), "changeit", ofE, "ES256"},
		"PFX with a strong MAC":             {pasted("openssl-sha512.p12"), "changeit", ofE, "ES256"},
		"PFX without a certificate":         {pasted("openssl-keyonly.p12"), "changeit", ofE, "ES256"},
		"PFX of Java with two keys":         {pasted("keytool.p12"), "changeit", ofTwo, "ES256"},
		"PFX of OpenSSL 3, password in UTF-8 with mark": {pasted("openssl3.p12"), "\ufeffchangeit\r\n", ofE, "ES256"},
		"encrypted PKCS#8":        {pasted("pkcs8.key"), "changeit", ofE, "ES256"},
		"encrypted PKCS#8, PBES1": {pasted("pkcs8-v1.key"), "changeit", ofE, "ES256"},
	} {
		t.Run(title, func(t *testing.T) {
			status, out, set := imported(t, filepath.Join(t.TempDir(), "keys.pem"), tc.password, tc.content)
			require.Zero(t, status, out)
			signing, early := set.Signing(time.Now())
			require.NotNil(t, signing, out)
			require.False(t, early)
			require.Equal(t, []string{tc.kid, tc.alg}, []string{signing.ID, signing.Alg.Name}, out)
			for line := range strings.Lines(tc.content) {
				if line = strings.TrimSpace(line); len(line) > 30 && !strings.HasPrefix(line, "-----") {
					require.NotContains(t, out, line)
				}
			}
		})
	}
}

func derOf(text string) []byte {
	block, _ := pem.Decode([]byte(text))
	return block.Bytes
}

// TestImportNamesTheForm: if import cannot read a format, the error names it and gives a
// command that converts it. The store does not change.
func TestImportNamesTheForm(t *testing.T) {
	ecKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	k := selfSigned("other", 0)
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	key, otherCert := inPKCS8(ecKey), inPEM("CERTIFICATE", k.Cert.Raw)
	mixed := *must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	mixed.PublicKey = ecKey.PublicKey
	lockedSSH := string(pem.EncodeToMemory(must(ssh.MarshalPrivateKeyWithPassphrase(ecKey, "", []byte("changeit")))))
	for title, tc := range map[string]struct{ content, password, want string }{
		"PKCS#7":                         {pasted("e.p7b"), "", "a .p7b (PKCS#7), which holds no private key; take its certificates out with `openssl pkcs7 -print_certs"},
		"JKS":                            {pasted("keystore.jks"), "changeit", "keytool -importkeystore"},
		"RSA-PSS":                        {pasted("rsa-pss.key"), "", "an RSA-PSS key (id-RSASSA-PSS); turn it into a plain RSA key with `openssl rsa"},
		"RSA-PSS and its certificate":    {pasted("rsa-pss.crt") + pasted("rsa-pss.key"), "", "RSA-PSS"},
		"negative serial":                {pasted("negative.crt"), "", "a certificate with a negative serial number"},
		"negative serial in a PFX":       {pasted("negative.p12"), "changeit", "openssl pkcs12 -in FILE -nocerts -nodes"},
		"SSH":                            {inPEM("OPENSSH PRIVATE KEY", []byte("openssh-key-v1\x00")), "", "an SSH key (OPENSSH PRIVATE KEY), damaged"},
		"SSH, password":                  {lockedSSH, "wrong", "the password is wrong"},
		"old encryption, password":       {pasted("ec-old.key"), "wrong", "the password is wrong"},
		"JWK without primes":             {`{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQ"}`, "", "an RSA JWK without its primes (p and q)"},
		"hexadecimal":                    {hex.EncodeToString(derOf(key)), "", "this is hexadecimal; convert it with `xxd -r -p"},
		"P-521":                          {inPKCS8(must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))), "", "P-521"},
		"certificate alone":              {otherCert, "", "cannot sign, so it is not imported"},
		"encrypted PKCS#8, scrypt":       {pasted("pkcs8-scrypt.key"), "changeit", "openssl pkey -in FILE"},
		"encrypted PKCS#8, password":     {pasted("pkcs8.key"), "wrong", "the password is wrong"},
		"PFX, password":                  {pasted("openssl3.p12"), "wrong", "the password is wrong"},
		"PFX without MAC, password":      {pasted("openssl-nomac.p12"), "wrong", "the password is wrong"},
		"PFX cut off":                    {pasted("openssl3.p12")[:500], "changeit", "a PFX (PKCS#12), damaged"},
		"public key":                     {inPEM("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(ecKey.Public()))), "", "add it to Config.Former of all servers, as Key, with its KeyID"},
		"JWK for encryption":             {inJWK(ecKey, "k", "", "enc"), "", "or one for encryption, cannot sign"},
		"JWK with another's public half": {inJWK(&mixed, "", "", ""), "", "does not match the public key next to it"},
		"damaged JWK":                    {`{"kty":"RSA","n":"AQAB","d":"x","p":"x"}`, "", "a JSON Web Key, or a set of them, damaged or of a kind that cannot sign tokens"},
		"other JSON":                     {`{"a":1}`, "", "this is JSON; take the PEM"},
		"half of JSON":                   {`{"kty":`, "", "a JSON Web Key, or a set of them, damaged"},
		"weak RSA":                       {inPKCS8(weak), "", "the RSA key has 1024 bits"},
		"key beside another certificate": {otherCert + key, "", "a private key without its certificate"},
		"garbage":                        {"hello", "", "not a key or certificate in a format"},
		"empty":                          {"", "", "empty"},
		"too large":                      {strings.Repeat("A", maxFile+1), "", "more than 262144 bytes"},
	} {
		t.Run(title, func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "keys.pem")
			status, out, set := imported(t, store, tc.password, tc.content)
			require.Equal(t, exitFailed, status)
			require.Contains(t, out, tc.want)
			require.Contains(t, out, `pasted": `, "the error must name the file")
			require.Nil(t, set, "the store must not be created")
		})
	}
}

// TestImportFormer: the entry for Config.Former matches the algorithm of the old tokens.
func TestImportFormer(t *testing.T) {
	k := selfSigned("mine", 1)
	for alg, want := range map[string]string{
		"RS256":   `{Key: publicKey, KeyID: "old", Issuer: `,
		"PS256":   `{Certificate: certificate, KeyID: "old", Issuer: `,
		"RS512":   `is for "RS512", which fleetkey does not verify`,
		"\x1b[2J": `is for "\x1b[2J", which`,
	} {
		status, out, _ := imported(t, filepath.Join(t.TempDir(), "keys.pem"), "", inJWK(k.Private, "old", alg, "sig"))
		require.Zero(t, status, out)
		require.Contains(t, out, want)
	}
}

// TestImportIterations: no file can make import derive keys from a password for hours.
func TestImportIterations(t *testing.T) {
	k := selfSigned("slow", 1)
	for name, encoder := range map[string]*pkcs12.Encoder{"3DES": pkcs12.LegacyDES, "PBES2": pkcs12.Modern2023, "PBMAC1": pkcs12.Modern2026} {
		sound := string(must(encoder.WithIterations(70_000).Encode(k.Private, k.Cert, nil, password)))
		require.EqualValues(t, 210_000, iterations([]byte(sound), 0), "%s: sum of certificate, key and MAC", name)
		for _, bomb := range []string{"\x02\x03\x7f\xff\xff", "\x02\x03\x0f\xff\xff"} { // once 8 million, and three times 1 million
			file := strings.ReplaceAll(sound, "\x02\x03\x01\x11\x70", bomb)
			begin := time.Now()
			_, out, _ := imported(t, filepath.Join(t.TempDir(), "keys.pem"), password, file)
			require.Contains(t, out, "more than 2000000 iterations", name)
			require.Less(t, time.Since(begin), 10*time.Second, name)
		}
	}
	huge := marshal([]any{[]byte("salt"), new(big.Int).Lsh(big.NewInt(1), 100)})
	require.Greater(t, iterations(huge, 0), int64(maxIterations))
}

// TestFreshKeys: a key without a certificate signs at once, even if the previous key began in
// the same second, the resolution of a certificate.
func TestFreshKeys(t *testing.T) {
	before, now := selfSigned("before", 1), time.Now()
	made := must(freshKeys([]broughtKey{{Signer: before.Private}}, []*keyset.Key{before}, before.Cert.NotBefore.Add(24*time.Hour+900*time.Millisecond)))
	require.Greater(t, made[0].Cert.NotBefore, before.Cert.NotBefore)
	require.Less(t, made[0].Cert.NotBefore, now)
}
