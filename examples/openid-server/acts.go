package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file defines what an operator can do, and what must happen as a result. The page shows
// whether it happens.

type button struct {
	Label   string `json:"label"`
	Expects string `json:"expects"` // the sentence next to it

	each       bool // one button for each instance
	supersedes bool // ends the pending checks of earlier acts
	press      func(p *page, ctx context.Context, n int, a *act) error
}

var buttons = map[string]button{
	"token": {"Get a token here", "This instance issues a token, and every instance accepts it.", true, false, (*page).token},
	"stop":  {"Stop", "The others continue, and the proxy skips this one.", true, false, (*page).stop},
	"start": {"Start", "It signs with the same key as the others.", true, false, (*page).start},
	"rotate": {"Rotate", fmt.Sprintf("A new key is announced, and every instance signs with it %.0f s later. Tokens of the old key stay valid until they expire.",
		announce.Seconds()), false, true, (*page).rotate},
	"revoke": {"Revoke the key", fmt.Sprintf("Within %.0f s, every instance rejects tokens of the current signing key, and a fresh key signs.",
		refreshEvery.Seconds()), false, true, (*page).revoke},
	"fail":     {"Make the store fail", "Every instance notices, and continues to issue and verify tokens.", false, true, (*page).fail},
	"recover":  {"Bring the store back", "Every instance reads it again on its own.", false, false, (*page).recover},
	"exchange": {"Replace the bundle", "Every instance adopts another fleet's bundle. Tokens of the old key stay valid until they expire.", false, true, (*page).exchange},
}

// An act is a button that was pressed.
type act struct {
	Label  string    `json:"label"`
	At     time.Time `json:"at"`
	Error  string    `json:"error,omitempty"`
	Checks []*check  `json:"checks"`
}

// A check is one expectation of an act.
type check struct {
	Text  string  `json:"text"`
	State string  `json:"state"` // waiting, met, failed, or ended if superseded by a later act
	After float64 `json:"after"` // seconds, until it was met

	holds  func(*view) bool
	always bool // must hold all the time, not only once
	within time.Duration
}

const (
	waiting = "waiting"
	met     = "met"
	failed  = "failed"
	ended   = "ended"

	slack = 2 * time.Second // for a busy machine
)

func (a *act) expect(text string, within time.Duration, holds func(*view) bool) {
	a.Checks = append(a.Checks, &check{Text: text, State: waiting, within: within + slack, holds: holds})
}

func (a *act) always(text string, during time.Duration, holds func(*view) bool) {
	a.Checks = append(a.Checks, &check{Text: text, State: waiting, within: during, holds: holds, always: true})
}

func (a *act) check(v *view) {
	since := time.Since(a.At)
	for _, c := range a.Checks {
		holds := c.State == waiting && c.holds(v)
		switch {
		case c.State != waiting:
		case c.always && !holds || !c.always && !holds && since > c.within:
			c.State = failed
		case holds && (!c.always || since > c.within):
			c.State, c.After = met, since.Round(tick/5).Seconds()
		}
	}
}

// everywhere reports whether holds is true for every running instance.
func everywhere(holds func(shown) bool) func(*view) bool {
	return func(v *view) bool {
		return !slices.ContainsFunc(v.Instances[:], func(i shown) bool { return i.Running && !holds(i) })
	}
}

// stayGood reports whether no instance rejects a token of a key before it expires.
func stayGood(kid string) func(*view) bool {
	return func(v *view) bool {
		return !slices.ContainsFunc(v.Tokens, func(t *token) bool { return t.KeyID == kid && t.live() && t.refused() })
	}
}

func signsWith(kid string) func(*view) bool {
	return everywhere(func(i shown) bool { return i.KeyID == kid })
}

