package load

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const (
	soakName  = "indicium/openid-server-production"
	soakEvery = 6 * time.Hour // between two samples
)

// A soak is a fleet that rotates every two hours. It uses the real SDK on a network
// that fails at random.
type soak struct {
	t      *testing.T
	cfg    fleetkey.Config
	fake   *awsfake.Server
	rng    *rand.Rand
	fleet  []*fleetkey.Signer
	keys   map[string]bool // kids that have signed
	tokens int
}

// A sample is what a fleet at rest uses, and what it has done so far.
type sample struct{ bytes, objects, goroutines, tokens, loads, keys int }

// L8: for days, every few hours the fleet comes to rest and its memory and goroutines
// are counted. A leak of one object for each load, token or key would make the last
// quarter of the samples hold more than the first by as many as there were in
// between. Half of that is allowed. The keys rotate as planned all the time.
func TestSoak_L8_NothingGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSoak(t, 3)
		var samples []sample
		for range testkit.Long(3*4, 120*4) {
			s.live(soakEvery)
			samples = append(samples, s.sample())
		}
		n := len(samples) / 4
		early, late := samples[:n], samples[len(samples)-n:]
		grown := func(of func(sample) int) int {
			least := func(samples []sample) int {
				return of(slices.MinFunc(samples, func(a, b sample) int { return of(a) - of(b) }))
			}
			return least(late) - least(early)
		}
		objects, bytes := grown(func(x sample) int { return x.objects }), grown(func(x sample) int { return x.bytes })
		from, to := early[n/2], late[n/2]
		loads, tokens, keys := to.loads-from.loads, to.tokens-from.tokens, (to.keys-from.keys)*len(s.fleet)
		t.Logf("%d loads, %d tokens and %d new keys have grown the heap by %d objects, %d bytes", loads, tokens, keys, objects, bytes)
		// Chance moves a few hundred objects. So the short form finds a leak for each load
		// or token, and the long one also for each key.
		require.Less(t, objects, testkit.Long(loads/2, min(loads, tokens, keys)/2), "objects on the heap")
		require.Less(t, bytes, max(16*loads, 128<<10), "bytes on the heap: the smallest object for each load")
		require.Zero(t, grown(func(x sample) int { return x.goroutines }), "goroutines, without calls under way")

		planned := float64(len(samples)-1-n/2) * float64(soakEvery+7*time.Minute) / float64(s.cfg.Rotation.Every)
		require.InDelta(t, planned, len(s.keys)-from.keys, 1+planned*0.15, "rotations")
		require.LessOrEqual(t, s.fake.Versions(soakName), 100)
	})
}

func newSoak(t *testing.T, instances int) *soak {
	s := &soak{t: t, cfg: testkit.Config(), fake: awsfake.New(), rng: rand.New(rand.NewPCG(1, 0)), keys: map[string]bool{}}
	s.cfg.MaxTokenTTL, s.cfg.CachedTokens = 20*time.Minute, 16
	// As often as AWS's quota of versions allows: a rotation makes three, one for each
	// step of a key's life.
	s.cfg.Rotation = fleetkey.Rotation{Every: 2 * time.Hour, Announce: time.Hour, Retain: time.Hour}
	start := func() *fleetkey.Signer {
		store, err := fleetkey.NewAWSStore(t.Context(), soakName, func(o *fleetkey.AWSOptions) { o.Client = s.fake.Client() })
		require.NoError(t, err)
		return testkit.Start(t, store, s.cfg)
	}
	require.NoError(t, start().Close()) // it makes the secret
	for i := range 99 {                 // a secret that has had a hundred versions is as large as it gets
		_, err := s.fake.Client().PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
			SecretId: aws.String(soakName), SecretString: aws.String(strings.Repeat(fmt.Sprint(i%10), 2000)), VersionStages: []string{"OTHER"},
		})
		require.NoError(t, err)
	}
	time.Sleep(testkit.Day + time.Hour) // younger ones are not removed
	for range instances {
		s.fleet = append(s.fleet, start())
	}
	return s
}

// live is a few hours of a busy server on a bad network. About every twenty minutes
// the network changes: often a few calls fail, sometimes all of them.
func (s *soak) live(d time.Duration) {
	var probability float64
	for end := time.Now().Add(d); time.Now().Before(end); {
		if probability == 1 { // one outage at a time
			probability = 0
		} else {
			probability = []float64{0, 0.1, 0.1, 0.2, 0.2, 0.4, 1}[s.rng.IntN(7)]
		}
		s.fake.Random(s.rng.Uint64(), probability, 3*time.Second, awsfake.Kinds()...)
		for range 10 {
			time.Sleep(time.Duration(s.rng.Float64() * float64(4*time.Minute)))
			s.traffic()
		}
	}
}

// traffic has each instance sign a token, and another one verify it.
func (s *soak) traffic() {
	for i, issuer := range s.fleet {
		testkit.Accepts(s.t, testkit.Issue(s.t, issuer), s.fleet[(i+1+s.rng.IntN(len(s.fleet)-1))%len(s.fleet)])
		s.tokens++
	}
	s.keys[s.fleet[0].SigningKey().KeyID] = true
	if s.rng.IntN(10) == 0 {
		testkit.Refuses(s.t, fleetkey.ErrUnknownKey, invented(s.rng.Int(), 43), s.fleet...)
	}
}

// sample brings the fleet to rest, with a good network and full caches, and counts.
func (s *soak) sample() sample {
	s.fake.Heal()
	time.Sleep(7 * time.Minute)
	for range 4 * s.cfg.CachedTokens {
		s.traffic()
	}
	synctest.Wait()
	stacks := make([]byte, 1<<20) // those of the bubble are the test's
	stacks = stacks[:runtime.Stack(stacks, true)]
	now := sample{goroutines: strings.Count(string(stacks), "synctest bubble"), tokens: s.tokens, keys: len(s.keys)}
	now.bytes, now.objects = liveHeap()
	for _, in := range s.fleet {
		status := in.Status()
		require.NoError(s.t, status.LoadErr)
		now.loads += int(status.Counters.Loads + status.Counters.FailedLoads)
	}
	return now
}
