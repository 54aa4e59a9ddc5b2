package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// revokeCmd ends the trust in a key for good.
type revokeCmd struct {
	KID         string `arg:"" optional:"" name:"kid" help:"The key's id, as fleetkey status shows it, or the RFC 7638 thumbprint of any key."`
	All         bool   `help:"Revoke every key that has its private half in the store, and make a fresh one: the bundle was leaked."`
	Certificate string `type:"existingfile" predictor:"file" placeholder:"PATH" help:"Revoke the key of this certificate (PEM or DER), such as one of Config.Former."`
	storeFlags
	policyFlags
	keyFlags
	consent
}

// Run is called by kong. It looks before it asks.
func (c *revokeCmd) Run(a *app) error {
	if (c.KID == "") == (c.Certificate == "" && !c.All) || c.All && c.Certificate != "" {
		return usageError("give one of KID, --all and --certificate")
	}
	l, err := c.load(a)
	if err != nil {
		return err
	}
	id, err := c.thumbprint(l.set)
	if err != nil {
		return err
	}
	ids := []string{id}
	what := "revoke key " + id + " in " + l.name
	switch {
	case c.All:
		ids = nil
		for _, k := range l.set.Keys {
			ids = append(ids, k.ID)
		}
		what = fmt.Sprintf("revoke ALL keys that can sign in %s (%d), and make a fresh one", l.name, len(l.set.Keys))
	case l.set.IsRevoked(id):
		a.printf("%s is revoked already; nothing was changed.\n", id)
		return nil
	case !l.set.Mentions(id):
		what += " (it is not there now, and can never come in)"
	}
	if err := c.confirm(a, what+": the servers refuse all its tokens, under any kid, from their next refresh on"); err != nil {
		return err
	}
	return a.change(l, c.storeFlags, c.config(a), c.keyFlags, func(ctx context.Context, s *fleetkey.Signer) error {
		before := s.Status().SigningKeyID
		if c.All {
			err = s.RevokeAll(ctx)
		} else {
			err = s.Revoke(ctx, id)
		}
		if err != nil {
			return err
		}
		for _, id := range ids {
			a.printf("Revoked %s.\n", id)
		}
		if after := s.Status().SigningKeyID; after != before {
			a.printf("A fresh key signs now: %s\n", after)
		}
		a.printf("Servers act on it within their RefreshEvery, clients once they fetch the JWKS again (at most JWKSMaxAge).\n")
		return nil
	})
}

// thumbprint returns that of the key to revoke, or "" for all.
func (c *revokeCmd) thumbprint(set *keyset.Set) (string, error) {
	if c.Certificate != "" {
		certificates, err := readCertificates(c.Certificate)
		if err != nil || len(certificates) != 1 {
			return "", errors.Join(err, fmt.Errorf("%q holds %d certificates; which key is meant?", c.Certificate, len(certificates)))
		}
		return jws.Thumbprint(certificates[0].PublicKey), nil
	}
	if err := keyset.CheckThumbprint(c.KID); err != nil && !c.All {
		return "", fmt.Errorf("no key in the store has this kid, and %w (for a key of Config.Former give --certificate)", err)
	}
	return c.KID, nil
}
