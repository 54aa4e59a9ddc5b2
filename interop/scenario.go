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

// never stands for the time of an event that has not happened.
const never = time.Duration(-1)

// A trial is one client's run of the story with one algorithm.
type trial struct {
	client    *client
	algorithm string
	services  []*service // to be stopped
	failed    []string   // what went wrong
	lacking   bool       // the client does not know the algorithm, as listed

	// What may be true or false.
	typed  bool // an ID token for the API's audience is refused, by its typ
	outage bool // the new key works without another fetch

	// The time after Revoke until a running client accepts tokens of the fresh key, and rejects
	// those of the revoked key: if it gets both, and if it gets only the revoked key's.
	fresh, beside, alone time.Duration
}

// play runs the story with one algorithm: a key is replaced, and its successor is stolen and
// revoked. After that it tests the clients until patience ends, but at least once.
func play(ctx context.Context, algorithm string, clients []*client, patience time.Duration) (trials []*trial) {
	f := newFleet(ctx, algorithm)
	defer f.close()
	old, oldKey := f.issue(ctx)
	check(f.issuing.Rotate(ctx))
	f.refresh(ctx)
	announced := f.published()
	expect(len(announced) == 2 && f.issuing.SigningKey().KeyID == oldKey, "the successor must be announced and must not sign")
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
	expect(newKey != oldKey && slices.Contains(announced, newKey), "the successor must sign")
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
	expect(slices.Equal(f.published(), []string{newKey}), "the old key must leave the JWKS")
	for _, t := range able {
		t.accepts(ctx, kept[t], signed, "the old key has left")
		t.accepts(ctx, watched[t], signed, "the old key has left")
	}

	check(f.issuing.Revoke(ctx, newKey))
	f.refresh(ctx)
	revoked := time.Now()
	fresh, freshKey := f.issue(ctx)
	expect(freshKey != newKey && slices.Equal(f.published(), []string{freshKey}), "a fresh key must replace the revoked one")
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

// expect checks the test itself: if it fails, the results are meaningless.
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

// tries reports whether a client accepts an algorithm that it is listed as lacking, as
// another version may. Then it must pass like the others.
func (t *trial) tries(ctx context.Context, f *fleet, token string) bool {
	s, err := t.client.start(ctx, f)
	if err != nil {
		return false
	}
	t.services = append(t.services, s)
	return t.ask(ctx, s, token).accepted
}

// late restarts the client after the revocation. It must accept only the fresh key, and of
// its tokens only valid access tokens for the API.
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

// watch measures when services that ran before a revocation learn of it.
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
