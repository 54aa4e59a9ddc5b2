package fleetkey_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleetkey/fleetkey"
)

// The proof that rotation loses no token: whole fleets of real Signers on a
// store in memory, in virtual time. Clocks are off, instances stop, start and
// lose their store, the store fails, stalls and lags, operators err, and tokens
// are signed and checked all the while, above all around the moments that
// matter. A model that knows nothing of the implementation judges every
// verdict. It has to be able to fail, so it also judges policies that are known
// to lose tokens.
//
// The schedule of what happens comes from a seed. The Signers' own jitter does
// not, and neither does the order of what happens at the same instant, so that
// two runs differ a little.
//
//	go test -run TestSimulation -v .                                  20 instances, 1 year; half of both with -race
//	FLEETKEY_SIM=full go test -run TestSimulation -v -timeout 90m .   500 instances, 5 years
//
// The files: simulation_chaos_test.go is what happens, simulation_fleet_test.go
// the fleet that it happens to, simulation_external_test.go the clients with
// cached keys, simulation_model_test.go the judge, simulation_found_test.go what
// it has found.

const year = 365 * day

// simPolicy is a policy for clocks that are off by 5 minutes. The store is read
// every hour instead of every 5 minutes, so that years pass in seconds; the
// other times are as much longer as the bounds ask for, or more.
func simPolicy(every, announce, retain time.Duration) fleetkey.Config {
	return fleetkey.Config{
		Algorithm: "ES256", MaxTokenTTL: time.Hour, ClockSkew: 5 * time.Minute, RefreshEvery: time.Hour, JWKSMaxAge: time.Hour,
		Rotation: fleetkey.Rotation{Every: every, Announce: announce, Retain: retain},
	}
}

// tightPolicy is a policy at its bounds: Announce and Retain are as short as
// NewSigner accepts.
func tightPolicy(every time.Duration) fleetkey.Config {
	p := simPolicy(every, 0, 0)
	p.Rotation.Announce = 2*p.RefreshEvery + p.JWKSMaxAge + 2*p.ClockSkew
	p.Rotation.Retain = p.MaxTokenTTL + 2*p.ClockSkew
	return p
}

func fullSize() bool { return os.Getenv("FLEETKEY_SIM") == "full" }

// usual is the fleet that the others are variations of.
func usual() simulation {
	sc := simulation{
		instances: 20, externals: 6, span: year, clocks: 5 * time.Minute, policy: simPolicy(30*day, day, day),
		tokenEvery: 4 * time.Hour, burst: 40, restartEvery: 6 * time.Hour, cutEvery: 4 * day, floodEvery: day, outageChance: 0.5,
	}
	if raceDetector { // whose business is not the model, and which takes its time
		sc.instances, sc.externals, sc.span = 10, 3, year/2
	}
	if fullSize() {
		sc.instances, sc.externals, sc.span = 500, 20, 5*year
		sc.tokenEvery, sc.burst, sc.restartEvery, sc.cutEvery = 15*time.Minute, 1000, time.Hour, day
	}
	return sc
}

// sound returns the simulations in which no token may be lost.
func sound() []*simulation {
	roomy := usual()
	roomy.name = "Announce and Retain 24 h"
	roomy.outage = roomy.longestOutage()

	tight := usual()
	tight.name, tight.policy = "at the bounds", tightPolicy(10*day)
	tight.outageChance = 0 // these bounds leave no time for one

	operators := usual()
	operators.name, operators.outage = "operators at work", operators.longestOutage()
	operators.rotateEvery, operators.revokeEvery, operators.rollBack = 100*day, 60*day, 0.3

	deployments := usual()
	deployments.name = "policies deployed"
	off, other := simPolicy(0, day, day), simPolicy(20*day, 3*day, day)
	other.Algorithm = "EdDSA"
	part, takes := deployments.span/6, deployments.span/36
	deployments.policy = off // on a certificate of ten years
	deployments.changes = []simChange{
		{1 * part, takes, simPolicy(30*day, day, day)},
		{2 * part, takes, other},
		{4 * part, takes, simPolicy(45*day, day, 2*day)},
		{5 * part, takes, off},
	}
	deployments.outage = deployments.longestOutage()
	return []*simulation{&roomy, &tight, &operators, &deployments}
}

