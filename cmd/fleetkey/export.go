package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/fleetkey/fleetkey"
)

// exportCmd writes the content of a store, only to new files.
type exportCmd struct {
	storeFlags
	policyFlags
	PublicKey   bool   `xor:"what" help:"Write public keys (PUBLIC KEY), for HAProxy or PyJWT, instead of certificates."`
	JWKS        bool   `name:"jwks" xor:"what" help:"Write a JSON Web Key Set, for nginx."`
	PrivateKeys bool   `xor:"what" help:"Write the whole bundle, including private keys, to a new file (--out) with mode 0600."`
	Out         string `short:"o" xor:"where" type:"path" predictor:"file" placeholder:"PATH" help:"New file to write; default: standard output."`
	Dir         string `xor:"where" type:"path" predictor:"file" placeholder:"PATH" help:"New directory to create, with one file per key: KID.pem."`
}

func (c *exportCmd) Run(a *app) error {
	switch {
	case c.PrivateKeys && c.Out == "":
		return usageError("--private-keys requires --out: private keys are not printed")
	case c.JWKS && c.Dir != "":
		return usageError("--jwks writes all keys to one file: give --out instead of --dir")
	}
	l, err := c.load(a, false)
	if err != nil {
		return err
	}
	signer, err := fleetkey.NewSigner(a.ctx, l, c.config(a))
	if err != nil {
		return err
	}
	defer func() { _ = signer.Close() }()
	keys, out := signer.PublicKeys(), result{Status: signer.Status()}
	out.Status.Keys = slices.DeleteFunc(out.Status.Keys, func(k fleetkey.KeyInfo) bool {
		return !slices.ContainsFunc(keys, func(public fleetkey.PublicKey) bool { return public.KeyID == k.KeyID })
	})
	text, err := c.encode(keys)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", l.name, err)
	case c.Dir != "":
		out.Files, err = c.writeEach(keys)
	case c.PrivateKeys:
		err = writeNew(c.Out, l.bundle, 0o600)
	case c.Out != "":
		err = writeNew(c.Out, text, 0o644)
	case c.JWKS && a.json: // it is JSON
		a.printf("%s", text)
		return nil
	default:
		out.PEM = string(text)
	}
	if err != nil {
		return err
	}
	if c.Out != "" {
		out.Files = []string{c.Out}
	}
	if c.PrivateKeys {
		a.note("%s now contains the PRIVATE KEYS of %s. Anyone who reads it can sign tokens: delete it after use.", oneLine(c.Out), l.name)
	}
	return a.show(out, func() { a.printf("%s", out.PEM) })
}

// encode returns keys as text, each after a comment line as openssl writes it. A retired
// key has no certificate, so its public key is written.
func (c *exportCmd) encode(keys []fleetkey.PublicKey) ([]byte, error) {
	var all bytes.Buffer
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Key, KeyID: k.KeyID, Algorithm: k.Algorithm, Use: "sig"})
		block := &pem.Block{Type: "PUBLIC KEY"}
		if k.Certificate != nil && !c.PublicKey {
			block.Type, block.Bytes = "CERTIFICATE", k.Certificate.Raw
		} else {
			var err error
			if block.Bytes, err = x509.MarshalPKIXPublicKey(k.Key); err != nil {
				return nil, fmt.Errorf("encode the public key of %s: %w", k.KeyID, err)
			}
		}
		fmt.Fprintf(&all, "kid=%s alg=%s\n%s", k.KeyID, k.Algorithm, pem.EncodeToMemory(block))
	}
	if c.JWKS {
		text, err := json.MarshalIndent(set, "", "  ")
		return append(text, '\n'), err
	}
	return all.Bytes(), nil
}

// writeEach creates a directory with one file per key, and returns their paths.
func (c *exportCmd) writeEach(keys []fleetkey.PublicKey) (files []string, err error) {
	if err := os.Mkdir(c.Dir, 0o755); errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%q exists already; choose another name, or remove it", c.Dir)
	} else if err != nil {
		return nil, err
	}
	for i, k := range keys {
		files = append(files, filepath.Join(c.Dir, k.KeyID+".pem"))
		text, err := c.encode(keys[i : i+1])
		if err == nil {
			err = writeNew(files[i], text, 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// writeNew writes a file that must not exist, completely or not at all.
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
