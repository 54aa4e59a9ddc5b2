package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/ssh"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// The files in testdata/pasted are what no Go library makes. Their password is "changeit",
// and e.key is `openssl ecparam -name prime256v1 -genkey -noout`, e.crt `openssl req -x509
// -key e.key -subj /CN=e -days 36500`, of OpenSSL 3.0:
//
//	keytool.p12         keytool -genkeypair -alias one (and two) -keyalg EC -groupname secp256r1 -dname CN=one
//	                    -validity 36500 -storetype PKCS12, of Java 17
//	keytool-legacy.p12  keytool -J-Dkeystore.pkcs12.legacy=true -importkeystore -srckeystore keytool.p12
//	keystore.jks        keytool -importkeystore -srckeystore keytool.p12 -deststoretype JKS
//	openssl1.p12        openssl pkcs12 -export -inkey e.key -in e.crt -legacy, as OpenSSL 1.1 does
//	openssl3.p12        the same without -legacy; -nomac: with -nomac; -sha512: with -macalg sha512 -iter 100000
//	openssl-keyonly.p12 the same with -nocerts
//	pkcs8.key           openssl pkcs8 -topk8 -in e.key; -v1: with -v1 PBE-SHA1-3DES; -des3: with -v2 des3;
//	                    -scrypt: with -scrypt
//	ec-old.key          openssl ec -in e.key -aes128
//	rsa-pss.key         openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
//	rsa-pss.crt         openssl req -x509 -key rsa-pss.key -subj /CN=pss
//	negative.crt        openssl req -x509 -key e.key -subj /CN=e -set_serial -5; negative.p12: pkcs12 -export of it
//	e.p7b, e.der.p7b    openssl crl2pkcs7 -nocrl -certfile e.crt -outform PEM, DER
//	e.csr               openssl req -new -key e.key -subj /CN=e
func pasted(name string) string {
	return string(must(os.ReadFile(filepath.Join("testdata", "pasted", name))))
}

// imported runs import on files with these contents and a password, and returns what it
// printed and what is in the store then.
func imported(t *testing.T, store, password string, contents ...string) (string, *keyset.Set, error) {
	t.Helper()
	t.Setenv(passwordEnv, password)
	c := importCmd{storeFlags: storeFlags{File: store}, Keep: days(24 * time.Hour), consent: consent{Yes: true}}
	for _, content := range contents {
		c.Files = append(c.Files, filepath.Join(t.TempDir(), "pasted"))
		write(c.Files[len(c.Files)-1], []byte(content))
	}
	var out bytes.Buffer
	a := &app{ctx: t.Context(), stdin: os.Stdin, stdout: &out, stderr: &out, log: slog.New(slog.DiscardHandler), timeout: time.Minute}
	err := c.Run(a)
	bundle, readErr := os.ReadFile(store)
	if readErr != nil {
		return out.String(), &keyset.Set{}, err
	}
	return out.String(), must(keyset.Parse(bundle)), err
}

func inPEM(typ string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
}

func inUTF16(text string, mark string, low int) string {
	out := []byte(mark)
	for _, unit := range utf16.Encode([]rune(text)) {
		pair := []byte{byte(unit >> 8), byte(unit)}
		out = append(out, pair[low], pair[1-low])
	}
	return string(out)
}

func inJSON(value any) string { return string(must(json.Marshal(value))) }

func inJWK(key any, kid, alg, use string, certs ...*x509.Certificate) string {
	return inJSON(jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: alg, Use: use, Certificates: certs})
}

