package main

import (
	"bytes"
	"context"
	_ "embed" // the page
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file serves the page that shows the fleet. Its buttons are in acts.go.

//go:embed page.html
var pageHTML []byte

const (
	tick       = 250 * time.Millisecond // between two updates of the view
	tokensKept = 8
)

// A view is what the page shows.
type view struct {
	Store     string            `json:"store"`
	Failing   bool              `json:"failing"`
	Held      *held             `json:"held"`
	Instances [fleetSize]shown  `json:"instances"`
	Keys      []*key            `json:"keys"` // oldest first
	Tokens    []*token          `json:"tokens"`
	Acts      []*act            `json:"acts"`
	Buttons   map[string]button `json:"buttons"`
}

// shown is what the page shows of an instance.
type shown struct {
	Name     string                   `json:"name"`
	URL      string                   `json:"url"`
	Running  bool                     `json:"running"`
	KeyID    string                   `json:"kid"` // of its signing key
	Roles    map[string]fleetkey.Role `json:"-"`   // of each key that it knows
	Issued   uint64                   `json:"issued"`
	Accepted uint64                   `json:"accepted"`
	Refused  uint64                   `json:"refused"`
	Failures int                      `json:"failures"` // failed loads since the last good one
	Problem  string                   `json:"problem"`
}

// A key is one that some instance knows now or knew earlier.
type key struct {
	KeyID        string    `json:"kid"`
	Algorithm    string    `json:"alg"`
	TrustedUntil time.Time `json:"trusted_until,omitzero"`
	Life         []period  `json:"life"`
}

// A period of a key's life ends when the next one begins.
type period struct {
	Role fleetkey.Role `json:"role"`
	From time.Time     `json:"from"`
}

// A token is one that the page has obtained and tries again each second.
type token struct {
	KeyID   string            `json:"kid"`
	By      string            `json:"by"` // the instance that issued it
	Expires time.Time         `json:"expires"`
	Tried   [fleetSize]string `json:"tried"` // the last answer of each instance: accepted, refused or ""

	text string
}

func (t *token) refused() bool  { return strings.Contains(strings.Join(t.Tried[:], " "), "refused") }
func (t *token) accepted() bool { return !t.refused() && strings.Join(t.Tried[:], "") != "" }
func (t *token) live() bool     { return time.Now().Before(t.Expires) }

// A page shows and operates a fleet.
type page struct {
	fleet *fleet
	tap   *tap
	demo  demo

	mu      sync.Mutex
	view    view
	json    []byte
	changed chan struct{} // closed when json changes
}

func newPage(f *fleet, t *tap, d demo) *page {
	return &page{fleet: f, tap: t, demo: d, changed: make(chan struct{}), view: view{Buttons: buttons}}
}

// watch updates the view until ctx ends.
func (p *page) watch(ctx context.Context) {
	for n := 0; ; n++ {
		if n%int(time.Second/tick) == 0 {
			p.tryTokens(ctx)
		}
		p.look()
		select {
		case <-ctx.Done():
			return
		case <-time.After(tick):
		}
	}
}

// look updates the view without reading the store: it asks the instances for their status,
// which is in memory.
func (p *page) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.Failing, p.view.Held = p.tap.failing.Load(), p.tap.held.Load()
	for i := range p.view.Instances {
		p.view.Instances[i].Running = false
	}
	known := map[string]fleetkey.Role{}
	for _, i := range p.fleet.running() {
		status := i.signer.Status()
		p.view.Store = status.Store
		show(&p.view.Instances[i.number()], i, status)
		for _, k := range status.Keys {
			known[k.KeyID] = k.Role
			p.record(k)
		}
	}
	for _, k := range p.view.Keys {
		if _, is := known[k.KeyID]; !is {
			k.become(fleetkey.RoleGone)
		}
	}
	for _, a := range p.view.Acts {
		a.check(&p.view)
	}
	if now, err := json.Marshal(p.view); err == nil && !bytes.Equal(now, p.json) {
		p.json = now
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

func show(s *shown, i *instance, status fleetkey.Status) {
	*s = shown{Name: i.name, URL: i.url, Running: true, KeyID: status.SigningKeyID, Roles: map[string]fleetkey.Role{},
		Issued: status.Counters.Issued, Failures: status.Failures}
	for _, k := range status.Keys {
		s.Roles[k.KeyID] = k.Role
	}
	for outcome, n := range status.Counters.Verified {
		if outcome == "accepted" {
			s.Accepted = n
		} else {
			s.Refused += n
		}
	}
	if status.Err != nil {
		s.Problem = status.Err.Error()
	} else if status.LoadErr != nil {
		s.Problem = status.LoadErr.Error()
	}
}

// record notes a key's current role.
func (p *page) record(info fleetkey.KeyInfo) {
	for _, k := range p.view.Keys {
		if k.KeyID == info.KeyID {
			k.TrustedUntil = info.TrustedUntil
			k.become(info.Role)
			return
		}
	}
	k := &key{KeyID: info.KeyID, Algorithm: info.Algorithm, TrustedUntil: info.TrustedUntil}
	k.become(info.Role)
	p.view.Keys = append(p.view.Keys, k)
}

// life is the order in which roles follow each other.
var life = []fleetkey.Role{fleetkey.RoleAnnounced, fleetkey.RoleSigning, fleetkey.RoleRetired, fleetkey.RoleRevoked, fleetkey.RoleGone}

// become adds a period to a key's life. Roles only move forward, because instances refresh
// one after the other and differ for a moment.
func (k *key) become(role fleetkey.Role) {
	if slices.Index(life, role) > slices.Index(life, k.role()) {
		k.Life = append(k.Life, period{role, time.Now()})
	}
}

func (k *key) role() fleetkey.Role {
	if len(k.Life) == 0 {
		return ""
	}
	return k.Life[len(k.Life)-1].Role
}

// newToken gets a token from one instance and tries it at all.
func (p *page) newToken(ctx context.Context, i *instance) (*token, error) {
	text, err := p.demo.token(ctx, i.url)
	if err != nil {
		return nil, err
	}
	t := &token{By: i.name, Expires: time.Now().Add(tokenTTL), text: text}
	p.try(ctx, t)
	if t.KeyID == "" {
		return nil, fmt.Errorf("no instance accepts the token of instance %s", i.name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.Tokens = append([]*token{t}, p.view.Tokens[:min(len(p.view.Tokens), tokensKept-1)]...)
	return t, nil
}

func (p *page) tryTokens(ctx context.Context) {
	p.mu.Lock()
	tokens := append([]*token{}, p.view.Tokens...)
	p.mu.Unlock()
	for _, t := range tokens {
		if t.live() {
			p.try(ctx, t)
		}
	}
}

// try presents a token to each running instance.
func (p *page) try(ctx context.Context, t *token) {
	var tried [fleetSize]string
	var kid string
	for _, i := range p.fleet.running() {
		answer, body, err := p.demo.hello(ctx, i.url, t.text)
		switch {
		case err != nil: // stopped in the meantime
		case answer.StatusCode == http.StatusOK:
			tried[i.number()] = "accepted"
			kid = body.KeyID
		default:
			tried[i.number()] = "refused"
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.live() {
		t.Tried = tried
	}
	if t.KeyID == "" {
		t.KeyID = kid
	}
}

// handler serves the page, its events and its buttons. It answers only requests for the
// proxy's address that come from the page itself, so that no other website can press a
// button.
func (p *page) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'")
		_, _ = w.Write(pageHTML)
	})
	mux.HandleFunc("GET /fleet/events", p.events)
	mux.HandleFunc("POST /fleet/{act}", p.act)
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if "http://"+r.Host != p.fleet.issuer {
			http.Error(w, "this page is at "+p.fleet.issuer, http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return new(http.CrossOriginProtection).Handler(own)
}

// events sends the view whenever it changes (server-sent events).
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // the proxy's deadline would end the stream
	for {
		p.mu.Lock()
		now, changed := p.json, p.changed
		p.mu.Unlock()
		if _, err := fmt.Fprintf(w, "data: %s\n\n", now); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}