// broken returns simulations in which tokens must be lost: each breaks one
// bound, in a fleet that is small and otherwise well.
func broken() []*simulation {
	fleet := func(name string, change func(*simulation)) *simulation {
		sc := usual()
		sc.name, sc.instances, sc.externals, sc.span = name, 20, 6, 30*day
		sc.tokenEvery, sc.burst, sc.restartEvery = 4*time.Hour, 80, 6*time.Hour
		sc.policy, sc.cutEvery, sc.outageChance = tightPolicy(5*day), 0, 0
		change(&sc)
		return &sc
	}
	return []*simulation{
		fleet("signs at once", func(sc *simulation) {
			sc.policy.Rotation.Announce, sc.policy.Rotation.Retain = time.Second, day
		}),
		fleet("announces for 1 RefreshEvery", func(sc *simulation) { sc.policy.Rotation.Announce = sc.policy.RefreshEvery }),
		fleet("JWKS cached for longer than announced", func(sc *simulation) { sc.policy.JWKSMaxAge = 2 * sc.policy.Rotation.Announce }),
		fleet("clocks off by more than ClockSkew", func(sc *simulation) {
			sc.policy.ClockSkew = time.Minute
			sc.policy.Rotation.Retain = sc.policy.MaxTokenTTL + 2*sc.policy.ClockSkew
		}),
		fleet("Retain is MaxTokenTTL", func(sc *simulation) { sc.policy.Rotation.Retain = sc.policy.MaxTokenTTL }),
		fleet("Retain is half of MaxTokenTTL", func(sc *simulation) { sc.policy.Rotation.Retain = sc.policy.MaxTokenTTL / 2 }),
		fleet("store down for as long as announced", func(sc *simulation) {
			sc.policy.Rotation = fleetkey.Rotation{Every: 5 * day, Announce: day, Retain: day}
			sc.outage, sc.outageChance = day+2*time.Hour, 1
		}),
		fleet("JWKSMaxAge forgotten in the longest outage", func(sc *simulation) {
			sc.policy.JWKSMaxAge = 4 * time.Hour
			sc.policy.Rotation = fleetkey.Rotation{Every: 5 * day, Announce: day, Retain: day}
			sc.outage, sc.outageChance = day-2*sc.policy.RefreshEvery-2*sc.policy.ClockSkew, 1
		}),
	}
}

func TestSimulation(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates years")
	}
	simulate(t, sound(), func(t *testing.T, m *simModel) {
		sc := m.f.sc
		assert.Zero(t, m.wrong, "tokens rejected wrongly")
		assert.Zero(t, m.late, "tokens accepted after exp")
		assert.Zero(t, m.revoked, "tokens of a revoked key accepted")
		assert.Zero(t, m.unready, "signing refused although the store was read")
		assert.Zero(t, m.storm, "keys made that were not due")
		assert.Equal(t, 1, m.firsts, "first keys")
		assert.LessOrEqual(t, m.mostKeys, int(sc.policy.Rotation.Retain/sc.leastEvery())+5, "keys in the bundle")
		if len(sc.changes) == 0 {
			// A key that replaces a revoked one is as good as a rotation: the next is due Every later.
			assert.Greater(t, m.announced+m.atOnce-m.firsts, int(sc.span/sc.leastEvery())*2/3, "it does rotate")
			assert.NotZero(t, m.stale, "some instances were cut off for so long that they had to stop")
		}
		assert.Greater(t, m.checks, 2*m.tokens)
	})
}

func TestSimulationOfBrokenPolicies(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates years")
	}
	simulate(t, broken(), func(t *testing.T, m *simModel) {
		assert.NotZero(t, m.wrong+m.unready, "the simulation does not notice that this policy is broken")
	})
}

// simulate runs simulations, two at a time or as many as -parallel says, checks
// each, and prints their table.
func simulate(t *testing.T, all []*simulation, check func(*testing.T, *simModel)) {
	rows := make([]string, len(all))
	t.Run("fleet", func(t *testing.T) {
		for i, sc := range all {
			sc.seed = uint64(i + 1)
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				begin := time.Now()
				synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
					m := sc.run(t)
					m.report(t)
					rows[i] = m.row()
					assert.Empty(t, m.faults)
					check(t, m)
				})
				t.Logf("took %v", time.Since(begin).Round(time.Second))
			})
		}
	})
	t.Logf("simulated:\n\n| policy | instances | years | tokens | checks | rotations | rejected wrongly | accepted wrongly | signing refused wrongly | stale refusals |\n"+
		"|---|---|---|---|---|---|---|---|---|---|\n%s", strings.Join(rows, "\n"))
}

func (m *simModel) row() string {
	sc := m.f.sc
	return fmt.Sprintf("| %s | %d | %.3g | %d | %d | %d | %d | %d | %d | %d |", sc.name, sc.instances, float64(sc.span)/float64(year),
		m.tokens, m.checks, m.announced, m.wrong, m.late+m.revoked, m.unready, m.stale)
}

// report logs what was wrong, and what no fleet could have known.
func (m *simModel) report(t *testing.T) {
	t.Log(m.row())
	t.Logf("%d keys in a bundle at most, %d rollbacks", m.mostKeys, m.rolledBack)
	for _, reason := range slices.Sorted(maps.Keys(m.reasons)) {
		t.Logf("%6d wrong: %s", m.reasons[reason], reason)
	}
	for _, reason := range slices.Sorted(maps.Keys(m.beyond)) {
		t.Logf("%6d rejected, rightly or inevitably: %s", m.beyond[reason], reason)
	}
}