// TestImportForms: import reads a private key in each form, and the key then signs.
func TestImportForms(t *testing.T) {
	now := time.Now()
	rsaKey, rsaCert := certificate("mine", nil, nil, now.AddDate(0, 0, -1), now.AddDate(1, 0, 0))
	_, caCert := certificate("authority", nil, nil, now.AddDate(0, 0, -1), now.AddDate(1, 0, 0))
	ecKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	pkcs8, pkcs1, sec1 := must(x509.MarshalPKCS8PrivateKey(rsaKey)), x509.MarshalPKCS1PrivateKey(rsaKey), must(x509.MarshalECPrivateKey(ecKey))
	key, cert := inPEM("PRIVATE KEY", pkcs8), inPEM("CERTIFICATE", rsaCert.Raw)
	pair := key + cert
	pfx := string(must(pkcs12.Modern2023.Encode(rsaKey, rsaCert, []*x509.Certificate{caCert}, password)))
	b64 := base64.StdEncoding.EncodeToString
	nowhere := strings.NewReplacer("\n", `\n`)
	ofRSA, ofEC, ofEd := jws.Thumbprint(rsaKey.Public()), jws.Thumbprint(ecKey.Public()), jws.Thumbprint(edKey.Public())
	const ofE, ofTwo = "C-wD3raH7d9Z8YyuehYV4i9fqXL8_HkLJ78oFkSFgvA", "bSavQjYOOghdD0duQgG1JN1C8Vj0cewu-_4gfSQUGiA"
	dotNet := inJWK(rsaKey, "K1", "RS256", "")
	for _, name := range []string{"alg", "kid", "kty", "dp", "dq", "qi", "n", "e", "d", "p", "q"} {
		dotNet = strings.Replace(dotNet, `"`+name+`":`, `"`+strings.ToUpper(name[:1])+name[1:]+`":`, 1)
	}
	dotNet = strings.Replace(dotNet, "{", `{"AdditionalData":{},"Crv":null,"X5c":[],"Oth":null,`, 1)

	standard := strings.NewReplacer("-", "+", "_", "/")
	parameters := map[string]any{}
	check(json.Unmarshal([]byte(inJWK(rsaKey, "", "", "")), &parameters))
	for jwk, net := range map[string]string{"n": "Modulus", "e": "Exponent", "d": "D", "p": "P", "q": "Q", "dp": "DP", "dq": "DQ", "qi": "InverseQ"} {
		text := standard.Replace(parameters[jwk].(string))
		parameters[net] = text + strings.Repeat("=", -len(text)&3)
		delete(parameters, jwk)
	}
	delete(parameters, "kty")
	unlocked := string(pem.EncodeToMemory(must(ssh.MarshalPrivateKey(edKey, "me@host"))))
	locked := string(pem.EncodeToMemory(must(ssh.MarshalPrivateKeyWithPassphrase(ecKey, "", []byte(password)))))

	for title, tc := range map[string]struct{ content, password, kid, alg string }{
		"key and certificate":                   {pair, "", ofRSA, "RS256"},
		"certificate first":                     {cert + key, "", ofRSA, "RS256"},
		"key alone":                             {key, "", ofRSA, "RS256"},
		"openssl genrsa, PKCS#1":                {inPEM("RSA PRIVATE KEY", pkcs1), "", ofRSA, "RS256"},
		"SEC 1":                                 {inPEM("EC PRIVATE KEY", sec1), "", ofEC, "ES256"},
		"EC parameters":                         {"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + inPEM("EC PRIVATE KEY", sec1), "", ofEC, "ES256"},
		"Ed25519":                               {inPEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey))), "", ofEd, "EdDSA"},
		"the public key too":                    {key + inPEM("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(rsaKey.Public()))), "", ofRSA, "RS256"},
		"for HAProxy":                           {cert + key + inPEM("DH PARAMETERS", []byte{48, 0}), "", ofRSA, "RS256"},
		"key given twice":                       {pair + inPEM("RSA PRIVATE KEY", pkcs1), "", ofRSA, "RS256"},
		"bag attributes":                        {"Bag Attributes\n    localKeyID: 01\nsubject=CN = x\n" + cert + "Bag Attributes\nKey Attributes: <No Attributes>\n" + key, "", ofRSA, "RS256"},
		"UTF-8 mark, CRLF":                      {"\ufeff" + strings.ReplaceAll(pair, "\n", "\r\n"), "", ofRSA, "RS256"},
		"UTF-16":                                {inUTF16(pair, "\xff\xfe", 1), "", ofRSA, "RS256"},
		"UTF-16, the other way":                 {inUTF16(pair, "\xfe\xff", 0), "", ofRSA, "RS256"},
		"line breaks as \\n":                    {"KEY=\"" + nowhere.Replace(pair) + "\"", "", ofRSA, "RS256"},
		"line breaks as spaces":                 {strings.ReplaceAll(pair, "\n", " "), "", ofRSA, "RS256"},
		"old Mac line ends":                     {strings.ReplaceAll(pair, "\n", "\r"), "", ofRSA, "RS256"},
		"indented":                              {"pem: |\n  " + strings.ReplaceAll(pair, "\n", "\n  "), "", ofRSA, "RS256"},
		"JSON around PEM":                       {`{"key":"` + nowhere.Replace(key) + `","crt":"` + nowhere.Replace(cert) + `"}`, "", ofRSA, "RS256"},
		"JSON in JSON":                          {`{"a":"{\"key\":\"` + strings.ReplaceAll(pair, "\n", `\\n`) + `\"}"}`, "", ofRSA, "RS256"},
		"JWK":                                   {inJWK(rsaKey, "K1", "RS256", "sig"), "", ofRSA, "RS256"},
		"JWK for PS256":                         {inJWK(rsaKey, "K1", "PS256", "sig"), "", ofRSA, "PS256"},
		"JWK with its certificate":              {inJWK(rsaKey, "K1", "", "", rsaCert), "", ofRSA, "RS256"},
		"JWK of ECDSA":                          {inJWK(ecKey, ofEC, "", ""), "", ofEC, "ES256"},
		"JWK of Ed25519":                        {inJWK(edKey, "", "EdDSA", ""), "", ofEd, "EdDSA"},
		"JWK of IdentityServer":                 {dotNet, "", ofRSA, "RS256"},
		"tempkey.rsa of IdentityServer4":        {inJSON(map[string]any{"KeyId": "K1", "Parameters": parameters}), "", ofRSA, "RS256"},
		"array of JWKs":                         {"[" + inJWK(ecKey, "", "", "") + "]", "", ofEC, "ES256"},
		"SSH, Ed25519":                          {unlocked, "", ofEd, "EdDSA"},
		"SSH with a password":                   {locked, password, ofEC, "ES256"},
		"encrypted as OpenSSL 0.9 did":          {pasted("ec-old.key"), "changeit", ofE, "ES256"},
		"JWK set":                               {`{"keys":[` + inJWK(rsaKey, "enc", "RSA-OAEP", "enc") + "," + inJWK(ecKey.Public(), "p", "", "") + "," + inJWK(ecKey, "s", "", "") + "," + inJWK(edKey, "t", "", "") + `]}`, "", ofEC, "ES256"},
		"base64 of PEM":                         {b64([]byte(pair)), "", ofRSA, "RS256"},
		"base64 of base64 of PEM":               {b64([]byte(b64([]byte(pair)) + "\n")), "", ofRSA, "RS256"},
		"base64 of DER":                         {b64(pkcs8), "", ofRSA, "RS256"},
		"base64url of a JWK":                    {base64.RawURLEncoding.EncodeToString([]byte(inJWK(ecKey, "", "", ""))), "", ofEC, "ES256"},
		"base64 of PFX":                         {b64([]byte(pfx)), password, ofRSA, "RS256"},
		"DER, PKCS#8":                           {string(pkcs8), "", ofRSA, "RS256"},
		"DER, PKCS#1":                           {string(pkcs1), "", ofRSA, "RS256"},
		"DER, SEC 1":                            {string(sec1), "", ofEC, "ES256"},
		"PFX":                                   {pfx, password, ofRSA, "RS256"},
		"PFX of PBMAC1":                         {string(must(pkcs12.Modern2026.Encode(rsaKey, rsaCert, nil, password))), password, ofRSA, "RS256"},
		"PFX with 3DES":                         {string(must(pkcs12.LegacyDES.Encode(rsaKey, rsaCert, nil, password))), password, ofRSA, "RS256"},
		"PFX with RC2":                          {string(must(pkcs12.LegacyRC2.Encode(rsaKey, rsaCert, nil, "pass\u00e4"))), "pass\u00e4", ofRSA, "RS256"},
		"PFX without a password":                {string(must(pkcs12.Modern2023.Encode(rsaKey, rsaCert, nil, ""))), "x", ofRSA, "RS256"},
		"PFX without encryption":                {string(must(pkcs12.Passwordless.Encode(rsaKey, rsaCert, nil, ""))), "x", ofRSA, "RS256"},
		"PFX of OpenSSL 1.1":                    {pasted("openssl1.p12"), "changeit", ofE, "ES256"},
		"PFX of OpenSSL 3":                      {pasted("openssl3.p12"), "changeit", ofE, "ES256"},
		"PFX without MAC, as FIPS makes it":     {pasted("openssl-nomac.p12"), "changeit", ofE, "ES256"},
		"PFX with a strong MAC":                 {pasted("openssl-sha512.p12"), "changeit", ofE, "ES256"},
		"PFX without a certificate":             {pasted("openssl-keyonly.p12"), "changeit", ofE, "ES256"},
		"PFX of Java with two keys":             {pasted("keytool.p12"), "changeit", ofTwo, "ES256"},
		"PFX of old Java with two keys":         {pasted("keytool-legacy.p12"), "changeit", ofTwo, "ES256"},
		"password with UTF-8 mark and line end": {pasted("openssl3.p12"), "\ufeffchangeit\r\n", ofE, "ES256"},
		"encrypted PKCS#8":                      {pasted("pkcs8.key"), "changeit", ofE, "ES256"},
		"encrypted PKCS#8, PBES1":               {pasted("pkcs8-v1.key"), "changeit", ofE, "ES256"},
		"encrypted PKCS#8 in DER":               {string(derOf(pasted("pkcs8.key"))), "changeit", ofE, "ES256"},
	} {
		t.Run(title, func(t *testing.T) {
			out, set, err := imported(t, filepath.Join(t.TempDir(), "keys.pem"), tc.password, tc.content)
			if err != nil {
				t.Fatal(err)
			}
			signing, early := set.Signing(time.Now())
			if signing == nil || early || signing.ID != tc.kid || signing.Alg.Name != tc.alg {
				t.Fatalf("%+v signs, not %s\n%s", signing, tc.kid, out)
			}
			for line := range strings.Lines(tc.content) {
				if line = strings.TrimSpace(line); len(line) > 30 && !strings.HasPrefix(line, "-----") && strings.Contains(out, line) {
					t.Errorf("the output shows key material")
				}
			}
		})
	}
}

