// Package scale measures what a fleet costs, and proves that nothing grows faster than the
// fleet, or with time. Real Signers, each with its own AWSStore and SDK client, share a
// secret in an AWS with quotas, throttling and stale reads, in virtual time. Each attempt of
// the SDK counts as a call. Another test limits the memory that a hostile token takes. bench/
// measures how long operations take.
//
// The short form has up to 100 instances and takes seconds; with the race detector the fleets
// are smaller. The long form has up to 10,000, takes 7 minutes and 1.2 GB, and
// writes bench/scale.json. Its soak lasts 120 days instead of three:
//
//	FLEETKEY_LONG=1 go test -v -timeout 2h ./tests/scale
package scale

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A row is what a scenario costs.
type row struct {
	Scenario  string  `json:"scenario"`
	Instances int     `json:"instances"`
	Keys      int     `json:"keys"`                // that instances sign with in the end
	All       float64 `json:"all_after_seconds"`   // until all instances have done it
	Calls     float64 `json:"calls_per_instance"`  // on average
	Worst     int     `json:"calls_worst"`         // of one instance
	Burst     int     `json:"calls_burst"`         // in a second
	Writes    float64 `json:"writes_per_instance"` // calls other than GetSecretValue
	Versions  int     `json:"versions"`            // of the secret that were made
	Refused   int     `json:"tokens_refused"`      // wrongly
	USD       float64 `json:"usd"`
}

// A scenario is something that happens to a fleet. run returns how long all instances took.
type scenario struct {
	name     string
	run      func(*fleet) time.Duration
	all      time.Duration // limit of the time that run returns
	calls    int           // limit for one instance; 0: none
	versions int           // limit of the secret's new versions
}

var scenarios = []scenario{
	{"first start", (*fleet).measureStart, time.Minute, 4, 1},
	{"restart", func(f *fleet) time.Duration {
		f.start()
		time.Sleep(7 * time.Minute)
		f.stop(f.instances)
		return f.measureStart()
	}, time.Minute, 2, 0},
	{"64 adopt", adopt, time.Minute, 4, 1},
	{"throttled start", func(f *fleet) time.Duration {
		f.aws.Limit(0.1, staleReads) // others use the rest
		return f.measureStart()
	}, time.Minute, 0, 1},
	{"rotation", func(f *fleet) time.Duration {
		f.start()
		time.Sleep(time.Until(f.due()) - time.Second)
		f.measure()
		return f.rotation()
	}, 10 * time.Minute, 0, 2},
	{"restart, rotation due, throttled", func(f *fleet) time.Duration {
		f.start()
		f.stop(f.instances)
		time.Sleep(time.Hour + 22*time.Minute + 30*time.Second)
		f.start()
		f.measure()
		f.aws.Limit(0.1, staleReads)
		return f.rotation()
	}, 10 * time.Minute, 0, 2},
	{"revocation", revocation, 5*time.Minute + 10*time.Second, 0, 2},
	{"outage of an hour", outage, time.Minute, 0, 2},
}

// due returns when the successor of the first key must be announced.
func (f *fleet) due() time.Time {
	for _, k := range f.instances[0].signer.Load().Status().Keys {
		if k.Role == fleetkey.RoleSigning {
			return k.NotBefore.Add(f.cfg.Rotation.Every - f.cfg.Rotation.Announce)
		}
	}
	return time.Time{}
}

// rotation waits until all instances publish the next key, and then until it signs.
func (f *fleet) rotation() time.Duration {
	took := f.until(11*time.Minute, func(s *fleetkey.Signer) bool { return len(s.PublicKeys()) == 2 })
	time.Sleep(f.cfg.Rotation.Announce)
	return took
}

