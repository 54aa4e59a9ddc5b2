package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // names certificates, as RFC 7515 section 4.1.7 defines
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
)

// importCmd brings in what another system, or another store, has signed with.
//
// Into an empty store goes a certificate with its private key: it becomes the
// signing key, and the kids that the other system wrote stay known for a while.
// Into a store that has keys goes the certificate alone: tokens signed with it
// are accepted beside those of the fleet.
type importCmd struct {
	Files []string `arg:"" type:"existingfile" name:"file" predictor:"file" help:"PEM with certificates and private keys, in one file or several; or a PFX (PKCS#12); or a certificate (.cer)."`
	storeFlags
	newSecretFlags
	KID          []string `name:"kid" sep:"none" placeholder:"KID" help:"A kid in the tokens that were signed with the certificate; may be repeated; 'none' for no other than the key's own. Default for a PFX: those that .NET writes, the certificate's SHA-1 thumbprint in hexadecimal, and the same with the algorithm behind it."`
	TrustKIDs    days     `name:"trust-kids" default:"30d" placeholder:"TIME" help:"Into an empty store: how long the other kids stay known. As long as the other system still issues, and its last token lives."`
	PasswordFile string   `type:"existingfile" predictor:"file" placeholder:"PATH" help:"File with the PFX's password. Otherwise it is taken from FLEETKEY_PFX_PASSWORD, or asked for."`
	consent
}

const aboutIssuer = "If the tokens of the other system name another issuer, the servers need it in Config.FormerIssuers."

// Run is called by kong.
func (c *importCmd) Run(a *app) error {
	entries, pfx, err := c.readAll(a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	store, err := c.open(ctx, c.newSecretFlags)
	if err != nil {
		return err
	}
	_, err = read(ctx, store)
	switch {
	case errors.Is(err, fleetkey.ErrNotExist):
		return c.found(a, store, entries, pfx)
	case err != nil:
		return err
	}
	return c.trust(a, store, entries)
}

// readAll reads the files as one, so that a key may come apart from its
// certificate.
func (c *importCmd) readAll(a *app) (entries []entry, pfx bool, err error) {
	var text bytes.Buffer
	for _, path := range c.Files {
		found, more, isPFX, err := c.readInput(a, path)
		if err != nil {
			return nil, false, err
		}
		entries, pfx = append(entries, found...), pfx || isPFX
		text.Write(more)
		text.WriteByte('\n')
	}
	if len(bytes.TrimSpace(text.Bytes())) > 0 {
		found, err := parseBundle(text.Bytes())
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", strings.Join(c.Files, ", "), err)
		}
		entries = append(entries, found...)
	}
	return leaveOutChain(a, entries), pfx, nil
}

// leaveOutChain drops the authorities of other certificates: they come along
// with many, and would be trusted to sign tokens.
func leaveOutChain(a *app, entries []entry) []entry {
	var kept []entry
	for _, e := range entries {
		issued := false
		for _, other := range entries {
			issued = issued || !bytes.Equal(other.cert.RawSubject, e.cert.RawSubject) && bytes.Equal(other.cert.RawIssuer, e.cert.RawSubject)
		}
		if issued && e.key == nil {
			a.note("Left out %q: it has issued another certificate, and every certificate in a store is trusted to sign tokens.", e.cert.Subject)
			continue
		}
		kept = append(kept, e)
	}
	return kept
}

