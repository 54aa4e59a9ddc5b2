package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetkey/fleetkey"
)

// rotateCmd announces the next key.
type rotateCmd struct {
	storeFlags
	policyFlags
	keyFlags
	consent
}

// Run is called by kong.
func (c *rotateCmd) Run(a *app) error {
	l, err := c.load(a)
	if err != nil {
		return err
	}
	if err := c.confirm(a, "announce a new key in "+l.name+", which takes over from the one that signs now"); err != nil {
		return err
	}
	return a.change(c.storeFlags, c.config(a), c.keyFlags, func(ctx context.Context, s *fleetkey.Signer) error {
		before := s.Status()
		if err := s.Rotate(ctx); err != nil {
			return err
		}
		after := s.Status()
		switch {
		case after.SigningKeyID == "":
			return errors.New("no key signs even now; see fleetkey status")
		case before.SigningKeyID == "":
			a.printf("No key could sign. A new one does now: %s\n", after.SigningKeyID)
		case !before.NextActivation.IsZero():
			a.printf("A key is announced already, and begins to sign at %s. Nothing was changed.\n", stamp(after.NextActivation))
		default:
			a.printf("Announced %s. It begins to sign at %s.\n%s signs until then.\n",
				announced(after), stamp(after.NextActivation), after.SigningKeyID)
		}
		return nil
	})
}

// announced returns the kid of the key that takes over next.
func announced(s fleetkey.Status) string {
	for _, k := range s.Keys {
		if k.Role == fleetkey.RoleAnnounced && k.NotBefore.Equal(s.NextActivation) {
			return k.KeyID
		}
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// revokeCmd takes a key out.
type revokeCmd struct {
	KID string `arg:"" name:"kid" help:"The key's id, as fleetkey status shows it. If it begins with a hyphen, write -- before it."`
	storeFlags
	policyFlags
	keyFlags
	consent
}

// Run is called by kong.
func (c *revokeCmd) Run(a *app) error {
	l, err := c.load(a)
	if err != nil {
		return err
	}
	entries, err := parseBundle(l.bundle)
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	what := fmt.Sprintf("revoke key %s in %s: the servers refuse all its tokens from their next refresh on", c.KID, l.name)
	if n := len(names(entries, c.KID)); n > 1 {
		what += fmt.Sprintf(" (it is there under %d kids, and all of them go)", n)
	}
	if err := c.confirm(a, what); err != nil {
		return err
	}
	return a.change(c.storeFlags, c.config(a), c.keyFlags, func(ctx context.Context, s *fleetkey.Signer) error {
		before := s.Status().SigningKeyID
		if err := s.Revoke(ctx, c.KID); err != nil {
			return err
		}
		a.printf("Revoked %s.\n", c.KID)
		if after := s.Status().SigningKeyID; after != before {
			a.printf("A fresh key signs now: %s\n", after)
		}
		a.printf("Servers act on it within their RefreshEvery, clients once they fetch the JWKS anew (at most JWKSMaxAge).\n")
		return nil
	})
}

// names returns all kids of the public key that has the kid given: import adds
// those of another system.
func names(entries []entry, kid string) []string {
	var kids []string
	for _, e := range entries {
		for _, other := range entries {
			if e.kid == kid && other.thumbprint() == e.thumbprint() {
				kids = append(kids, other.kid)
			}
		}
	}
	return kids
}
