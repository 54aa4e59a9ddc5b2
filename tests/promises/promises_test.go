// Package promises proves the promises of docs/design.md (P1 to P8) on random histories of a
// fleet: instances start with different configurations, rotate, revoke, adopt and stop;
// operators import, edit, roll back, swap, cut off and delete the bundle; stores fail and
// lag; clocks are wrong, jump and stand still. A model that knows the promises but not the
// code judges what each instance signs, accepts, publishes and writes. Where the
// documentation makes no promise, the model does not judge.
//
// A history is data that pgregory.net/rapid draws and, if a promise is broken, shrinks.
// It runs in virtual time and returns a verdict, and the test fails outside of the bubble.
// TestFound runs histories that the short form does not draw. The other tests are cases with
// texts, dates or numbers of writes that the model does not know; one of them repeats the life
// of a key in FIPS 140-3 mode. The short form always runs the same 200 histories. The long form
// runs 10,000 that differ from run to run:
//
//	FLEETKEY_LONG=1 go test -v -timeout 1h ./tests/promises
//
// -rapid.seed and -rapid.checks choose others. The seed decides what happens, but not the
// jitter of the Signers.
package promises

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A history is what happens to a fleet.
type history struct {
	Policy, First int // index of policies; algorithm of the first bundle, 0: no bundle
	Fleet, Start  int // machines that start at once; their configuration
	Fault         int // of the first machine's store; repeated calls get through
	Steps         []step
}

// A step is an operation, on a machine, with a number that says how.
type step struct {
	Op       op
	Who, Arg int
}

func (s step) String() string { return fmt.Sprintf("%s %d/%d", s.Op, s.Who, s.Arg) }

// refused is the index of the policy that NewSigner refuses by the bound of P6.
const refused = 3

var policies = []fleetkey.Config{
	{MaxTokenTTL: time.Hour, ClockSkew: time.Minute, RefreshEvery: 5 * time.Minute, JWKSMaxAge: 15 * time.Minute,
		Rotation: fleetkey.Rotation{Announce: 24 * time.Hour, Retain: 24 * time.Hour}},
	{MaxTokenTTL: time.Hour, ClockSkew: 30 * time.Second, RefreshEvery: 5 * time.Minute, JWKSMaxAge: time.Minute, // close to its bounds
		Rotation: fleetkey.Rotation{Every: 6 * time.Hour, Announce: 12 * time.Minute, Retain: 61 * time.Minute}},
	{MaxTokenTTL: time.Hour, ClockSkew: time.Minute, RefreshEvery: 15 * time.Minute, JWKSMaxAge: 15 * time.Minute,
		Rotation: fleetkey.Rotation{Every: 3 * day, Announce: 6 * time.Hour, Retain: 24 * time.Hour}},
	{MaxTokenTTL: time.Hour, ClockSkew: time.Second, RefreshEvery: 30 * time.Second, JWKSMaxAge: 5 * time.Second,
		Rotation: fleetkey.Rotation{Every: 6 * time.Hour, Announce: 67 * time.Second, Retain: time.Hour + 2*time.Second}},
}

var (
	args = slices.Collect(func(yield func(int) bool) {
		for i := range 512 {
			yield(i)
		}
	})
	// The configurations of a whole fleet: former systems, adoption, read-only stores, or none.
	starts = []int{256, 256 + 1<<3, 256 + 2<<3, 256 + 4<<3, 256 + 6<<3, 256 + 7<<3, 256 + 64, 256 + 64 + 6<<3, 256 + 3*64}
)

