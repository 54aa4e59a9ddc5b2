// Package clean has tests that print a lot, but no private key.
package clean

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
)

func TestClean(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v %+v %#v", key.Public(), key.PublicKey, key.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	digest := sha256.Sum256(der)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	t.Log(signature, err)
	_ = fmt.Errorf("a test may make an error of %v", key.D)
}

func TestRSA(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v %+v %x", key.Public(), key.PublicKey, key.N)
}
