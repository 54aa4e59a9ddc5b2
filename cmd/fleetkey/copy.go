package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// copyCmd moves a fleet to another store: from a file to AWS, or back. It copies the bundle
// byte by byte, so the kids stay the same and every token stays valid.
type copyCmd struct {
	storeFlags
	To storeFlags `embed:"" prefix:"to-" xorprefix:"to-" set:"of=The new store is"`
	newSecretFlags
}

func (c *copyCmd) Run(a *app) error {
	from, err := c.load(a, false)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	to, err := c.To.open(ctx, c.newSecretFlags)
	if err != nil {
		return err
	}
	version, err := to.Save(ctx, from.bundle, "") // must not exist yet
	if errors.Is(err, fleetkey.ErrConflict) {
		there, version, loadErr := to.Load(ctx)
		switch {
		case loadErr == nil && bytes.Equal(there, from.bundle):
			return a.stored(&loaded{name(to), there, version, from.set}, false, name(to)+" already contains the same keys; nothing was changed.\n")
		case errors.Is(loadErr, fleetkey.ErrNotExist):
			return fmt.Errorf("%s exists but has no value: delete it so that copy can create it", name(to))
		}
		return fmt.Errorf("%s contains other keys, and copy never overwrites: choose another store, or delete that one", name(to))
	}
	if err != nil {
		return err
	}
	words := fmt.Sprintf("Copied from %s to %s: %s.\n", from.name, name(to), count(from.set))
	if signing, _ := from.set.Signing(time.Now()); signing != nil {
		words += "Signing key: " + signing.ID + "\n"
	}
	err = a.stored(&loaded{name(to), from.bundle, version, from.set}, true, words)
	a.note("%s still contains the private keys. Do not let some servers use the old store and some the new one: a rotation in one does not reach the other.\n"+
		"Delete it when all servers use the new store.", from.name)
	return err
}

// count returns, in words, how many keys of each kind a set has.
func count(set *keyset.Set) string {
	text := fmt.Sprintf("%d with private key", len(set.Keys))
	if n := len(set.Retired); n > 0 {
		text += fmt.Sprintf(", %d retired", n)
	}
	if n := len(set.Revoked); n > 0 {
		text += fmt.Sprintf(", %d revoked", n)
	}
	return text
}