func derOf(text string) []byte {
	block, _ := pem.Decode([]byte(text))
	return block.Bytes
}

// TestImportNamesTheForm: what import cannot read is named, with the command that converts
// it, and the store stays as it is.
func TestImportNamesTheForm(t *testing.T) {
	ecKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, otherCert := certificate("other", nil, nil, time.Now(), time.Now().AddDate(1, 0, 0))
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	var mixed map[string]any
	check(json.Unmarshal([]byte(inJWK(ecKey, "", "", "")), &mixed))
	foreign := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	mixed["d"] = base64.RawURLEncoding.EncodeToString(must(foreign.Bytes()))
	lockedSSH := string(pem.EncodeToMemory(must(ssh.MarshalPrivateKeyWithPassphrase(ecKey, "", []byte("changeit")))))
	rsaKey, _ := certificate("mine", nil, nil, time.Now(), time.Now().AddDate(1, 0, 0))
	var noPrimes map[string]any
	check(json.Unmarshal([]byte(inJWK(rsaKey, "", "", "")), &noPrimes))
	for _, name := range []string{"p", "q", "dp", "dq", "qi"} {
		delete(noPrimes, name)
	}
	for title, tc := range map[string]struct{ content, password, want string }{
		"PKCS#7":                         {pasted("e.p7b"), "", "a .p7b (PKCS#7), which holds no private key; take its certificates out with `openssl pkcs7 -print_certs"},
		"PKCS#7 in DER":                  {pasted("e.der.p7b"), "", "a .p7b (PKCS#7)"},
		"base64 of PKCS#7":               {base64.StdEncoding.EncodeToString([]byte(pasted("e.der.p7b"))), "", "a .p7b (PKCS#7)"},
		"JKS":                            {pasted("keystore.jks"), "changeit", "keytool -importkeystore"},
		"RSA-PSS":                        {pasted("rsa-pss.key"), "", "an RSA-PSS key (id-RSASSA-PSS); turn it into a plain RSA key with `openssl rsa"},
		"RSA-PSS and its certificate":    {pasted("rsa-pss.crt") + pasted("rsa-pss.key"), "", "RSA-PSS"},
		"negative serial":                {pasted("negative.crt"), "", "a certificate with a negative serial number"},
		"negative serial in a PFX":       {pasted("negative.p12"), "changeit", "openssl pkcs12 -in FILE -nocerts -nodes"},
		"certificate request":            {pasted("e.csr"), "", "a certificate request"},
		"SSH":                            {inPEM("OPENSSH PRIVATE KEY", []byte("openssh-key-v1\x00")), "", "an SSH key (OPENSSH PRIVATE KEY), damaged"},
		"SSH, password":                  {lockedSSH, "wrong", "the password is wrong"},
		"SSH public key":                 {"ssh-rsa AAAAB3NzaC1yc2E me@host\n", "", "an SSH public key"},
		"old encryption, password":       {pasted("ec-old.key"), "wrong", "the password is wrong"},
		"JWK without primes":             {inJSON(noPrimes), "", "an RSA JWK without its primes (p and q)"},
		"Kubernetes":                     {`{"apiVersion":"v1","data":{"tls.key":"LS0t"},"kind":"Secret"}`, "", "kubectl get secret NAME -o jsonpath"},
		"hexadecimal":                    {hex.EncodeToString(must(x509.MarshalPKCS8PrivateKey(ecKey))), "", "this is hexadecimal; convert it with `xxd -r -p"},
		"P-521":                          {inPEM("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))))), "", "P-521"},
		"certificate alone":              {inPEM("CERTIFICATE", otherCert.Raw), "", "cannot sign, so it is not imported"},
		"encrypted PKCS#8, 3DES":         {pasted("pkcs8-des3.key"), "changeit", "openssl pkey -in FILE"},
		"encrypted PKCS#8, scrypt":       {pasted("pkcs8-scrypt.key"), "changeit", "openssl pkey -in FILE"},
		"encrypted PKCS#8, password":     {pasted("pkcs8.key"), "wrong", "the password is wrong"},
		"PFX, password":                  {pasted("openssl3.p12"), "wrong", "the password is wrong"},
		"PFX without MAC, password":      {pasted("openssl-nomac.p12"), "wrong", "the password is wrong"},
		"PFX cut off":                    {pasted("openssl3.p12")[:500], "changeit", "a PFX (PKCS#12), damaged"},
		"public key":                     {inPEM("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(ecKey.Public()))), "", "add it to Config.Former of all servers, as Key, with its KeyID"},
		"public JWK set":                 {`{"keys":[` + inJWK(ecKey.Public(), "k", "", "") + `]}`, "", "add it to Config.Former of all servers, as Key, with its KeyID"},
		"JWK for encryption":             {inJWK(ecKey, "k", "", "enc"), "", "or one for encryption, cannot sign"},
		"JWK with another's public half": {inJSON(mixed), "", "does not match the public key next to it"},
		"damaged JWK":                    {`{"kty":"RSA","n":"AQAB","d":"x","p":"x"}`, "", "a JSON Web Key, or a set of them, damaged or of a kind that cannot sign tokens"},
		"other JSON":                     {`{"a":1}`, "", "this is JSON; take the PEM"},
		"half of JSON":                   {`{"kty":`, "", "a JSON Web Key, or a set of them, damaged"},
		"weak RSA":                       {inPEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(weak))), "", "the RSA key has 1024 bits"},
		"key beside another certificate": {inPEM("CERTIFICATE", otherCert.Raw) + inPEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ecKey))), "", "a private key without its certificate"},
		"garbage":                        {"hello", "", "not a key or certificate in a format"},
		"empty":                          {"", "", "empty"},
		"token":                          {"eyJhbGciOiJSUzI1NiJ9.e30.AAAA", "", "not a key or certificate in a format"},
		"too large":                      {strings.Repeat("A", maxFile+1), "", "more than 262144 bytes"},
	} {
		t.Run(title, func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "keys.pem")
			_, _, err := imported(t, store, tc.password, tc.content)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), `pasted": `) {
				t.Errorf("got %v, want %s, and the file's name", err, tc.want)
			}
			if _, err := os.Stat(store); err == nil {
				t.Error("the store was made")
			}
		})
	}
}

