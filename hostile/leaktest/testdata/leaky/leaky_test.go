// Package leaky has tests that pass and print private keys: leaktest has to find
// each of them.
package leaky

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
)

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func inDER(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return der
}

func TestLog(t *testing.T) { t.Logf("%v", newKey().D) }

func TestStruct(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", key)
}

func TestRead(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	read, err := x509.ParsePKCS8PrivateKey(inDER(key))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%x\n", read)
}

func TestPEM(t *testing.T) {
	fmt.Fprintf(os.Stderr, "%s", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: inDER(newKey())}))
}

func TestHalfLine(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(newKey().D.Bytes())
	t.Run("sub", func(t *testing.T) { t.Log(text[:len(text)*2/3]) })
}

func TestBytes(t *testing.T)   { t.Log(newKey().D.Bytes()) }
func TestDefault(t *testing.T) { slog.Info("x", "key", newKey().D) }

func TestDiscarded(t *testing.T) {
	slog.New(slog.DiscardHandler).Debug("x", "key", newKey().D)
}

func TestAttrs(t *testing.T) {
	slog.New(slog.DiscardHandler).LogAttrs(t.Context(), slog.LevelDebug, "x", slog.Any("key", newKey().D))
}

func TestWith(t *testing.T) { _ = slog.New(slog.DiscardHandler).With("key", newKey().D) }

func TestError(t *testing.T) {
	if check(newKey().D) == nil {
		t.Fatal("no error")
	}
}

// TestChild keeps to itself what a process prints that knows nothing of the
// environment of its parent.
func TestChild(t *testing.T) {
	if os.Getenv("CHILD") != "" {
		fmt.Printf("%x\n", newKey().D)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestChild$")
	child.Env = []string{"CHILD=1"}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v of %d bytes", err, len(out))
	}
}

// TestMadeUp prints a key that no process has.
func TestMadeUp(t *testing.T) {
	t.Log(`{"kty":"OKP","d":"` + base64.RawURLEncoding.EncodeToString([]byte(rand.Text() + rand.Text())[:32]) + `"}`)
}
