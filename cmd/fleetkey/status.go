package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/fleetkey/fleetkey"
)

// statusCmd shows the keys as a server would see them now.
type statusCmd struct {
	storeFlags
	policyFlags
	JSON bool `help:"Print JSON."`
}

// Run is called by kong.
func (c *statusCmd) Run(a *app) error {
	l, err := c.load(a)
	if err != nil {
		return err
	}
	signer, err := fleetkey.NewSigner(a.ctx, l, c.config(a))
	if err != nil {
		return err
	}
	status := signer.Status()
	_ = signer.Close()
	if c.JSON {
		err = printJSON(a, status)
	} else {
		err = printStatus(a, status)
	}
	if err == nil && (status.Err != nil || len(pressing(status)) > 0) {
		return errWrong
	}
	return err
}

// pressing returns the warnings that a command can end. Revocations are for good, so that
// there are many of them is no more than a note.
func pressing(s fleetkey.Status) []string {
	s.Keys = slices.DeleteFunc(slices.Clone(s.Keys), func(k fleetkey.KeyInfo) bool { return k.Role == fleetkey.RoleRevoked })
	return s.Warnings()
}

func printStatus(a *app, s fleetkey.Status) error {
	now := time.Now()
	a.printf("%s, version %s\n\n", s.Store, s.Version)
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "KID\tALG\tROLE\tSIGNS FROM\tTRUSTED UNTIL\tCERTIFICATE ENDS")
	for _, k := range s.Keys {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", k.KeyID, cmp.Or(k.Algorithm, "-"), k.Role, stamp(k.NotBefore), stamp(k.TrustedUntil), stamp(k.NotAfter))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	a.printf("\n%s\n", timeline(s, now, 72))
	if !s.NextActivation.IsZero() {
		a.printf("%s  the announced key begins to sign\n", stamp(s.NextActivation))
	}
	if !s.RotationDue.IsZero() {
		a.printf("%s  the next key is to be announced\n", stamp(s.RotationDue))
	}
	if s.Err != nil {
		a.printf("WRONG: no token can be issued: %s\n", trimPrefix(s.Err))
	}
	for _, w := range s.Warnings() {
		word := "NOTE"
		if slices.Contains(pressing(s), w) {
			word = "WARNING"
		}
		a.printf("%s: %s\n", word, oneLine(w))
	}
	return nil
}

// statusJSON is what --json prints. Names once given stay.
type statusJSON struct {
	Store          string           `json:"store"`
	Version        fleetkey.Version `json:"version"`
	SigningKeyID   string           `json:"signing_kid,omitempty"`
	SigningSince   time.Time        `json:"signing_since,omitzero"`
	NextActivation time.Time        `json:"next_activation,omitzero"`
	RotationDue    time.Time        `json:"rotation_due,omitzero"`
	NextChange     time.Time        `json:"next_change,omitzero"`
	Error          string           `json:"error,omitempty"`
	Warnings       []string         `json:"warnings,omitempty"`
	Keys           []keyJSON        `json:"keys"`
}

type keyJSON struct {
	KeyID        string        `json:"kid"`
	Algorithm    string        `json:"alg,omitempty"`
	Role         fleetkey.Role `json:"role"`
	NotBefore    time.Time     `json:"not_before,omitzero"`
	NotAfter     time.Time     `json:"not_after,omitzero"`
	TrustedUntil time.Time     `json:"trusted_until,omitzero"`
}

func printJSON(a *app, s fleetkey.Status) error {
	out := statusJSON{
		Store: s.Store, Version: s.Version, SigningKeyID: s.SigningKeyID, SigningSince: s.SigningSince.UTC(),
		NextActivation: s.NextActivation.UTC(), RotationDue: s.RotationDue.UTC(), NextChange: s.NextChange.UTC(), Warnings: s.Warnings(),
	}
	if s.Err != nil {
		out.Error = trimPrefix(s.Err)
	}
	for _, k := range s.Keys {
		k.NotBefore, k.NotAfter, k.TrustedUntil = k.NotBefore.UTC(), k.NotAfter.UTC(), k.TrustedUntil.UTC()
		out.Keys = append(out.Keys, keyJSON(k))
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
