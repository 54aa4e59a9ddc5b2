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
	cfg := c.config(a)
	if cfg.Rotation.Every == 0 {
		// By hand, the bounds of a policy hold as well, and NewSigner checks
		// them only if there is one: a key that signs before all know it costs
		// tokens.
		cfg.Rotation.Every = 10 * 365 * 24 * time.Hour
	}
	if err := c.confirm(a, "announce a new key in "+l.name+", which takes over from the one that signs now"); err != nil {
		return err
	}
	return a.change(c.storeFlags, cfg, c.keyFlags, func(ctx context.Context, s *fleetkey.Signer) error {
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
		if k.Role == fleetkey.Announced && k.NotBefore.Equal(s.NextActivation) {
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
	kids, err := sameKey(entries, c.KID)
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	what := fmt.Sprintf("revoke key %s in %s: the servers refuse all its tokens from their next refresh on", c.KID, l.name)
	if len(kids) > 1 {
		what += fmt.Sprintf(" (it is there under %d kids, and all of them go)", len(kids))
	}
	if err := c.confirm(a, what); err != nil {
		return err
	}
	return a.change(c.storeFlags, c.config(a), c.keyFlags, func(ctx context.Context, s *fleetkey.Signer) error {
		before := s.Status().SigningKeyID
		for _, kid := range kids {
			if err := s.Revoke(ctx, kid); err != nil {
				return err
			}
			a.printf("Revoked %s.\n", kid)
		}
		if after := s.Status().SigningKeyID; after != before {
			a.printf("A fresh key signs now: %s\n", after)
		}
		a.printf("Servers act on it within their RefreshEvery, clients once they fetch the JWKS anew (at most JWKSMaxAge).\n")
		return nil
	})
}

// sameKey returns all kids of the public key that has the kid given: import
// adds the kids of another system, and a stolen key must lose all its names.
// Those without a private half come first, so that nothing is left half done
// where it counts: the fresh key is made when the last name goes.
func sameKey(entries []entry, kid string) ([]string, error) {
	for _, e := range entries {
		if e.kid != kid {
			continue
		}
		var kids, private []string
		for _, other := range entries {
			switch {
			case other.thumbprint() != e.thumbprint():
			case other.key == nil:
				kids = append(kids, other.kid)
			default:
				private = append(private, other.kid)
			}
		}
		return append(kids, private...), nil
	}
	return nil, fmt.Errorf("no key has the kid %q; see fleetkey status", kid)
}