// revocation revokes the signing key. All instances must reject its tokens.
func revocation(f *fleet) time.Duration {
	f.start()
	time.Sleep(17 * time.Minute)
	s := f.pick()
	stolen := testkit.Issue(f.t, s)
	f.revoked = testkit.KeyID(stolen)
	f.measure()
	require.NoError(f.t, s.Revoke(f.t.Context(), f.revoked))
	begin := time.Now()
	// The fresh key signs at once. An instance that gets a stale read rejects its tokens, and
	// reads again for an unknown kid only 10 seconds later.
	f.verify(testkit.Issue(f.t, s), 20)
	time.Sleep(staleReads + 10*time.Second)
	f.mu.Lock()
	f.t.Logf("refused by 20 instances that got a token of the fresh key at once: %v", f.refused)
	clear(f.refused)
	f.mu.Unlock()
	f.until(6*time.Minute, func(s *fleetkey.Signer) bool {
		_, err := s.Verify(f.t.Context(), stolen)
		return err != nil
	})
	return time.Since(begin)
}

// adopt starts a fleet in which 64 instances have their own keys, with tokens that are still valid.
func adopt(f *fleet) time.Duration {
	own := make([]string, min(64, len(f.instances)))
	for i := range own {
		old := fleetkeytest.NewStore()
		s, err := fleetkey.NewSigner(f.t.Context(), old, f.cfg)
		require.NoError(f.t, err)
		own[i] = testkit.Issue(f.t, s)
		require.NoError(f.t, s.Close())
		f.instances[i].adopts = old
	}
	took := f.measureStart()
	for i, raw := range own {
		if _, err := f.instances[i].signer.Load().Verify(f.t.Context(), raw); err != nil {
			f.refuse(raw, err)
		}
	}
	return took
}

// outage makes AWS unavailable for an hour, while a rotation becomes due and half of the
// fleet restarts. Afterwards all must serve and know the next key.
func outage(f *fleet) time.Duration {
	f.cfg.Rotation.Announce = 90 * time.Minute
	f.start()
	time.Sleep(time.Until(f.due()) - 40*time.Minute)
	f.measure()
	f.aws.Inject(awsfake.Fault{Status: http.StatusServiceUnavailable})
	time.Sleep(50 * time.Minute)
	half := f.instances[:(len(f.instances)+1)/2]
	f.stop(half)
	f.begin(half)
	time.Sleep(10 * time.Minute)
	f.aws.Heal()
	took := f.until(time.Hour, func(*fleetkey.Signer) bool { return true })
	f.until(time.Hour, func(s *fleetkey.Signer) bool { return len(s.PublicKeys()) == 2 })
	return took
}

func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: it simulates fleets; without -short it runs")
	}
	var rows []row
	sizes := testkit.Long([]int{10, 100}, []int{10, 100, 1000, 10_000})
	if testkit.Race() {
		sizes = []int{20}
	}
	for _, n := range sizes {
		for _, sc := range scenarios {
			t.Run(fmt.Sprintf("%s of %d", sc.name, n), func(t *testing.T) {
				begin := time.Now()
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(t, n, 10*time.Second)
					defer f.close()
					took := sc.run(f)
					r := f.row(sc.name, took)
					rows = append(rows, r)
					t.Logf("%+v", r)
					sc.check(t, r)
				})
				t.Logf("took %v", time.Since(begin).Round(time.Millisecond))
			})
		}
	}
	if testkit.Long(false, len(rows) == 4*len(scenarios)) { // and not only those that -run names
		out, err := json.MarshalIndent(rows, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile("../../bench/scale.json", append(out, '\n'), 0o600))
	}
}

func (sc *scenario) check(t *testing.T, r row) {
	assert.Equal(t, 1, r.Keys, "all sign with one key")
	assert.Zero(t, r.Refused, "tokens wrongly refused")
	assert.LessOrEqual(t, r.All, sc.all.Seconds())
	if sc.calls > 0 {
		assert.LessOrEqual(t, r.Worst, sc.calls)
	}
	assert.LessOrEqual(t, r.Versions, sc.versions)
	if sc.versions != 1 { // after a first start, every instance may have tried to create the secret
		n := float64(r.Instances)
		assert.LessOrEqual(t, r.Writes*n, 4+0.1*n, "a change needs two calls, and some calls come too late")
	}
}

// TestLoneStart: a single instance does not wait as those of a large fleet do.
func TestLoneStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, 10*time.Second)
		defer f.close()
		require.Less(t, f.measureStart(), time.Second)
		require.Equal(t, 2, f.instances[0].calls)
	})
}