// act handles a pressed button: POST /fleet/rotate, or /fleet/stop?instance=2.
func (p *page) act(w http.ResponseWriter, r *http.Request) {
	b, is := buttons[r.PathValue("act")]
	n, err := strconv.Atoi(r.FormValue("instance"))
	if !is || b.each && (err != nil || n < 1 || n > fleetSize) {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	a := &act{Label: b.Label, At: time.Now()}
	if b.each {
		a.Label = fmt.Sprintf("Instance %d: %s", n, a.Label)
	}
	if err := b.press(p, ctx, n-1, a); err != nil {
		a.Error = err.Error()
	}
	p.mu.Lock()
	for _, earlier := range p.view.Acts {
		for _, c := range earlier.Checks {
			if b.supersedes && c.State == waiting {
				c.State = ended
			}
		}
	}
	p.view.Acts = append([]*act{a}, p.view.Acts[:min(len(p.view.Acts), 5)]...)
	p.mu.Unlock()
	p.look()
	w.WriteHeader(http.StatusNoContent)
}

// one returns a running instance.
func (p *page) one() (*instance, error) {
	if running := p.fleet.running(); len(running) > 0 {
		return running[0], nil
	}
	return nil, errors.New("no instance is running; start one")
}

func (p *page) token(ctx context.Context, n int, a *act) error {
	for _, i := range p.fleet.running() {
		if i.number() == n {
			t, err := p.newToken(ctx, i)
			if err == nil {
				a.expect("every instance accepts the token", 0, func(*view) bool { return t.accepted() })
			}
			return err
		}
	}
	return fmt.Errorf("instance %d is stopped", n+1)
}

func (p *page) stop(ctx context.Context, n int, a *act) error {
	i, err := p.one()
	if err != nil {
		return err
	}
	token, err := p.demo.token(ctx, i.url)
	if err != nil {
		return err
	}
	if err := p.fleet.stop(n); err != nil {
		return err
	}
	answers := 0
	for range 2 * fleetSize {
		if answer, _, err := p.demo.hello(ctx, p.fleet.issuer, token); err == nil && answer.StatusCode == http.StatusOK {
			answers++
		}
	}
	a.expect("the proxy skips it", 0, func(*view) bool { return answers == 2*fleetSize || len(p.fleet.running()) == 0 })
	return nil
}

func (p *page) start(ctx context.Context, n int, a *act) error {
	if err := p.fleet.start(ctx, n); err != nil {
		return err
	}
	a.expect("it signs with the same key as the others", refreshEvery, func(v *view) bool { return signsWith(v.Instances[n].KeyID)(v) })
	return nil
}

func (p *page) rotate(ctx context.Context, _ int, a *act) error {
	i, err := p.one()
	if err != nil {
		return err
	}
	if _, err := p.newToken(ctx, i); err != nil {
		return err
	}
	if err := i.signer.Rotate(ctx); err != nil {
		return err
	}
	status := i.signer.Status()
	at := slices.IndexFunc(status.Keys, func(k fleetkey.KeyInfo) bool { return k.Role == fleetkey.RoleAnnounced })
	if at < 0 {
		return errors.New("no key is announced")
	}
	old, next := status.SigningKeyID, status.Keys[at].KeyID
	a.expect("every instance has the new key", refreshEvery, everywhere(func(i shown) bool { return i.Roles[next] != "" }))
	a.expect("every instance signs with it", announce, signsWith(next))
	a.always("tokens of the old key stay valid", announce+tokenTTL, stayGood(old))
	a.expect("the old key is gone", announce+retain+clockSkew, everywhere(func(i shown) bool {
		return i.Roles[old] == fleetkey.RoleGone || i.Roles[old] == ""
	}))
	return nil
}

func (p *page) revoke(ctx context.Context, _ int, a *act) error {
	i, err := p.one()
	if err != nil {
		return err
	}
	stolen, err := p.newToken(ctx, i)
	if err != nil {
		return err
	}
	kid := stolen.KeyID
	if err := i.signer.Revoke(ctx, kid); err != nil {
		return err
	}
	a.expect("every instance knows of the revocation", refreshEvery, everywhere(func(i shown) bool { return i.Roles[kid] == fleetkey.RoleRevoked }))
	a.expect("every instance rejects the key's tokens", refreshEvery+time.Second, func(*view) bool {
		return stolen.refused() && !slices.Contains(stolen.Tried[:], "accepted")
	})
	a.expect("a fresh key signs at every instance", refreshEvery, func(v *view) bool {
		first := slices.IndexFunc(v.Instances[:], func(i shown) bool { return i.Running && i.KeyID != "" && i.KeyID != kid })
		return first >= 0 && signsWith(v.Instances[first].KeyID)(v)
	})
	return nil
}

func (p *page) fail(_ context.Context, _ int, a *act) error {
	p.tap.failing.Store(true)
	a.expect("every instance notices", 2*refreshEvery, everywhere(func(i shown) bool { return i.Failures > 0 }))
	a.always("every instance can issue and accepts every token", 10*time.Second, func(v *view) bool {
		return everywhere(func(i shown) bool { return i.KeyID != "" })(v) && !slices.ContainsFunc(v.Tokens, func(t *token) bool {
			return t.live() && t.refused() && !slices.ContainsFunc(v.Keys, func(k *key) bool { return k.KeyID == t.KeyID && k.role() == fleetkey.RoleRevoked })
		})
	})
	return nil
}

func (p *page) recover(_ context.Context, _ int, a *act) error {
	p.tap.failing.Store(false)
	a.expect("every instance has read the store again", 2*refreshEvery, everywhere(func(i shown) bool { return i.Failures == 0 }))
	return nil
}

// exchange replaces the bundle with another fleet's, which no operator should do.
func (p *page) exchange(ctx context.Context, _ int, a *act) error {
	i, err := p.one()
	if err != nil {
		return err
	}
	old, err := p.newToken(ctx, i)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "openid-server-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	others := fleetkey.NewFileStore(filepath.Join(dir, "keys.pem"))
	other, err := fleetkey.NewSigner(ctx, others, fleetkey.Config{Issuer: p.fleet.issuer})
	if err != nil {
		return err
	}
	kid := other.Status().SigningKeyID
	bundle, _, err := others.Load(ctx)
	if err = errors.Join(err, other.Close()); err != nil {
		return err
	}
	store, err := p.fleet.open()
	if err != nil {
		return err
	}
	_, version, err := store.Load(ctx)
	if err != nil {
		return err
	}
	if _, err := store.Save(ctx, bundle, version); err != nil {
		return err
	}
	a.expect("every instance signs with the key in the new bundle", refreshEvery, signsWith(kid))
	a.always("tokens of the old key stay valid", tokenTTL, stayGood(old.KeyID))
	return nil
}
