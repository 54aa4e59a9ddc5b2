package main

import (
	"context"
	"errors"
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
	return a.change(l, c.storeFlags, c.config(a), c.keyFlags, func(ctx context.Context, s *fleetkey.Signer) error {
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

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
