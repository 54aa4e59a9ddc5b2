package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// What the instances, the operators and the thieves do.

// live runs an instance.
func (in *seat) live() {
	rng := in.f.rng(in.id)
	in.up(rng)
	for in.f.pause(rng, betweenActs) {
		switch n := rng.IntN(20); {
		case n < 8:
			in.issue(in.life.Load())
		case n == 8:
			in.f.history.acted("refresh", in.life.Load().Refresh(context.Background()))
		default:
			in.verify(rng)
		}
	}
}

func (in *seat) issue(life *life) {
	h, status := in.f.history, life.Status()
	exp := time.Now().Add(in.offset + policy.MaxTokenTTL).Truncate(time.Second)
	raw, err := life.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web", ExpiresAt: exp})
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
		h.tokens = append(h.tokens, &token{raw, exp, status.Version})
	case !time.Now().Add(in.offset).Before(exp): // stalled for the life of a token
	case errors.Is(err, fleetkey.ErrStale) && time.Since(status.LastLoad) > longestOutage:
	default:
		h.faulty("an instance did not issue: %v", err)
	}
}

// verify checks one of the last tokens that any instance has issued.
func (in *seat) verify(rng *rand.Rand) {
	h := in.f.history
	h.mu.Lock()
	n := len(h.tokens)
	if n == 0 {
		h.mu.Unlock()
		return
	}
	v := verdict{token: h.tokens[n-1-rng.IntN(min(n, 25))]}
	h.mu.Unlock()
	life := in.life.Load()
	v.loads = *life.loads.Load()
	v.knew, v.begin = life.Status().Version, time.Now()
	_, v.err = life.Verify(context.Background(), v.token.raw)
	v.end = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdicts = append(h.verdicts, v)
	h.done[map[bool]string{true: "accept", false: "reject"}[v.err == nil]]++
}

// restart restarts instances, one at a time.
func (f *fleet) restart() {
	rng := f.rng(101)
	for f.pause(rng, betweenRestarts) {
		in := f.seats[rng.IntN(len(f.seats))]
		old := in.life.Load()
		if old == nil {
			continue
		}
		if err := old.Close(); err != nil {
			f.history.acted("close", err)
		}
		in.up(rng) // until then the old one works from memory
		f.history.acted("restart", nil)
	}
}

// operate does by hand what people do.
func (f *fleet) operate() {
	rng := f.rng(102)
	for f.pause(rng, betweenOperations) {
		s := f.seats[rng.IntN(len(f.seats))].life.Load()
		if s == nil {
			continue
		}
		if rng.IntN(2) == 0 {
			f.history.acted("rotate", s.Rotate(context.Background()))
			continue
		}
		keys := s.Status().Keys
		kid := keys[rng.IntN(len(keys))].KeyID
		f.history.ask(kid)
		err := s.Revoke(context.Background(), kid)
		if f.history.acted("revoke", err); err == nil {
			f.steal(kid)
		}
	}
}

func (h *history) ask(kid string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[kid] = true
}

// steal has a thief sign with a key that was revoked just now.
func (f *fleet) steal(kid string) {
	h := f.history
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.chain {
		k := c.keys[kid]
		if !k.Signs() {
			continue
		}
		exp := time.Now().Add(policy.MaxTokenTTL).Truncate(time.Second)
		for range 5 {
			raw, err := testkit.Forge(k.Private, kid, time.Now(), exp)
			if err != nil {
				h.faulty("a thief cannot sign: %v", err)
				return
			}
			h.tokens = append(h.tokens, &token{raw, exp, c.version})
		}
		return
	}
}
