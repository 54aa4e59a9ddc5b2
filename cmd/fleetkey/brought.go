package main

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// This file reads keys and certificates in the formats of other programs, even with common
// damage from copying. A store reads only its own format; see internal/keyset.

// passwordEnv is the variable with the password. The password is never an argument, since
// every user of the machine can read the arguments of a process.
const passwordEnv = "FLEETKEY_PFX_PASSWORD"

// Limits of a file, in bytes. Ten keys with their chains fit.
const (
	maxFile     = 256 << 10
	maxPassword = 4 << 10
)

var errPassword = errors.New("the password is wrong: give the right one with --password-file or " + passwordEnv)

// Brought is the combined content of files, which can be read in any order.
type brought struct {
	password     func() (string, error)
	keys         []broughtKey
	certificates []*x509.Certificate
	state        bytes.Buffer // RETIRED KEY and REVOKED KEY blocks of another bundle
	unfit        bool         // a file had a key that cannot sign: a public key, or one for encryption
}

// A broughtKey may have a certificate.
type broughtKey struct {
	crypto.Signer
	pss     bool   // for PS256, by its JWK or certificate
	kid     string // of its JWK
	alg     string // of its JWK
	subject []byte // of its expired certificate
}

func (k *broughtKey) is(public crypto.PublicKey) bool {
	own, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && own.Equal(public)
}

// read adds the content of a file.
func (b *brought) read(a *app, path string, password func() (string, error)) error {
	b.password = sync.OnceValues(password)
	data, err := a.readInput(path, maxFile)
	if err != nil {
		return err
	}
	if err := b.data(data); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

func (b *brought) data(data []byte) error {
	data, _, err := transform.Bytes(unicode.BOMOverride(transform.Nop), data)
	if err != nil {
		return err
	}
	text := bytes.TrimSpace(data)
	if bytes.Contains(text, []byte("-----BEGIN ")) {
		return b.pem(text)
	} else if bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, []byte("[")) {
		return b.json(text)
	}
	unpadded := strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(string(bytes.Join(bytes.Fields(text), nil)))
	if _, advice := keyset.Form(text); advice == "" { // hexadecimal is also valid base64
		if plain, err := base64.RawStdEncoding.DecodeString(unpadded); err == nil && len(plain) > 0 {
			return b.data(plain)
		}
	}
	return b.der(data)
}

func (b *brought) pem(text []byte) error {
	frames := bytes.Count(text, []byte("-----BEGIN "))
	blocks := pemBlocks(text)
	if len(blocks) < frames { // pem.Decode skips invalid blocks
		blocks = pemBlocks(relined(text))
	}
	if len(blocks) != frames {
		return fmt.Errorf("damaged: %d PEM blocks begin, but only %d are complete", frames, len(blocks))
	}
	for i, block := range blocks {
		if err := b.block(block); err != nil {
			return fmt.Errorf("PEM block %d: %w", i+1, err)
		}
	}
	return nil
}

func pemBlocks(text []byte) (all []*pem.Block) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		all = append(all, block)
	}
	return all
}

var pemFrame = regexp.MustCompile(`\n?[ \t]*(-----(?:BEGIN|END)(?:[ -][A-Z0-9]+)+-----)[ \t]*\n?`)

// relined restores line breaks of PEM that were lost to JSON, a shell or an old Mac.
func relined(text []byte) []byte {
	lines := strings.NewReplacer(`\\n`, "\n", `\n`, "\n", `\\r`, "", `\r`, "", `\/`, "/", "\r\n", "\n", "\r", "\n").Replace(string(text))
	return []byte(pemFrame.ReplaceAllString(lines, "\n$1\n"))
}

