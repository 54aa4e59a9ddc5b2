package main

import (
	"context"
	"fmt"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// revokeCmd permanently ends trust in a key.
type revokeCmd struct {
	KID         string `arg:"" optional:"" name:"kid" help:"ID of the key, as shown by fleetkey status, or the RFC 7638 thumbprint of any key."`
	All         bool   `help:"Revoke every key whose private key is in the store, and create a new one. For a leaked bundle."`
	Certificate string `type:"existingfile" predictor:"file" placeholder:"PATH" help:"Revoke the key of this certificate (PEM or DER), such as one of Config.Former."`
	changeFlags
}

// Run reads the store before it asks.
func (c *revokeCmd) Run(a *app) error {
	if (c.KID == "") == (c.Certificate == "" && !c.All) || c.All && c.Certificate != "" {
		return usageError("give exactly one of KID, --all and --certificate")
	}
	l, err := c.load(a, true)
	if err != nil {
		return err
	}
	id, err := c.thumbprint(a, l)
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
		what = fmt.Sprintf("revoke ALL keys that can sign in %s (%d), and create a new one", l.name, len(l.set.Keys))
	case l.set.IsRevoked(id):
		return a.stored(l, false, id+" is already revoked; nothing was changed.\n")
	case !l.set.Mentions(id):
		what += " (it is not in the store, and can never be added)"
	}
	if err := c.confirm(a, what+": servers reject all its tokens, under any kid, after their next refresh"); err != nil {
		return err
	}
	return c.change(a, l, func(ctx context.Context, s *fleetkey.Signer) error {
		before := s.Status().SigningKeyID
		if c.All {
			err = s.RevokeAll(ctx)
		} else {
			err = s.Revoke(ctx, id)
		}
		if err != nil {
			return err
		}
		words := ""
		for _, id := range ids {
			words += "Revoked " + id + ".\n"
		}
		after := s.Status()
		if after.SigningKeyID != before {
			words += "A new key signs now: " + after.SigningKeyID + "\n"
		}
		return a.outcome(after, true, "%sServers apply this within RefreshEvery, clients once they fetch the JWKS again: within JWKSMaxAge if they honor Cache-Control.\n", words)
	})
}

// thumbprint returns the thumbprint of the key to revoke, or "" for all keys.
func (c *revokeCmd) thumbprint(a *app, l *loaded) (string, error) {
	if c.Certificate != "" {
		certificates, err := readCertificates(a, c.Certificate)
		if err == nil && len(certificates) != 1 {
			err = fmt.Errorf("%q contains %d certificates: give a file that contains only the one to revoke", c.Certificate, len(certificates))
		}
		if err != nil {
			return "", err
		}
		return jws.Thumbprint(certificates[0].PublicKey), nil
	}
	if err := keyset.CheckThumbprint(c.KID); err != nil && !c.All {
		return "", fmt.Errorf("no key in %s has this kid, and %w (see fleetkey status; for a key in Config.Former, give --certificate)", l.name, err)
	}
	return c.KID, nil
}