// TestConversions: the commands that import names for two forms work.
func TestConversions(t *testing.T) {
	if missing, err := condition("missing:openssl"); err != nil {
		t.Fatal(err)
	} else if missing {
		t.Skip("skipped: openssl is missing: apt-get install openssl")
	}
	explicit := filepath.Join(t.TempDir(), "explicit.key")
	openssl := func(args string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "openssl", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	openssl("ecparam -name prime256v1 -genkey -param_enc explicit -out " + explicit)
	for file, command := range map[string]string{
		"testdata/pasted/rsa-pss.key": "openssl rsa -in FILE -traditional -outform DER -out NEW.der",
		explicit:                      "openssl ec -in FILE -param_enc named_curve -out NEW.key",
	} {
		store, converted := filepath.Join(t.TempDir(), "keys.pem"), filepath.Join(t.TempDir(), "new")
		if _, _, err := imported(t, store, "", string(must(os.ReadFile(file)))); err == nil || !strings.Contains(err.Error(), "`"+command+"`") {
			t.Errorf("%s: got %v, want %s", file, err, command)
		}
		openssl(strings.NewReplacer("openssl ", "", "FILE", file, "NEW.der", converted, "NEW.key", converted).Replace(command))
		if _, set, err := imported(t, store, "", string(must(os.ReadFile(converted)))); err != nil || len(set.Keys) != 1 {
			t.Error(file, set, err)
		}
	}
}

// TestImportFormer: what import says of Config.Former fits the algorithm of the old tokens.
func TestImportFormer(t *testing.T) {
	private, _ := certificate("mine", nil, nil, time.Now(), time.Now().AddDate(1, 0, 0))
	for alg, want := range map[string]string{
		"RS256":   `{Key: publicKey, KeyID: "old", Issuer: `,
		"PS256":   `{Certificate: certificate, KeyID: "old", Issuer: `,
		"RS512":   `is for "RS512", which fleetkey does not verify`,
		"\x1b[2J": `is for "\x1b[2J", which`,
	} {
		out, _, err := imported(t, filepath.Join(t.TempDir(), "keys.pem"), "", inJWK(private, "old", alg, "sig"))
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v; the output lacks %s:\n%s", alg, err, want, out)
		}
	}
}