func (b *brought) block(block *pem.Block) error {
	switch typ := block.Type; {
	case typ == "RETIRED KEY", typ == "REVOKED KEY":
		return pem.Encode(&b.state, block)
	case typ == "EC PARAMETERS", typ == "DH PARAMETERS": // written next to keys by openssl, and for HAProxy
		return nil
	case typ == "PUBLIC KEY", typ == "RSA PUBLIC KEY": // perhaps next to its private key
		b.unfit = true
		return nil
	case typ == "OPENSSH PRIVATE KEY", block.Headers["DEK-Info"] != "" && strings.HasSuffix(typ, " PRIVATE KEY"):
		return b.ssh(pem.EncodeToMemory(block))
	case block.Headers["DEK-Info"] == "" && slices.Contains([]string{"CERTIFICATE", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"}, typ):
		return b.der(block.Bytes)
	}
	return notRead(pem.EncodeToMemory(block), jws.Quote(block.Type)+" is neither a certificate nor a private key")
}

// ssh adds a private key in OpenSSH format, or one encrypted as by OpenSSL 0.9.
func (b *brought) ssh(block []byte) error {
	key, err := ssh.ParseRawPrivateKey(block)
	if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
		password, passwordErr := b.password()
		if passwordErr != nil {
			return passwordErr
		}
		key, err = ssh.ParseRawPrivateKeyWithPassphrase(block, []byte(password))
	}
	if errors.Is(err, x509.IncorrectPasswordError) {
		return errPassword
	} else if err != nil { // the cause could quote the key
		return notRead(block, "a damaged private key")
	}
	if ed, ok := key.(*ed25519.PrivateKey); ok {
		key = *ed
	}
	return b.key(key, broughtKey{})
}

// notRead returns an error that names a format. It omits causes, which could quote their
// input.
func notRead(data []byte, otherwise string) error {
	switch name, advice := keyset.Form(data); {
	case name == "":
		return errors.New(otherwise)
	case advice == "":
		return fmt.Errorf("%s, damaged or of a kind that cannot sign tokens", name)
	default:
		return fmt.Errorf("this is %s; %s", name, advice)
	}
}

func (b *brought) der(der []byte) error {
	if cert, err := x509.ParseCertificate(der); err == nil && cert.PublicKey != nil {
		b.certificates = append(b.certificates, cert)
		return nil
	} else if err == nil {
		return fmt.Errorf("certificate %s: Go does not support its kind of key, such as RSA-PSS (id-RSASSA-PSS): import only the private key", jws.Quote(cert.Subject.String()))
	}
	if key, err := parseKey(der); err == nil {
		return b.key(key, broughtKey{})
	}
	name, _ := keyset.Form(der)
	convert := map[string]string{"a PFX (PKCS#12)": "openssl pkcs12 -in FILE -nodes -out NEW.pem", "an encrypted private key": "openssl pkey -in FILE -out NEW.key"}[name]
	if rest, err := asn1.Unmarshal(der, new(asn1.RawValue)); convert == "" || err != nil || len(rest) > 0 {
		return notRead(der, "not a key or certificate in a format that fleetkey knows")
	}
	return b.encrypted(der, convert)
}

func parseKey(der []byte) (any, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	return x509.ParseECPrivateKey(der)
}

// key adds a private key. The public half is derived again, by way of PKCS#8, since a JWK can
// contain the public half of another key.
func (b *brought) key(key any, k broughtKey) error {
	given, ok := key.(crypto.Signer)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if ok && err == nil {
		key, err = x509.ParsePKCS8PrivateKey(der)
	}
	if !ok || err != nil {
		return fmt.Errorf("a damaged private key, or a %T, which cannot sign tokens: use RSA, P-256, P-384 or Ed25519", key)
	}
	if k.Signer = key.(crypto.Signer); !k.is(given.Public()) {
		return errors.New("the private key does not match the public key next to it")
	}
	if _, err := jws.AlgorithmOf(k.Public(), k.pss); err != nil {
		return err
	}
	if !slices.ContainsFunc(b.keys, func(other broughtKey) bool { return other.is(k.Public()) }) { // skip duplicates
		b.keys = append(b.keys, k)
	}
	return nil
}

// set returns keys with certificates, keys without one, and the remaining certificates. If
// a key has several certificates, the one that ends last is used.
func (b *brought) set() (set *keyset.Set, bare []broughtKey, rest []*x509.Certificate, err error) {
	var keys []*keyset.Key
	rest = slices.SortedFunc(slices.Values(b.certificates), func(a, b *x509.Certificate) int {
		return cmp.Or(b.NotAfter.Compare(a.NotAfter), bytes.Compare(a.Raw, b.Raw))
	})
	rest = slices.CompactFunc(rest, (*x509.Certificate).Equal) // duplicates
	for _, private := range b.keys {
		i := slices.IndexFunc(rest, func(cert *x509.Certificate) bool { return private.is(cert.PublicKey) })
		if i < 0 {
			bare = append(bare, private)
			continue
		}
		k, err := keyset.NewKey(rest[i], private.Signer)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", jws.Quote(rest[i].Subject.String()), err)
		}
		keys, rest = append(keys, k), slices.Delete(rest, i, i+1)
	}
	if len(bare) > 0 && slices.ContainsFunc(rest, func(cert *x509.Certificate) bool { return !b.has(cert) }) {
		return nil, nil, nil, errors.New("a private key without its certificate, next to certificates of other keys: " +
			"give its certificate, or omit the others and import creates one")
	}
	if b.state.Len() == 0 {
		return keyset.New(keys, nil, nil), bare, rest, nil
	}
	state, err := keyset.Parse(b.state.Bytes())
	if err != nil {
		return nil, nil, nil, fmt.Errorf("in the RETIRED KEY and REVOKED KEY blocks, %w", err)
	}
	return keyset.New(keys, state.Retired, state.Revoked), bare, rest, nil
}

// has reports whether a certificate belongs to one of the private keys.
func (b *brought) has(cert *x509.Certificate) bool {
	return slices.ContainsFunc(b.keys, func(k broughtKey) bool { return k.is(cert.PublicKey) })
}

// readCertificates returns the certificates in files, in any form.
func readCertificates(a *app, paths ...string) ([]*x509.Certificate, error) {
	var files brought
	for _, path := range paths {
		before := len(files.certificates)
		if err := files.read(a, path, func() (string, error) { return "", errors.New("encrypted; give only its certificate") }); err != nil {
			return nil, err
		}
		if len(files.certificates) == before {
			return nil, fmt.Errorf("%q: no certificate", path)
		}
	}
	for _, cert := range files.certificates {
		if _, err := jws.AlgorithmOf(cert.PublicKey, false); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", jws.Quote(cert.Subject.String()), err)
		}
	}
	return files.certificates, nil
}

// password gets the password of a file from --password-file, the environment or a prompt.
func (c *importCmd) password(a *app, path string) (string, error) {
	text, found := os.LookupEnv(passwordEnv)
	if c.PasswordFile != "" {
		file, err := a.readInput(c.PasswordFile, maxPassword)
		if err != nil {
			return "", fmt.Errorf("--password-file: %w", err)
		}
		text, found = string(file), true
	}
	if found {
		text, _, err := transform.String(unicode.BOMOverride(transform.Nop), text)
		return strings.TrimRight(text, "\r\n"), err
	}
	password, err := a.readSecret("Password of " + oneLine(path) + ": ")
	if err != nil {
		return "", fmt.Errorf("it requires a password: give --password-file, or set %s: %w", passwordEnv, err)
	}
	return password, nil
}
