package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetkey/fleetkey/tests/testkit"
)

// algorithms are all that fleetkey signs with.
var algorithms = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}

// never is the time of what has not happened.
const never = time.Duration(-1)

// A trial is one client's way through the story with one algorithm.
type trial struct {
	client    *client
	algorithm string
	services  []*service // to be stopped
	failed    []string   // what went other than it must
	lacking   bool       // the client does not know the algorithm, as is listed

	// What may go either way.
	typed  bool // an ID token for the API's audience is refused, by its typ
	outage bool // the new key works without another fetch

	// How long after Revoke a client that runs accepts tokens of the fresh key, and refuses
	// those of the revoked key: asked for both, and for the revoked key alone.
	fresh, beside, alone time.Duration
}

// play takes clients through the story with one algorithm: a key is replaced, and its
// successor is stolen and revoked. Then it asks them for so long as patience lasts, and once
// at least.
func play(ctx context.Context, algorithm string, clients []*client, patience time.Duration) (trials []*trial) {
	f := newFleet(ctx, algorithm)
	defer f.close()
	old, oldKey := f.issue(ctx)
	check(f.issuing.Rotate(ctx))
	f.refresh(ctx)
	announced := f.published()
	expect(len(announced) == 2 && f.issuing.SigningKey().KeyID == oldKey, "the successor has to be announced and not sign")
	var able []*trial
	kept, watched := map[*trial]*service{}, map[*trial]*service{}
	for _, c := range clients {
		t := &trial{client: c, algorithm: algorithm, fresh: never, beside: never, alone: never}
		trials = append(trials, t)
		defer t.stop()
		if t.lacking = slices.Contains(c.lacks, algorithm) && !t.tries(ctx, f, old); t.lacking {
			continue
		}
		if kept[t], watched[t] = t.start(ctx, f), t.start(ctx, f); len(t.failed) == 0 {
			able = append(able, t)
		}
	}
	for _, t := range able {
		t.accepts(ctx, kept[t], old, "announced")
		t.accepts(ctx, watched[t], old, "announced")
	}

	f.advance(ctx, 24*time.Hour+2*time.Second) // Rotation.Announce
	signed, newKey := f.issue(ctx)
	expect(newKey != oldKey && slices.Contains(announced, newKey), "the successor has to sign")
	f.unreachable.Store(true)
	for _, t := range able {
		t.outage = t.ask(ctx, kept[t], signed).accepted && t.ask(ctx, kept[t], old).accepted
	}
	f.unreachable.Store(false)
	for _, t := range able {
		t.accepts(ctx, kept[t], signed, "the successor signs")
		t.accepts(ctx, kept[t], old, "the successor signs")
	}

	f.advance(ctx, 24*time.Hour) // Rotation.Retain
	signed, _ = f.issue(ctx)
	expect(slices.Equal(f.published(), []string{newKey}), "the old key has to leave the JWKS")
	for _, t := range able {
		t.accepts(ctx, kept[t], signed, "the old key has left")
		t.accepts(ctx, watched[t], signed, "the old key has left")
	}

	check(f.issuing.Revoke(ctx, newKey))
	f.refresh(ctx)
	revoked := time.Now()
	fresh, freshKey := f.issue(ctx)
	expect(freshKey != newKey && slices.Equal(f.published(), []string{freshKey}), "a fresh key has to stand in for the revoked one")
	var wait sync.WaitGroup
	for _, t := range able {
		wait.Go(func() { t.watch(ctx, kept[t], watched[t], fresh, signed, revoked, patience) })
	}
	wait.Wait()
	for _, t := range able {
		t.late(ctx, f, fresh, map[string]string{"the revoked key": signed, "the old key": old})
	}
	return trials
}

// expect guards the test itself: without it the table would mean nothing.
func expect(ok bool, what string) {
	if !ok {
		panic(what)
	}
}

func (t *trial) start(ctx context.Context, f *fleet) *service {
	s, err := t.client.start(ctx, f)
	if err != nil {
		t.fail("cannot be started: %v", err)
		return nil
	}
	t.services = append(t.services, s)
	return s
}

func (t *trial) stop() {
	for _, s := range t.services {
		s.stop()
	}
}

func (t *trial) fail(format string, args ...any) {
	t.failed = append(t.failed, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

func (t *trial) ask(ctx context.Context, s *service, token string) answer {
	a, err := s.ask(ctx, token)
	if err != nil {
		t.fail("does not answer: %v", err)
	}
	a.words = strings.NewReplacer(token, "TOKEN", testkit.KeyID(token), "KID").Replace(a.words)
	return a
}

func (t *trial) accepts(ctx context.Context, s *service, token, when string) {
	if a := t.ask(ctx, s, token); !a.accepted {
		t.fail("%s: refused: %s", when, a.words)
	} else if !strings.Contains(a.words, subject) {
		t.fail("%s: accepted, but not for %s: %s", when, subject, a.words)
	}
}

func (t *trial) refuses(ctx context.Context, s *service, token, what string) {
	if t.ask(ctx, s, token).accepted {
		t.fail("accepts a token of %s", what)
	}
}

// tries reports whether a client that is listed without an algorithm accepts it all the same,
// as another version may. Then it has to pass like the others.
func (t *trial) tries(ctx context.Context, f *fleet, token string) bool {
	s, err := t.client.start(ctx, f)
	if err != nil {
		return false
	}
	t.services = append(t.services, s)
	return t.ask(ctx, s, token).accepted
}

// late starts the client again, after the revocation. It must accept the fresh key alone, and of
// that nothing that is not a valid access token for the API.
func (t *trial) late(ctx context.Context, f *fleet, fresh string, gone map[string]string) {
	s := t.start(ctx, f)
	if s == nil {
		return
	}
	t.accepts(ctx, s, fresh, "a fresh key")
	for what, token := range gone {
		t.refuses(ctx, s, token, what)
	}
	t.refuses(ctx, s, breakSignature(fresh), "a broken signature")
	for what, change := range map[string]map[string]any{
		"another audience": {"aud": "https://other.example.com"},
		"another issuer":   {"iss": "https://other.example.com"},
		"an hour ago":      {"iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()},
	} {
		t.refuses(ctx, s, f.sign(ctx, "at+jwt", change), what)
	}
	t.accepts(ctx, s, f.sign(ctx, "at+jwt", nil), "a token like these, unchanged")
	t.typed = !t.ask(ctx, s, f.sign(ctx, "JWT", nil)).accepted
}

// watch asks services that ran before a revocation when they learn of it.
func (t *trial) watch(ctx context.Context, kept, watched *service, fresh, revoked string, since time.Time, patience time.Duration) {
	look := func(at *time.Duration, s *service, token string, accepted bool) {
		if *at == never && t.ask(ctx, s, token).accepted == accepted {
			*at = time.Since(since)
		}
	}
	for {
		look(&t.fresh, watched, fresh, true)
		look(&t.beside, watched, revoked, false)
		look(&t.alone, kept, revoked, false)
		if min(t.fresh, t.beside, t.alone) != never || time.Since(since) > patience || len(t.failed) > 0 {
			return
		}
		time.Sleep(patience / 200)
	}
}
