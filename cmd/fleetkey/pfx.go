package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// This file reads PFX, which is PKCS#12 (RFC 7292), as Windows' certificate
// store and openssl write it, with old encryption or new.

// passwordEnv is where the PFX's password may be. It is never an argument: the
// arguments of a process are open to everyone on the machine.
const passwordEnv = "FLEETKEY_PFX_PASSWORD"

// readInput returns what is in a file to be imported: PEM, a PFX, or a bare
// certificate (DER, as .cer files are). It reports whether it was a PFX.
func (c *importCmd) readInput(a *app, path string) (entries []entry, keyOnly []byte, pfx bool, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, false, err
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		return nil, data, false, nil
	}
	if cert, err := x509.ParseCertificate(data); err == nil {
		e := entry{cert: cert}
		e.kid = e.thumbprint()
		return []entry{e}, nil, false, nil
	}
	entries, err = c.readPFX(a, path, data)
	if err != nil {
		return nil, nil, false, fmt.Errorf("%s: %w", path, err)
	}
	return entries, nil, true, nil
}

func (c *importCmd) readPFX(a *app, path string, data []byte) ([]entry, error) {
	password, err := c.password(a, path, data)
	if err != nil {
		return nil, err
	}
	key, first, others, err := pkcs12.DecodeChain(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return nil, errors.New("the password is wrong")
	case err != nil:
		return nil, fmt.Errorf("neither PEM, nor a certificate, nor a PFX with one private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private keys of type %T cannot sign", key)
	}
	// The order of the certificates is up to who wrote the file.
	for _, cert := range append([]*x509.Certificate{first}, others...) {
		e := entry{cert: cert}
		e.kid = e.thumbprint()
		if one := []entry{e}; give(one, signer) == nil {
			if len(others) > 0 {
				a.note("Left out %d certificates of the chain: every certificate in a store is trusted to sign tokens.", len(others))
			}
			return one, nil
		}
	}
	return nil, errors.New("no certificate in it belongs to the private key")
}

// password finds the PFX's password: in a file, in the environment, or by
// asking, unless it turns out to be empty.
func (c *importCmd) password(a *app, path string, data []byte) (string, error) {
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		return strings.TrimRight(string(text), "\r\n"), err
	}
	if password, ok := os.LookupEnv(passwordEnv); ok {
		return password, nil
	}
	if _, _, _, err := pkcs12.DecodeChain(data, ""); !errors.Is(err, pkcs12.ErrIncorrectPassword) && !errors.Is(err, pkcs12.ErrDecryption) {
		return "", nil
	}
	password, err := a.readSecret("Password of " + path + ": ")
	if err != nil {
		return "", fmt.Errorf("it needs a password: give --password-file, or set %s: %w", passwordEnv, err)
	}
	return password, nil
}
