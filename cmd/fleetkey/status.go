package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/fleetkey/fleetkey"
)

// statusCmd shows the keys as a server would see them now.
type statusCmd struct {
	storeFlags
	policyFlags
}

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
	if err := a.show(result{Notes: notes, Status: status}, func() { printStatus(a, status, notes) }); err != nil {
		return err
	}
	if status.Err != nil || len(pressing(status)) > 0 {
		return errWrong
	}
	return nil
}

// status returns what a server with this Config would report about the keys.
func (l *loaded) status(a *app, cfg fleetkey.Config) (fleetkey.Status, error) {
	signer, err := fleetkey.NewSigner(a.ctx, l, cfg)
	if err != nil {
		return fleetkey.Status{}, err
	}
	defer func() { _ = signer.Close() }()
	return signer.Status(), nil
}

// pressing returns the warnings that a command can resolve. Revocations are permanent, so a
// large number of them is only a note.
func pressing(s fleetkey.Status) []string {
	s.Keys = slices.DeleteFunc(slices.Clone(s.Keys), func(k fleetkey.KeyInfo) bool { return k.Role == fleetkey.RoleRevoked })
	return s.Warnings()
}

func printStatus(a *app, s fleetkey.Status, notes []string) {
	a.printf("%s, version %s\n\n", s.Store, s.Version)
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "KID\tALG\tROLE\tSIGNS FROM\tTRUSTED UNTIL\tCERTIFICATE ENDS")
	for _, k := range s.Keys {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", k.KeyID, cmp.Or(k.Algorithm, "-"), k.Role, stamp(k.NotBefore), stamp(k.TrustedUntil), stamp(k.NotAfter))
	}
	a.lost = table.Flush()
	a.printf("\n%s\n", timeline(s))
	if !s.NextActivation.IsZero() {
		a.printf("%s  the announced key begins to sign\n", stamp(s.NextActivation))
	}
	if !s.RotationDue.IsZero() {
		a.printf("%s  the next key is due to be announced\n", stamp(s.RotationDue))
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

// A result is what --json prints about a store: its Status, as served by Health, and what a
// command adds. Names must not change.
type result struct {
	Changed *bool           `json:"changed,omitempty"` // by this command; nil: it never changes keys
	Notes   []string        `json:"notes,omitempty"`
	PEM     string          `json:"pem,omitempty"`   // printed by export
	Files   []string        `json:"files,omitempty"` // written by export
	Status  fleetkey.Status `json:"-"`
}

// MarshalJSON merges both into one object.
func (r result) MarshalJSON() ([]byte, error) {
	type added result
	more, err := json.Marshal(added(r))
	if err != nil {
		return nil, err
	}
	status, err := json.Marshal(r.Status)
	if err != nil || len(more) == len("{}") {
		return status, err
	}
	return slices.Concat(more[:len(more)-1], []byte(","), status[1:]), nil
}

// outcome shows the result of a command that can change keys: as text, or the current store
// as JSON.
func (a *app) outcome(s fleetkey.Status, changed bool, words string, args ...any) error {
	return a.show(result{Changed: &changed, Status: s}, func() { a.printf(words, args...) })
}

// stored is outcome for a store whose bundle is known.
func (a *app) stored(l *loaded, changed bool, words string) error {
	status, err := l.status(a, policyFlags{}.config(a))
	if err != nil {
		return err
	}
	return a.outcome(status, changed, "%s", words)
}
