package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// The fuzz targets cover input from outside: files of other systems, and tokens that someone
// complains about.

// exampleStore returns a file store with one key for ES256.
func exampleStore(f *testing.F) (path string, bundle []byte) {
	path = filepath.Join(f.TempDir(), "keys.pem")
	s := must(fleetkey.NewSigner(f.Context(), fleetkey.NewFileStore(path), fleetkey.Config{Issuer: issuer, Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)}))
	check(s.Close())
	return path, must(os.ReadFile(path))
}

// FuzzImport: the keys that import reads from a file can be written and read again, each
// private key has its own certificate, and no file takes long.
func FuzzImport(f *testing.F) {
	_, bundle := exampleStore(f)
	keyBlock, rest := pem.Decode(bundle)
	certificate := string(bytes.TrimSpace(rest))
	key := must(x509.ParsePKCS8PrivateKey(keyBlock.Bytes)).(*ecdsa.PrivateKey)
	cert := must(x509.ParseCertificate(derOf(certificate)))
	ecKey := inPEM("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
	const revoked = "-----BEGIN REVOKED KEY-----\nKid: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END REVOKED KEY-----\n"
	for _, seed := range []string{
		string(bundle), certificate, certificate + "\n" + ecKey, "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + ecKey + certificate,
		string(bundle) + revoked, strings.Replace(certificate, "-----\n", "-----\nKid: -----BEGIN x\n\n", 1), ecKey, string(bundle[:len(bundle)/2]),
		strings.Replace(ecKey, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1), "-----BEGIN -----BEGIN -----END ", "Bag Attributes\n    friendlyName: x\n" + certificate, "",
		string(keyBlock.Bytes), base64.StdEncoding.EncodeToString(bundle), inUTF16(ecKey), strings.ReplaceAll(string(bundle), "\n", `\n`), strings.ReplaceAll(string(bundle), "\n", " "),
		inJWK(key, "k", "ES256", "sig", cert), `{"Keys":[` + inJWK(key, "", "", "enc") + `,{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"},null]}`, `{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQ","p":"AQ","q":"AQ"}`,
		string(must(pkcs12.Modern2026.WithIterations(1).Encode(key, cert, nil, password))), string(must(pkcs12.LegacyRC2.WithIterations(1).Encode(key, cert, nil, ""))),
		string(must(pkcs12.Passwordless.Encode(key, cert, []*x509.Certificate{cert}, ""))), pasted("keytool.p12"), pasted("openssl-nomac.p12"), string(derOf(pasted("pkcs8-v1.key"))), pasted("negative.crt"), pasted("e.der.p7b"), pasted("rsa-pss.key"),
	} {
		f.Add([]byte(seed))
	}
	quiet := &app{stderr: io.Discard}
	f.Fuzz(func(t *testing.T, text []byte) {
		begin := time.Now()
		files := brought{password: func() (string, error) { return password, nil }}
		err := files.data(text)
		require.Less(t, time.Since(begin), 20*time.Second)
		if err != nil {
			return
		}
		set, bare, _, err := files.set()
		if err == nil {
			set, _, err = quiet.certify(&keyset.Set{}, set, bare, time.Now())
		}
		if err != nil {
			return
		}
		written, err := encode(merge(&keyset.Set{}, set, time.Now(), time.Hour))
		if err != nil { // such as a certificate whose own signature is broken
			return
		}
		again, err := keyset.Parse(written)
		require.NoError(t, err)
		for _, k := range set.Keys {
			require.True(t, again.Mentions(k.ID), "key %s is lost", k.ID)
			require.Equal(t, k.Private.Public(), k.Cert.PublicKey, "key %s has the certificate of another key", k.ID)
		}
	})
}

// FuzzVerifyToken: verify reports a result for any token. The content of a token can neither
// fool the terminal nor make the command panic.
func FuzzVerifyToken(f *testing.F) {
	path, _ := exampleStore(f)
	b64 := base64.RawURLEncoding.EncodeToString
	for _, seed := range [][2]string{
		{`{"alg":"ES256","kid":"x","typ":"at+jwt"}`, `{"iss":"https://id.example.com","aud":"x","iat":1777636800}`},
		{`{"alg":"none","kid":"\u001b[2J","typ":"at+jwt"}`, `{"iss":"https://\u001b[31m","aud":["x",""],"iat":1e300}`},
		{`{"kid":1}`, `{"iss":"http:///x","aud":[1],"iat":-1}`}, {"", ""}, {"{", `{"iss":"https://a/%zz","aud":null}`}, {`{}`, `{"iss":"https://a:b@c/d","aud":["a","a"]}`},
	} {
		f.Add(seed[0], seed[1], ".AAAA")
	}
	f.Fuzz(func(t *testing.T, header, payload, rest string) {
		token := b64([]byte(header)) + "." + b64([]byte(payload)) + rest
		var out bytes.Buffer
		a := &app{ctx: t.Context(), stdout: &out, stderr: io.Discard, log: slog.New(slog.DiscardHandler), timeout: time.Minute}
		require.ErrorIs(t, (&verifyCmd{Token: token, storeFlags: storeFlags{File: path}}).Run(a), errWrong, "no key has signed it")
		require.True(t, isPrintable(out.String()), "%q", &out)
	})
}