// TestImportIterations: a file cannot make import derive keys from a password for hours.
func TestImportIterations(t *testing.T) {
	key, cert := certificate("slow", nil, nil, time.Now(), time.Now().AddDate(1, 0, 0))
	for name, encoder := range map[string]*pkcs12.Encoder{"3DES": pkcs12.LegacyDES, "PBES2": pkcs12.Modern2023, "PBMAC1": pkcs12.Modern2026} {
		sound := string(must(encoder.WithIterations(70_000).Encode(key, cert, nil, password)))
		if n := iterations([]byte(sound), 0); n != 210_000 { // of certificate, key and MAC
			t.Errorf("%s: %d iterations are counted", name, n)
		}
		for _, bomb := range []string{"\x02\x03\x7f\xff\xff", "\x02\x03\x0f\xff\xff"} { // 8 million, and 3 times a million
			file := strings.ReplaceAll(sound, "\x02\x03\x01\x11\x70", bomb)
			start := time.Now()
			_, _, err := imported(t, filepath.Join(t.TempDir(), "keys.pem"), password, file)
			if err == nil || !strings.Contains(err.Error(), "more than 2000000 iterations") || time.Since(start) > 10*time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		}
	}
	huge := marshal([]any{[]byte("salt"), new(big.Int).Lsh(big.NewInt(1), 100)})
	if n := iterations(huge, 0); n <= maxIterations {
		t.Errorf("%d iterations are counted for 2^100", n)
	}
}