// found writes the first bundle of a store.
func (c *importCmd) found(a *app, store fleetkey.KeyStore, entries []entry, pfx bool) error {
	private := slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return e.key == nil })
	if len(c.KID) > 0 && len(private) > 1 {
		return usageError("--kid goes with one private key; there are several")
	}
	all := slices.Clone(entries)
	for _, e := range private {
		for _, kid := range c.kids(e, pfx) {
			named, err := underKID(e, kid, time.Now().Add(time.Duration(c.TrustKIDs)))
			if err != nil {
				return err
			}
			all = append(all, named)
		}
	}
	bundle, err := encodeBundle(all)
	if err != nil {
		return err
	}
	signer, err := look(a.ctx, &loaded{"what is to be imported", bundle, "new"}, fleetkey.Config{Issuer: noIssuer, Logger: a.log})
	if err != nil {
		return err
	}
	status := signer.Status()
	_ = signer.Close()
	if status.Err != nil {
		return fmt.Errorf("%s is empty, so what is imported has to sign, and it cannot: %w "+
			"(a certificate without a private key can be imported once there is a key: fleetkey init)", name(store), status.Err)
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	if _, err := store.Save(ctx, bundle, ""); err != nil {
		return err
	}
	a.printf("%s now signs with the imported key: %s\n", name(store), status.SigningKeyID)
	for _, e := range all {
		if e.key == nil {
			a.printf("Tokens under kid %s are accepted until %s.\n", e.kid, stamp(e.cert.NotAfter))
		}
	}
	a.note(aboutIssuer)
	for _, w := range status.Warnings() {
		a.note("Warning: %s", w)
	}
	return nil
}

// kids returns the names that the other system gave a key.
func (c *importCmd) kids(e entry, pfx bool) []string {
	switch {
	case len(c.KID) == 1 && c.KID[0] == "none":
		return nil
	case len(c.KID) > 0:
		return c.KID
	case pfx:
		hexadecimal := fmt.Sprintf("%X", sha1.Sum(e.cert.Raw)) //nolint:gosec // a name
		return []string{hexadecimal, hexadecimal + algorithm(e.cert)}
	}
	return nil
}

// algorithm returns what .NET signs with by default with a certificate's key.
func algorithm(cert *x509.Certificate) string {
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); ok {
		return fmt.Sprintf("ES%d", public.Params().BitSize)
	}
	return "RS256"
}

// underKID returns a verify-only entry of e's key under another kid. It has a
// certificate of its own, which ends when the kid is to be forgotten.
func underKID(e entry, kid string, end time.Time) (entry, error) {
	if e.cert.NotAfter.Before(end) {
		end = e.cert.NotAfter
	}
	template := &x509.Certificate{
		RawSubject: e.cert.RawSubject, NotBefore: e.cert.NotBefore, NotAfter: end.UTC().Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if strings.HasSuffix(e.cert.SignatureAlgorithm.String(), "RSAPSS") {
		template.SignatureAlgorithm = x509.SHA256WithRSAPSS // which says that the key signs PS256
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, e.key.Public(), e.key)
	if err != nil {
		return entry{}, fmt.Errorf("make a certificate for kid %s: %w", kid, err)
	}
	cert, err := x509.ParseCertificate(der)
	return entry{kid: kid, cert: cert}, err
}

// trust adds the certificates to a store that has keys.
func (c *importCmd) trust(a *app, store fleetkey.KeyStore, entries []entry) error {
	if len(c.KID) > 0 && len(entries) > 1 {
		return usageError("--kid goes with one certificate; import them one by one")
	}
	var names []string
	for _, e := range entries {
		names = append(names, fmt.Sprintf("%q until %s", e.cert.Subject, stamp(e.cert.NotAfter)))
		if e.key != nil {
			a.note("The store has keys of its own, so the private key of %q stays out; its tokens will be accepted.", e.cert.Subject)
		}
	}
	if err := c.confirm(a, "make the servers of "+name(store)+" accept tokens signed by "+strings.Join(names, ", ")); err != nil {
		return err
	}
	return a.change(c.storeFlags, fleetkey.Config{Issuer: noIssuer, Logger: a.log}, keyFlags{}, func(ctx context.Context, s *fleetkey.Signer) error {
		for _, e := range entries {
			kids := c.KID
			if len(kids) == 0 || kids[0] == "none" {
				kids = []string{""}
				if e.kid != e.thumbprint() {
					kids = []string{e.kid}
				}
			}
			for _, kid := range kids {
				before := s.Status().Version
				if err := s.Trust(ctx, e.cert, kid); err != nil {
					return err
				}
				if s.Status().Version == before {
					a.printf("%q is trusted already; nothing was changed.\n", e.cert.Subject)
					continue
				}
				a.note(aboutIssuer)
				a.printf("Tokens signed by %q are accepted until %s.\n", e.cert.Subject, stamp(e.cert.NotAfter))
			}
		}
		return nil
	})
}
