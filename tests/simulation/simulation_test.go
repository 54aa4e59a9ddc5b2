// Package simulation proves that rotation loses no token. Whole fleets of real Signers share
// a store in memory, in virtual time. Clocks are off, instances restart, sleep and lose their
// store, the store fails, stalls and lags, operators make mistakes, and tokens are signed and
// checked all the time, especially around critical moments. A model that knows nothing about
// the implementation judges every verdict.
//
// NewSigner rejects a policy that breaks a bound. So the second test keeps the policy and
// breaks the world instead: each of its fleets meets something that Config rules out, and the
// model must see that tokens are lost.
//
// The short form runs 20 instances for half a year and takes seconds; with the race
// detector the fleets are smaller. The long form runs 500 instances for five years and
// takes 25 minutes on two cores:
//
//	FLEETKEY_LONG=1 go test -run TestSimulation -v -timeout 2h ./tests/simulation
//
// A seed decides what happens. It does not decide the jitter of the Signers or the order
// of events at the same instant, so two runs differ a little.
package simulation

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const (
	day  = testkit.Day
	year = 365 * day
)

// policyOf returns a policy for clocks that are off by 5 minutes. Instances read the
// store every 4 hours instead of every 5 minutes, so that years pass quickly; the other
// times are longer in proportion.
func policyOf(every, announce, retain time.Duration) fleetkey.Config {
	cfg := testkit.Config()
	cfg.MaxTokenTTL, cfg.ClockSkew, cfg.RefreshEvery, cfg.JWKSMaxAge = time.Hour, 5*time.Minute, 4*time.Hour, time.Hour
	cfg.CachedTokens = 100
	cfg.Rotation = fleetkey.Rotation{Every: every, Announce: announce, Retain: retain}
	return cfg
}

// tightPolicy returns a policy with the smallest Announce and Retain that NewSigner accepts.
func tightPolicy(every time.Duration) fleetkey.Config {
	p := policyOf(every, 0, 0)
	p.Rotation.Announce = 2*p.RefreshEvery + p.JWKSMaxAge + 2*p.ClockSkew
	p.Rotation.Retain = p.MaxTokenTTL + 2*p.ClockSkew
	return p
}

// usual returns the fleet that all scenarios are variations of.
func usual() scenario {
	sc := scenario{
		instances: testkit.Long(20, 500), externals: testkit.Long(6, 20), span: testkit.Long(year/2, 5*year), clocks: 5 * time.Minute,
		policy: policyOf(30*day, day, day), tokenEvery: testkit.Long(12*time.Hour, time.Hour), burst: testkit.Long(30, 1000),
		restartEvery: testkit.Long(6*time.Hour, 2*time.Hour), cutEvery: testkit.Long(4*day, day), outageChance: 0.5,
		sleepEvery: testkit.Long(2*day, day),
	}
	if testkit.Long(testkit.Race(), false) {
		sc.instances, sc.externals, sc.span = 10, 3, year/4
	}
	return sc
}

// sound returns the scenarios in which no token may be lost.
func sound() []*scenario {
	tight := usual()
	tight.name, tight.policy = "at the bounds", tightPolicy(10*day)
	tight.outageChance = 0 // these bounds leave no time for one

	roomy := usual()
	roomy.name = "Announce and Retain 24 h"
	roomy.outage = roomy.longestOutage()

	operators := usual()
	operators.name, operators.outage = "operators at work", operators.longestOutage()
	operators.rotateEvery, operators.revokeEvery, operators.rollBack = testkit.Long(20*day, 100*day), testkit.Long(15*day, 60*day), 0.3
	operators.swapEvery = testkit.Long(40*day, 150*day)

	deployments := usual()
	deployments.name = "policies deployed"
	off, other := policyOf(0, day, day), policyOf(20*day, 3*day, day)
	other.Algorithm = "EdDSA"
	part, takes := deployments.span/6, deployments.span/36
	deployments.policy = off // on a certificate of ten years
	deployments.changes = []change{
		{1 * part, takes, policyOf(30*day, day, day)},
		{2 * part, takes, other},
		{4 * part, takes, policyOf(45*day, day, 2*day)},
		{5 * part, takes, off},
	}
	deployments.outage = deployments.longestOutage()

	return []*scenario{&tight, &operators, &roomy, &deployments}
}