// TestImportExpired: IdentityServer signs with a certificate that has ended, so its key may
// sign on, with another certificate, if no other can.
func TestImportExpired(t *testing.T) {
	begin := time.Now().AddDate(-2, 0, 0)
	private, ended := certificate("ended", nil, nil, begin, begin.AddDate(1, 0, 0))
	pair := inPEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private))) + inPEM("CERTIFICATE", ended.Raw)
	store := filepath.Join(t.TempDir(), "keys.pem")
	out, set, err := imported(t, store, "", pair)
	if err != nil {
		t.Fatal(err)
	}
	k, _ := set.Signing(time.Now())
	if k == nil || k.ID != jws.Thumbprint(private.Public()) || k.Cert.Subject.CommonName != "ended" || time.Until(k.Cert.NotAfter) < 9*365*24*time.Hour {
		t.Fatalf("%+v signs\n%s", k, out)
	}
	for _, want := range []string{"expired at " + stamp(ended.NotAfter), "Created a certificate for ", "Until: "} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if again, after, err := imported(t, store, "", pair); err != nil || !strings.Contains(again, "Nothing was changed") || len(after.Keys) != 1 {
		t.Errorf("a second import: %v\n%s", err, again)
	}

	// Beside a key that signs it has retired.
	store = filepath.Join(t.TempDir(), "keys.pem")
	check(signerAt(fleetkey.NewFileStore(store), time.Now()).Close())
	if out, set, err = imported(t, store, "", pair); err != nil || len(set.Retired) != 1 || len(set.Keys) != 1 {
		t.Errorf("beside another: %v %+v\n%s", err, set, out)
	}
}

