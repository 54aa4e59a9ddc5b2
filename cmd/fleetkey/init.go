package main

import (
	"context"
	"errors"

	"github.com/fleetkey/fleetkey"
)

// initCmd creates the first key. Servers do so themselves on their first start; use init to
// create it earlier, or if the servers may only read.
type initCmd struct {
	storeFlags
	newSecretFlags
	Issuer     string `required:"" placeholder:"URL" help:"Issuer of the servers; the subject of the certificate."`
	Algorithm  string `enum:"RS256,PS256,ES256,ES384,EdDSA" default:"RS256" help:"RS256, PS256, ES256, ES384 or EdDSA."`
	CommonName string `placeholder:"NAME" help:"Subject of the certificate, instead of the issuer."`
}

func (c *initCmd) Run(a *app) error {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	store, err := c.open(ctx, c.newSecretFlags)
	if err != nil {
		return err
	}
	_, _, absent := store.Load(ctx)
	if saysNoValue(absent) {
		a.note("fleetkey: %s: the secret exists but has no value; init can only create a new secret\nrun: %s",
			name(store), putFirst(store, "--issuer "+quote(c.Issuer)+" --algorithm "+c.Algorithm))
		return errWrong
	}
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer: c.Issuer, Algorithm: c.Algorithm, CommonName: c.CommonName, Logger: a.log,
	})
	if err != nil {
		return err
	}
	defer func() { _ = signer.Close() }()
	status := signer.Status()
	switch {
	case absent == nil:
		return a.outcome(status, false, "%s already contains keys; nothing was changed. Signing key: %s\n", name(store), status.SigningKeyID)
	case errors.Is(absent, fleetkey.ErrNotExist):
		return a.outcome(status, true, "%s now contains the first key: %s\n", name(store), status.SigningKeyID)
	}
	// AWS may deny the first read of a missing secret. Then it is unknown who created the
	// key.
	return a.show(result{Status: status}, func() { a.printf("%s contains keys. Signing key: %s\n", name(store), status.SigningKeyID) })
}
