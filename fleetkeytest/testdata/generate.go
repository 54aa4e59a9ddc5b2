// Generate writes the key files beside it, which NewSigner embeds. They are
// published, so making them again is never needed for secrecy; it is here to
// show that nothing is odd about them.
//
//	go run generate.go
package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"time"
)

const warning = `This key is published with the source of fleetkey, for unit tests.
Everybody has it: whoever trusts it trusts everybody. Never use it outside tests.
`

func main() {
	for name, k := range map[string]struct {
		signature x509.SignatureAlgorithm
		key       func() (crypto.Signer, error)
	}{
		"RS256": {x509.SHA256WithRSA, newRSA},
		"PS256": {x509.SHA256WithRSAPSS, newRSA},
		"ES256": {x509.ECDSAWithSHA256, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
		"ES384": {x509.ECDSAWithSHA384, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }},
		"EdDSA": {x509.PureEd25519, func() (crypto.Signer, error) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			return key, err
		}},
	} {
		key, err := k.key()
		if err == nil {
			err = write(name, k.signature, key)
		}
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
	}
}

func newRSA() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }

func write(name string, signature x509.SignatureAlgorithm, key crypto.Signer) error {
	cert := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "PUBLIC TEST KEY " + name + ", NOT SECRET"},
		NotBefore:             time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		SignatureAlgorithm:    signature,
		BasicConstraintsValid: true,
	}
	certDER, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	fmt.Fprint(&out, warning)
	_ = pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}) // a Buffer takes everything
	_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: certDER})
	return os.WriteFile(name+".pem", out.Bytes(), 0o644)
}