// histories draws a history of a few kinds of operation, so that each kind is
// missing from some. SampledFrom draws all values equally often; IntRange does not.
var histories = rapid.Custom(func(t *rapid.T) history {
	kinds := append(rapid.SliceOfNDistinct(rapid.SampledFrom(ops), 1, len(ops), rapid.ID).Draw(t, "kinds"), pass, pass)
	steps := rapid.Custom(func(t *rapid.T) step {
		return step{rapid.SampledFrom(kinds).Draw(t, "op"), rapid.SampledFrom(args[:3]).Draw(t, "who"), rapid.SampledFrom(args).Draw(t, "arg")}
	})
	return history{
		Policy: rapid.SampledFrom(args[:refused]).Draw(t, "policy"),
		First:  rapid.SampledFrom(args[:4]).Draw(t, "first"),
		Fleet:  1 + rapid.SampledFrom(args[:3]).Draw(t, "fleet"),
		Start:  rapid.SampledFrom(starts).Draw(t, "start"),
		Fault:  rapid.SampledFrom(args[:lostReplies+1]).Draw(t, "fault"),
		Steps:  rapid.SliceOfN(steps, 1, 40).Draw(t, "steps"),
	}
})

func init() { // before the command line is read
	for name, value := range map[string]string{"rapid.checks": testkit.Long("200", "10000"), "rapid.seed": testkit.Long("1", "0"), "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

func TestHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h, verdict := histories.Draw(rt, "history"), ""
		synctest.Test(t, func(*testing.T) { verdict = run(h) })
		if verdict != "" {
			rt.Fatal(verdict)
		}
	})
}

// run runs a history and returns the first promise that was broken, or "".
func run(h history) string {
	f := newFleet(h)
	f.step = "the start"
	f.machines[0].fault.Store(int32(h.Fault))
	var all sync.WaitGroup
	for _, m := range f.machines[:h.Fleet] {
		all.Go(func() { f.start(m, h.Start) })
	}
	all.Wait()
	for i, s := range h.Steps {
		f.check(i)
		if f.verdict != "" {
			break
		}
		f.mu.Lock()
		f.step = fmt.Sprintf("step %d (%v)", i, s)
		f.mu.Unlock()
		f.do(s)
	}
	if f.verdict == "" {
		f.settle()
	}
	for _, m := range f.machines {
		m.stop()
	}
	return f.verdict
}

// settle heals everything and waits. Then the fleet must agree.
func (f *fleet) settle() {
	f.check(0)
	f.mu.Lock()
	f.step = "the end of " + f.step
	f.mu.Unlock()
	for _, m := range f.machines {
		m.fault.Store(healthy)
		m.Set(0)
		if m.in != nil {
			m.in.jumped()
		}
	}
	time.Sleep(6*time.Hour + f.policy.Rotation.Announce + 4*f.policy.RefreshEvery)
	f.check(1)
	content, all, complete := f.content(), f.running(), true
	if content.Bad != "" || f.verdict != "" {
		return
	}
	for _, in := range all {
		status, lost := in.signer.Status(), 0
		for kid := range in.revoked {
			if !content.Revoked[kid] {
				lost++
			}
		}
		complete = complete && lost == 0
		if lost > 0 && in.cfg.Rotation.Every > 0 && !in.mounted {
			f.breaks("P2", "%d revocations were not written back", lost)
		}
		if lost != status.LostRevocations || lost > 0 && len(status.Warnings()) == 0 {
			f.breaks("P2", "the store has lost %d revocations, but Status reports %d and warns %q", lost, status.LostRevocations, status.Warnings())
		}
		if in.mounted != status.ReadOnly {
			f.breaks("P6", "ReadOnly is %v", status.ReadOnly)
		}
		if status.RotationErr != nil {
			f.breaks("P5", "the last rotation failed, although all is well: %v", status.RotationErr)
		}
	}
	if k, _ := signing(content, time.Now()); k == nil || !complete {
		return
	}
	for _, in := range all {
		raw, err := in.signer.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
		for _, other := range all {
			if err == nil && other.verify(raw) != nil && other.cfg.MaxTokenTTL >= in.cfg.MaxTokenTTL {
				f.breaks("valid tokens", "a token of one instance is refused by another, although all is well: %v", other.verify(raw))
			}
		}
	}
}
