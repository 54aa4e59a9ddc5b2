package main

import (
	"cmp"
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
}

// Run is called by kong.
func (c *statusCmd) Run(a *app) error {
	l, err := c.load(a, false)
	if err != nil {
		return err
	}
	status, err := l.status(a, c.config(a))
	if err != nil {
		return err
	}
	notes := c.unlike(status)
	out := toJSON(status)
	out.Notes = notes
	if err := a.show(out, func() { printStatus(a, status, notes) }); err != nil {
		return err
	}
	if status.Err != nil || len(pressing(status)) > 0 {
		return errWrong
	}
	return nil
}

// status returns what a server with this Config would say of the keys.
func (l *loaded) status(a *app, cfg fleetkey.Config) (fleetkey.Status, error) {
	signer, err := fleetkey.NewSigner(a.ctx, l, cfg)
	if err != nil {
		return fleetkey.Status{}, err
	}
	defer func() { _ = signer.Close() }()
	return signer.Status(), nil
}

// pressing returns the warnings that a command can end. Revocations are for good, so that
// there are many of them is no more than a note.
func pressing(s fleetkey.Status) []string {
	s.Keys = slices.DeleteFunc(slices.Clone(s.Keys), func(k fleetkey.KeyInfo) bool { return k.Role == fleetkey.RoleRevoked })
	return s.Warnings()
}

func printStatus(a *app, s fleetkey.Status, notes []string) {
	now := time.Now()
	a.printf("%s, version %s\n\n", s.Store, s.Version)
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "KID\tALG\tROLE\tSIGNS FROM\tTRUSTED UNTIL\tCERTIFICATE ENDS")
	for _, k := range s.Keys {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", k.KeyID, cmp.Or(k.Algorithm, "-"), k.Role, stamp(k.NotBefore), stamp(k.TrustedUntil), stamp(k.NotAfter))
	}
	a.lost = table.Flush()
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
	for _, w := range append(s.Warnings(), notes...) {
		word := "NOTE"
		if slices.Contains(pressing(s), w) {
			word = "WARNING"
		}
		a.printf("%s: %s\n", word, oneLine(w))
	}
}

// statusJSON is what --json prints of a store, by every command that reads or changes one.
// Names once given stay.
type statusJSON struct {
	Store          string           `json:"store"`
	Version        fleetkey.Version `json:"version"`
	Changed        *bool            `json:"changed,omitempty"` // by this command, if it can
	SigningKeyID   string           `json:"signing_kid,omitempty"`
	SigningSince   time.Time        `json:"signing_since,omitzero"`
	NextActivation time.Time        `json:"next_activation,omitzero"`
	RotationDue    time.Time        `json:"rotation_due,omitzero"`
	NextChange     time.Time        `json:"next_change,omitzero"`
	Error          string           `json:"error,omitempty"`
	Warnings       []string         `json:"warnings,omitempty"`
	Notes          []string         `json:"notes,omitempty"`
	File           string           `json:"file,omitempty"` // that export has written
	Keys           []keyJSON        `json:"keys"`
}

type keyJSON struct {
	KeyID        string        `json:"kid"`
	Algorithm    string        `json:"alg,omitempty"`
	Role         fleetkey.Role `json:"role"`
	NotBefore    time.Time     `json:"not_before,omitzero"`
	NotAfter     time.Time     `json:"not_after,omitzero"`
	TrustedUntil time.Time     `json:"trusted_until,omitzero"`
	PEM          string        `json:"pem,omitempty"`  // that export prints
	File         string        `json:"file,omitempty"` // or has written
}

func toJSON(s fleetkey.Status) statusJSON {
	out := statusJSON{
		Store: s.Store, Version: s.Version, SigningKeyID: s.SigningKeyID, SigningSince: s.SigningSince.UTC(),
		NextActivation: s.NextActivation.UTC(), RotationDue: s.RotationDue.UTC(), NextChange: s.NextChange.UTC(), Warnings: s.Warnings(), Keys: []keyJSON{},
	}
	if s.Err != nil {
		out.Error = trimPrefix(s.Err)
	}
	for _, k := range s.Keys {
		out.Keys = append(out.Keys, keyJSON{KeyID: k.KeyID, Algorithm: k.Algorithm, Role: k.Role,
			NotBefore: k.NotBefore.UTC(), NotAfter: k.NotAfter.UTC(), TrustedUntil: k.TrustedUntil.UTC()})
	}
	return out
}

// result shows the outcome of a command that can change keys: in words, or as JSON the store
// as it is now.
func (a *app) result(s fleetkey.Status, changed bool, words string, args ...any) error {
	out := toJSON(s)
	out.Changed = &changed
	return a.show(out, func() { a.printf(words, args...) })
}

// stored is result for a store whose bundle is at hand.
func (a *app) stored(l *loaded, changed bool, words string) error {
	status, err := l.status(a, policyFlags{}.config(a))
	if err != nil {
		return err
	}
	return a.result(status, changed, "%s", words)
}
