package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/fleetkey/fleetkey"
)

// copyCmd moves a fleet to another store: from a file to AWS, or back. The
// bundle goes over byte by byte, so that the kids stay the same and every token
// stays good.
type copyCmd struct {
	storeFlags
	To storeFlags `embed:"" prefix:"to-" xorprefix:"to-"`
	newSecretFlags
}

// Run is called by kong.
func (c *copyCmd) Run(a *app) error {
	from, err := c.load(a)
	if err != nil {
		return err
	}
	signer, err := look(a.ctx, from, fleetkey.Config{Issuer: noIssuer, Logger: a.log})
	if err != nil {
		return err // a bundle that no server could read is not worth copying
	}
	status := signer.Status()
	_ = signer.Close()
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	to, err := c.To.open(ctx, c.newSecretFlags)
	if err != nil {
		return err
	}
	_, err = to.Save(ctx, from.bundle, "") // "must not exist yet"
	if errors.Is(err, fleetkey.ErrConflict) {
		there, _, loadErr := to.Load(ctx)
		switch {
		case loadErr == nil && bytes.Equal(there, from.bundle):
			a.printf("%s holds the same keys already; nothing was changed.\n", name(to))
			return nil
		case errors.Is(loadErr, fleetkey.ErrNotExist):
			return fmt.Errorf("%s exists but has no value: remove it, so that copy can create it", name(to))
		}
		return fmt.Errorf("%s holds other keys, and copy never overwrites: choose another place, or remove what is there", name(to))
	}
	if err != nil {
		return err
	}
	a.printf("Copied %d keys from %s to %s. Signing key: %s\n", len(status.Keys), from.name, name(to), status.SigningKeyID)
	a.note("%s still holds the private keys. Let no server use both: a rotation in one does not reach the other.\n"+
		"Remove it when all servers use the new store.", from.name)
	return nil
}