// broken returns scenarios in which tokens must be lost. The policy is at its bounds,
// and the world breaks one of them. wants is a reason that the model must find.
func broken() []*scenario {
	world := func(name, wants string, change func(*scenario)) *scenario {
		sc := scenario{
			name: name, wants: wants, instances: 20, externals: 6, span: 20 * day, clocks: 5 * time.Minute, policy: tightPolicy(5 * day),
			tokenEvery: 6 * time.Hour, burst: 60, restartEvery: 6 * time.Hour,
		}
		change(&sc)
		return &sc
	}
	const atInstance, atClient = "instance: unknown key", "external: not in the cached JWKS"
	return []*scenario{
		world("JWKS cached for longer than JWKSMaxAge", atClient, func(sc *scenario) { sc.cached = 2 * sc.policy.Rotation.Announce }),
		world("clocks off by more than ClockSkew", "instance: token is expired", func(sc *scenario) { sc.clocks *= 3 }),
		world("reads that lag by 2 RefreshEvery", atInstance, func(sc *scenario) { sc.lag = 2 * sc.policy.RefreshEvery }),
		world("MaxTokenTTL raised along with the lifetimes", "instance: claims are invalid", func(sc *scenario) {
			longer := policyOf(5*day, day, day)
			longer.MaxTokenTTL = 4 * time.Hour
			sc.changes = []change{{5 * day, 10 * day, longer}}
		}),
		world("store down for all of Announce", "published for too short a time", func(sc *scenario) {
			sc.policy = policyOf(5*day, day, day)
			sc.outage, sc.outageChance = day+2*time.Hour, 1
		}),
		world("store down for longer than the limit", "published for too short a time", func(sc *scenario) {
			sc.policy = policyOf(5*day, day, day)
			sc.policy.JWKSMaxAge = 8 * time.Hour
			sc.outage, sc.outageChance = sc.longestOutage()+sc.policy.JWKSMaxAge, 1
		}),
	}
}

func TestSimulation(t *testing.T) {
	simulate(t, sound(), func(t *testing.T, m *model) {
		sc := m.f.sc
		assert.Empty(t, m.wrong, "tokens rejected or accepted wrongly, signing refused although the store was read, keys that were not due")
		assert.Equal(t, 1, m.firsts, "first keys")
		assert.LessOrEqual(t, m.mostKeys, int(sc.policy.Rotation.Retain/sc.leastEvery())+5, "keys in the bundle")
		if len(sc.changes) == 0 {
			// A key that replaces a revoked one counts as a rotation: the next is due Every later.
			assert.Greater(t, m.announced+m.atOnce-m.firsts, int(sc.span/sc.leastEvery())*2/3, "it does rotate")
		}
		if sc.outage == 0 && len(sc.changes) == 0 { // where enough keys are announced to be sure of it
			assert.NotZero(t, m.stale, "some instances were cut off for so long that they had to stop")
		}
		assert.Greater(t, m.checks, 2*m.tokens)
	})
}

func TestSimulationOfBrokenWorlds(t *testing.T) {
	simulate(t, broken(), func(t *testing.T, m *model) {
		assert.Contains(t, m.wrong, m.f.sc.wants, "the simulation does not notice that this world breaks the policy")
	})
}

// simulate runs scenarios, as many at a time as -parallel says, checks each, and prints
// their table.
func simulate(t *testing.T, all []*scenario, check func(*testing.T, *model)) {
	if testing.Short() {
		t.Skip("skipped: it simulates years; without -short it runs")
	}
	rows := make([]string, len(all))
	t.Run("fleet", func(t *testing.T) {
		for i, sc := range all {
			sc.seed = uint64(i + 1)
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				begin := time.Now()
				synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
					m := sc.run(t)
					rows[i] = m.row()
					t.Logf("%d keys in a bundle at most, wrong: %v, rejected rightly or inevitably: %v", m.mostKeys, m.wrong, m.beyond)
					check(t, m)
				})
				t.Logf("took %v", time.Since(begin).Round(time.Second))
			})
		}
	})
	t.Logf("simulated:\n\n| world | instances | days | tokens | checks | rotations | rejected wrongly | accepted wrongly | signing refused wrongly | stale refusals |\n"+
		"|---|---|---|---|---|---|---|---|---|---|\n%s", strings.Join(rows, "\n"))
}

func (m *model) row() string {
	rejected, accepted, refused := 0, 0, 0
	for reason, n := range m.wrong {
		switch {
		case strings.Contains(reason, "accepted"):
			accepted += n
		case strings.HasPrefix(reason, "not signed"):
			refused += n
		default:
			rejected += n
		}
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d |", m.f.sc.name, m.f.sc.instances, m.f.sc.span/day,
		m.tokens, m.checks, m.announced, rejected, accepted, refused, m.stale)
}
