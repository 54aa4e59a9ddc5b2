package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// This file reads the keys and certificates that other programs write: PEM, DER, and
// PFX, which is PKCS#12 (RFC 7292), with old encryption or new.

// passwordEnv is where the PFX's password may be. It is never an argument: the
// arguments of a process are open to everyone on the machine.
const passwordEnv = "FLEETKEY_PFX_PASSWORD"

// Brought is what files hold, in any order.
type brought struct {
	keys         []crypto.Signer
	certificates []*x509.Certificate
	state        bytes.Buffer // RETIRED KEY and REVOKED KEY blocks of another bundle
}

// read adds what a file holds. Without a way to get a password, it cannot be a PFX.
func (b *brought) read(path string, password func() (string, error)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	cert, certErr := x509.ParseCertificate(data)
	switch {
	case bytes.Contains(data, []byte("-----BEGIN ")):
		err = b.pem(data)
	case certErr == nil: // a .cer file
		b.certificates = append(b.certificates, cert)
	case password == nil:
		err = errors.New("not a certificate")
	default:
		err = b.pfx(data, password)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

func (b *brought) pem(text []byte) error {
	frames, n := bytes.Count(text, []byte("-----BEGIN ")), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		n++
		if err := b.block(block); err != nil {
			return fmt.Errorf("PEM block %d: %w", n, err)
		}
	}
	if n != frames { // pem.Decode skips what it cannot read
		return fmt.Errorf("damaged: %d PEM blocks begin, and %d are whole", frames, n)
	}
	return nil
}

func (b *brought) block(block *pem.Block) error {
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return errors.New("the private key is encrypted: decrypt it with `openssl pkey -in FILE -out NEW`, or import a PFX")
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		key, err := parseKey(block.Bytes)
		b.keys = append(b.keys, key)
		return err
	case block.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		b.certificates = append(b.certificates, cert)
		return err
	case block.Type == "RETIRED KEY", block.Type == "REVOKED KEY":
		return pem.Encode(&b.state, block)
	case block.Type == "PUBLIC KEY":
		return errors.New("a public key cannot sign: put it into Config.Former of all servers, as Key, with its KeyID")
	case block.Type == "EC PARAMETERS": // openssl writes them before the key
		return nil
	}
	return fmt.Errorf("%s is neither a certificate nor a private key", jws.Quote(block.Type))
}

// parseKey leaves out the causes of its errors: they could quote what they
// could not read.
func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("not a private key that can sign, in PKCS#8, PKCS#1 or SEC 1")
}

// pfx asks for the password unless it is empty.
func (b *brought) pfx(data []byte, password func() (string, error)) error {
	key, first, others, err := pkcs12.DecodeChain(data, "")
	if isWrongPassword(err) {
		var secret string
		if secret, err = password(); err != nil {
			return err
		}
		key, first, others, err = pkcs12.DecodeChain(data, secret)
	}
	switch {
	case isWrongPassword(err):
		return errors.New("the password is wrong")
	case err != nil:
		return fmt.Errorf("neither PEM, nor a certificate, nor a PFX with one private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("private keys of type %T cannot sign", key)
	}
	b.keys, b.certificates = append(b.keys, signer), append(append(b.certificates, first), others...)
	return nil
}

func isWrongPassword(err error) bool {
	return errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption)
}

// set returns the keys with their certificates, and the certificates left over. Of the
// certificates of one key, the one that ends last is taken.
func (b *brought) set() (*keyset.Set, []*x509.Certificate, error) {
	var keys []*keyset.Key
	rest := slices.SortedStableFunc(slices.Values(b.certificates), func(a, b *x509.Certificate) int { return b.NotAfter.Compare(a.NotAfter) })
	for _, private := range b.keys {
		public, _ := private.Public().(interface{ Equal(crypto.PublicKey) bool })
		i := slices.IndexFunc(rest, func(cert *x509.Certificate) bool { return public != nil && public.Equal(cert.PublicKey) })
		if i < 0 {
			return nil, nil, errors.New("a private key without its certificate, or given twice " +
				"(`openssl req -x509 -key FILE -subj /CN=NAME -days 3650` makes a certificate for a key that has none)")
		}
		k, err := keyset.NewKey(rest[i], private)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", jws.Quote(rest[i].Subject.String()), err)
		}
		keys, rest = append(keys, k), slices.Delete(rest, i, i+1)
	}
	if b.state.Len() == 0 {
		return keyset.New(keys, nil, nil), rest, nil
	}
	state, err := keyset.Parse(b.state.Bytes())
	if err != nil {
		return nil, nil, fmt.Errorf("of the RETIRED KEY and REVOKED KEY blocks, %w", err)
	}
	return keyset.New(keys, state.Retired, state.Revoked), rest, nil
}

// readCertificates returns the certificates in files, PEM or DER.
func readCertificates(paths ...string) ([]*x509.Certificate, error) {
	var files brought
	for _, path := range paths {
		if err := files.read(path, nil); err != nil {
			return nil, err
		}
	}
	return files.certificates, nil
}

// password finds the password of a PFX: in a file, in the environment, or by asking.
func (c *importCmd) password(a *app, path string) (string, error) {
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		return strings.TrimRight(string(text), "\r\n"), err
	}
	if password, ok := os.LookupEnv(passwordEnv); ok {
		return password, nil
	}
	password, err := a.readSecret("Password of " + oneLine(path) + ": ")
	if err != nil {
		return "", fmt.Errorf("it needs a password: give --password-file, or set %s: %w", passwordEnv, err)
	}
	return password, nil
}
