package fleetkey_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/secrets"
)

// This file holds what the simulation and the chaos tests need until they have
// packages.

// L1: 100 instances whose clocks are off by 5 minutes, ten rotations, a restart
// each minute and a store that is down for 40 minutes, judged by the simulation.
// Deployments of the policy that is in force make the restarts.
func TestLoad_L1_FleetUnderFaults(t *testing.T) {
	instances, outage := 100, 40*time.Minute
	if raceDetector {
		instances = long(20, instances)
	}
	sc := &simulation{
		name: "L1", seed: 1, instances: instances, externals: 6, span: 15 * time.Hour, clocks: 5 * time.Minute,
		policy: fleetkey.Config{Algorithm: "ES256", MaxTokenTTL: time.Hour, ClockSkew: 5 * time.Minute,
			Rotation:     fleetkey.Rotation{Every: 80 * time.Minute, Announce: 35*time.Minute + outage, Retain: 70 * time.Minute},
			RefreshEvery: 5 * time.Minute, JWKSMaxAge: 15 * time.Minute},
		tokenEvery: time.Minute, burst: 20, floodEvery: 20 * time.Minute, outage: outage, outageChance: 1,
	}
	takes := time.Duration(instances) * time.Minute
	for at := time.Minute; at < sc.span; at += takes {
		sc.changes = append(sc.changes, simChange{at, takes, sc.policy})
	}
	synctest.Test(t, func(t *testing.T) {
		m := sc.run(t)
		m.report(t)
		assert.Empty(t, m.faults)
		assert.Zero(t, m.wrong, "tokens rejected wrongly")
		assert.Zero(t, m.late, "tokens accepted after exp")
		assert.Zero(t, m.unready, "signing refused although the store was read")
		assert.GreaterOrEqual(t, m.announced, 10, "rotations")
		assert.Greater(t, m.checks, 2*m.tokens)
	})
}

// invented returns a token in good form by a key that nobody has, whose kid is
// that of no other n and so many bytes long.
func invented(n, size int) string {
	number := fmt.Sprint(n)
	header := `{"alg":"ES256","kid":"` + strings.Repeat("x", size-len(number)) + number + `","typ":"at+jwt"}`
	return b64(header) + "." + b64(payload()) + "." + b64(make([]byte, 64))
}

// A detector collects output and searches it for key material.
type detector struct {
	*secrets.Detector
	mu      sync.Mutex
	outputs []string
}

func newDetector() *detector { return &detector{Detector: secrets.NewDetector()} }

func (d *detector) add(from string, v any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outputs = append(d.outputs, fmt.Sprintf("%s: %v", from, v))
}

func (d *detector) check(t *testing.T) {
	t.Helper()
	for _, text := range d.outputs {
		if what := d.Find(text); what != "" {
			t.Errorf("%.60s shows %s", text, what)
		}
	}
}