// TestImportRenewed: a certificate that was renewed for the same key takes the place of the
// old one, so that a fleet need not stop when the old one ends.
func TestImportRenewed(t *testing.T) {
	begin := time.Now().AddDate(0, -11, 0)
	private, old := certificate("old", nil, nil, begin, begin.AddDate(1, 0, 0))
	key := inPEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private)))
	template := &x509.Certificate{Subject: old.Subject, NotBefore: time.Now().AddDate(0, 0, -1)}
	renewed := must(certify(private, template))
	store := filepath.Join(t.TempDir(), "keys.pem")
	if _, _, err := imported(t, store, "", key+inPEM("CERTIFICATE", old.Raw)); err != nil {
		t.Fatal(err)
	}
	out, set, err := imported(t, store, "", key+inPEM("CERTIFICATE", renewed.Raw))
	if err != nil || len(set.Keys) != 1 || !set.Keys[0].Cert.Equal(renewed) || !strings.Contains(out, "now has a newer certificate, which ends at "+stamp(renewed.NotAfter)) {
		t.Errorf("%v\n%s", err, out)
	}
	if out, set, err = imported(t, store, "", key+inPEM("CERTIFICATE", old.Raw)); err != nil || !set.Keys[0].Cert.Equal(renewed) || !strings.Contains(out, "Nothing was changed") {
		t.Errorf("the old one again: %v\n%s", err, out)
	}
}

