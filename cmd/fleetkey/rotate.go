package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fleetkey/fleetkey"
)

// rotateCmd announces the next key.
type rotateCmd struct{ changeFlags }

func (c *rotateCmd) Run(a *app) error {
	l, err := c.load(a, true)
	if err != nil {
		return err
	}
	signing, _ := l.set.Signing(time.Now())
	if signing != nil && c.Algorithm != "" && c.Algorithm != signing.Alg.Name {
		a.note("The algorithm changes from %s to %s. Clients that read the JWKS only once, or allow only %s, will reject the new key's tokens: "+
			"make sure that each reads the JWKS again and allows %s before the key begins to sign (--announce).", signing.Alg.Name, c.Algorithm, signing.Alg.Name, c.Algorithm)
	}
	before, err := l.status(a, c.config(a))
	if err != nil {
		return err
	}
	for _, note := range c.unlike(before) {
		a.note("NOTE: %s", note)
	}
	if err := c.confirm(a, "announce a new key in "+l.name+", which will take over from the current signing key"); err != nil {
		return err
	}
	return c.change(a, l, func(ctx context.Context, s *fleetkey.Signer) error {
		before := s.Status()
		if err := s.Rotate(ctx); err != nil {
			return err
		}
		after := s.Status()
		switch {
		case after.SigningKeyID == "":
			return fmt.Errorf("%s: a key was created, but no key can sign (%w): see fleetkey status %s", l.name, after.Err, c.args())
		case after.SigningKeyID != before.SigningKeyID: // by the dates, no key could sign yet, or any more
			return a.outcome(after, true, "No key could sign by its dates. A new key signs now: %s\n", after.SigningKeyID)
		case !before.NextActivation.IsZero():
			return a.outcome(after, false, "A key is already announced and begins to sign at %s. Nothing was changed.\n", stamp(after.NextActivation))
		}
		next := slices.IndexFunc(after.Keys, func(k fleetkey.KeyInfo) bool { return k.NotBefore.Equal(after.NextActivation) })
		return a.outcome(after, true, "Announced %s. It begins to sign at %s.\n%s signs until then.\n",
			after.Keys[next].KeyID, stamp(after.NextActivation), after.SigningKeyID)
	})
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
