package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/fleetkey/fleetkey"
)

// exportCmd writes out what a store holds.
type exportCmd struct {
	storeFlags
	Out         string `short:"o" type:"path" predictor:"file" placeholder:"PATH" help:"A new file to write; default: standard output."`
	PrivateKeys bool   `help:"Write the whole bundle, private keys included, to the new file of --out, with mode 0600."`
}

// Run is called by kong.
func (c *exportCmd) Run(a *app) error {
	if c.PrivateKeys && c.Out == "" {
		return usageError("--private-keys needs --out: private keys are not printed")
	}
	l, err := c.load(a)
	if err != nil {
		return err
	}
	signer, err := fleetkey.NewSigner(a.ctx, l, fleetkey.Config{Issuer: noIssuer, Logger: a.log})
	if err != nil {
		return err
	}
	defer func() { _ = signer.Close() }()
	if c.PrivateKeys {
		if err := writeNew(c.Out, l.bundle, 0o600); err != nil {
			return err
		}
		a.note("%s now holds the PRIVATE KEYS of %s. Whoever reads it can sign tokens: delete it when it has served.", oneLine(c.Out), l.name)
		return nil
	}
	text, err := certificates(signer.PublicKeys())
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	if c.Out != "" {
		return writeNew(c.Out, text, 0o644)
	}
	_, err = a.stdout.Write(text)
	return err
}

// certificates writes a line of comment before each, as openssl does. A retired key has no
// certificate any more: then it is the public key.
func certificates(keys []fleetkey.PublicKey) ([]byte, error) {
	var out bytes.Buffer
	for _, k := range keys {
		block := &pem.Block{Type: "PUBLIC KEY"}
		if k.Certificate != nil {
			block.Type, block.Bytes = "CERTIFICATE", k.Certificate.Raw
		} else {
			var err error
			if block.Bytes, err = x509.MarshalPKIXPublicKey(k.Key); err != nil {
				return nil, fmt.Errorf("encode the public key of %s: %w", k.KeyID, err)
			}
		}
		fmt.Fprintf(&out, "kid=%s alg=%s\n", k.KeyID, k.Algorithm)
		if err := pem.Encode(&out, block); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// writeNew writes a file that must not exist, whole or not at all.
func writeNew(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%q exists already; choose another name, or remove it", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}