// TestImportTakesOver: a key without a certificate is to sign, also where a key signs whose
// certificate is from today; that one has retired, so that its tokens stay good.
func TestImportTakesOver(t *testing.T) {
	store := filepath.Join(t.TempDir(), "keys.pem")
	check(signerAt(fleetkey.NewFileStore(store), time.Now().Add(-time.Hour)).Close())
	before := must(keyset.Parse(must(os.ReadFile(store)))).Keys[0]
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	jwk := inJWK(edKey, "of-hydra", "", "")
	out, set, err := imported(t, store, "", jwk)
	if err != nil {
		t.Fatal(err)
	}
	if k, _ := set.Signing(time.Now()); k == nil || k.ID != jws.Thumbprint(edKey.Public()) || len(set.Retired) != 1 || set.Retired[0].ID != before.ID {
		t.Errorf("%+v signs\n%s", k, out)
	}
	if !strings.Contains(out, `{Key: publicKey, KeyID: "of-hydra", Issuer: "https://OLD-ISSUER"}`) {
		t.Errorf("the output does not say what to put into Config.Former:\n%s", out)
	}
	if out, _, err = imported(t, store, "", jwk); err != nil || !strings.Contains(out, "Nothing was changed") {
		t.Errorf("again: %v\n%s", err, out)
	}
	// Also where both begin in the same second, which is all that certificates tell.
	late := before.Cert.NotBefore.Add(24*time.Hour + 900*time.Millisecond)
	if made := must(freshKeys([]broughtKey{{Signer: edKey}}, []*keyset.Key{before}, late)); !made[0].Cert.NotBefore.After(before.Cert.NotBefore) {
		t.Errorf("begins at %s, as the key before it does", made[0].Cert.NotBefore)
	}
}

// TestForeignCertificates: a certificate whose key cannot sign tokens is an error where one
// is read, and beside a key that can it is left out.
func TestForeignCertificates(t *testing.T) {
	weak := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	odd := must(certify(weak, &x509.Certificate{NotBefore: time.Now()}))
	path := filepath.Join(t.TempDir(), "odd.crt")
	write(path, odd.Raw)
	store := filepath.Join(t.TempDir(), "keys.pem")
	check(signerAt(fleetkey.NewFileStore(store), time.Now()).Close())
	a := &app{ctx: t.Context(), stdin: os.Stdin, stdout: io.Discard, stderr: io.Discard, log: slog.New(slog.DiscardHandler), timeout: time.Minute}
	if err := (&revokeCmd{Certificate: path, storeFlags: storeFlags{File: store}}).Run(a); err == nil || !strings.Contains(err.Error(), "P-224") {
		t.Errorf("got %v", err)
	}
	private, cert := certificate("mine", nil, nil, time.Now().AddDate(0, 0, -1), time.Now().AddDate(1, 0, 0))
	pair := inPEM("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private))) + inPEM("CERTIFICATE", cert.Raw)
	if out, _, err := imported(t, filepath.Join(t.TempDir(), "keys.pem"), "", pair+inPEM("CERTIFICATE", odd.Raw)); err != nil || !strings.Contains(out, "Skipped") {
		t.Errorf("%v\n%s", err, out)
	}
}
