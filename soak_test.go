package fleetkey_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"regexp"
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
	"github.com/fleetkey/fleetkey/internal/faultproxy"
)

// A soak: a fleet that rotates every two hours, with the real SDK on a network
// that fails at random, for days of virtual time. Every few hours it comes to
// rest and its memory, goroutines and calls are counted; at the end, what the
// last quarter needed is compared with what the first did.

// A soak is the fleet, and what it has done so far.
type soak struct {
	t     *testing.T
	ctx   context.Context // of the servers: it lives as long as they do
	cfg   fleetkey.Config
	fake  *awsfake.Server
	proxy *faultproxy.Proxy
	rng   *rand.Rand
	fleet []*fleetkey.Signer
	conns []*http.Transport
	down  bool // no call has succeeded lately

	signing string // kid that signed last
	sum     soakSample
	samples []soakSample
}

// A soakSample is what a fleet at rest takes, and what it had done by then.
type soakSample struct {
	at             time.Time
	bytes, objects int
	goroutines     int
	tokens         int
	rotations      int // begun
	changes        int // of the key set
	loads, failed  int // by all instances, the second being a part of the first
	calls, faults  int // of GetSecretValue at the proxy
	made           int // tokens with made-up kids, each of which may cause a load
	writes         int // PutSecretValue at the proxy
	refused        int // of those, for want of room for a version
}

// soakPolicy rotates as often as AWS's quota of versions allows: each rotation
// makes three, one for each step of a key's life.
func soakPolicy() fleetkey.Config {
	cfg := config()
	cfg.MaxTokenTTL, cfg.RefreshEvery, cfg.CachedTokens = 20*time.Minute, 5*time.Minute, 16
	cfg.Rotation = fleetkey.Rotation{Every: 2 * time.Hour, Announce: time.Hour, Retain: time.Hour}
	return cfg
}

const soakEvery = 6 * time.Hour // between two samples

// TestSoak_L8_NothingGrows: in a leak of one object a refresh, a token or a
// change of the key set, the last quarter of the samples would hold more by as
// many as there were between the middle of the first quarter and that of the
// last. Half of that is what is allowed.
func TestSoak_L8_NothingGrows(t *testing.T) {
	const child = "FLEETKEY_SOAK_CHILD"
	if os.Getenv(child) == "" { // in a process with a heap of its own
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSoak_L8_NothingGrows$", "-test.v", "-test.timeout=1h")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		t.Logf("%s", out)
		return
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSoak(t, 3)
		for range long(3*4, 120*4) {
			s.live(soakEvery)
			s.sample()
		}
		s.check()
	})
}

func newSoak(t *testing.T, instances int) *soak {
	s := &soak{t: t, ctx: t.Context(), cfg: soakPolicy(), fake: awsfake.New(), rng: rand.New(rand.NewPCG(1, 0))}
	s.proxy = faultproxy.StartPipes(t, s.fake.HTTPClient().Transport)
	s.proxy.Watch(func(c faultproxy.Call) {
		if c.Action == "UpdateSecretVersionStage" && c.Status == http.StatusOK {
			s.sum.changes++
		}
		if strings.Contains(string(c.Reply), "LimitExceededException") {
			s.sum.refused++
		}
	})
	// A secret that has had a hundred versions is as large as it gets.
	first, err := fleetkey.NewSigner(s.ctx, s.open(), s.cfg)
	require.NoError(t, err)
	require.NoError(t, first.Close())
	for i := range 99 {
		_, err := s.fake.Client().PutSecretValue(s.ctx, &secretsmanager.PutSecretValueInput{
			SecretId: aws.String(awsName), SecretString: aws.String(strings.Repeat(fmt.Sprint(i%10), 2000)), VersionStages: []string{"OTHER"},
		})
		require.NoError(t, err)
	}
	require.Equal(t, 100, s.fake.Versions(awsName))
	time.Sleep(day + time.Hour) // none can be removed before
	s.conns = nil
	for range instances {
		s.fleet = append(s.fleet, start(t, s.open(), s.cfg))
	}
	return s
}

func (s *soak) open() *fleetkey.AWSStore {
	conns := &http.Transport{DialContext: s.proxy.Dial, MaxIdleConnsPerHost: 10} // as the SDK's own, which hides it
	s.conns = append(s.conns, conns)
	client := &http.Client{Transport: conns}
	return openAWS(s.t, s.fake, awsName, func(o *fleetkey.AWSOptions) {
		o.Client = s.fake.Client(func(o *secretsmanager.Options) { o.HTTPClient, o.BaseEndpoint = client, aws.String(s.proxy.URL) })
	})
}

// live is some hours of a busy server on a bad network.
func (s *soak) live(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		s.weather()
		for range 10 {
			time.Sleep(time.Duration(s.rng.Float64() * float64(4*time.Minute)))
			s.traffic(1)
		}
	}
}

// weather draws what calls meet for the next twenty minutes or so: often little,
// now and then an outage.
func (s *soak) weather() {
	probability := []float64{0, 0.1, 0.1, 0.2, 0.2, 0.4, 1}[s.rng.IntN(7)]
	if probability == 1 && s.down {
		probability = 0
	}
	s.down = probability == 1
	plan := faultproxy.Random(s.rng.Uint64(), probability, 3*time.Second, faultproxy.All...)
	s.proxy.Play(func(action string) faultproxy.Fault { // one at a time, as a Plan is asked
		f := plan(action)
		s.count(action, f)
		return f
	})
}

// traffic has each instance sign some tokens, and another one check each.
func (s *soak) traffic(n int) {
	for i, issuer := range s.fleet {
		verifier := s.fleet[(i+1+s.rng.IntN(len(s.fleet)-1))%len(s.fleet)]
		for range n {
			token, err := issuer.Issue(s.ctx, fleetkey.Claims{Subject: "alice"})
			require.NoError(s.t, err)
			s.sum.tokens++
			_, err = verifier.Verify(s.ctx, token)
			require.NoError(s.t, err)
		}
	}
	if kid := s.fleet[0].SigningKey().KeyID; kid != s.signing {
		s.signing, s.sum.rotations = kid, s.sum.rotations+1
	}
	if s.rng.IntN(10) == 0 {
		s.sum.made++
		refuses(s.t, fleetkey.ErrUnknownKey, invented(s.rng.Int(), 43), s.fleet[s.rng.IntN(len(s.fleet))])
	}
}

// count notes a call that the proxy got.
func (s *soak) count(action string, f faultproxy.Fault) {
	switch {
	case action == "PutSecretValue":
		s.sum.writes++
	case action == "GetSecretValue" && f.Kind != faultproxy.Pass:
		s.sum.faults++
		fallthrough
	case action == "GetSecretValue":
		s.sum.calls++
	}
}

// sample brings the fleet to rest, by a network that is well and caches that are
// full, and counts.
func (s *soak) sample() {
	s.proxy.Play(func(action string) faultproxy.Fault {
		s.count(action, faultproxy.Fault{Kind: faultproxy.Pass})
		return faultproxy.Fault{Kind: faultproxy.Pass}
	})
	time.Sleep(7 * time.Minute)
	for range 4 * s.cfg.CachedTokens {
		s.traffic(1)
	}
	synctest.Wait() // a connection is not idle at once
	for _, c := range s.conns {
		c.CloseIdleConnections()
	}
	s.conns = s.conns[:len(s.fleet)]
	synctest.Wait()
	for range 3 { // the first moves what is in pools, the second drops it
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	now := s.sum
	now.at, now.bytes, now.objects, now.goroutines = time.Now(), int(m.HeapAlloc), int(m.HeapObjects), bubbleGoroutines()
	for _, in := range s.fleet {
		status := in.Status()
		require.NoError(s.t, status.LoadErr)
		now.loads += int(status.Counters.Loads + status.Counters.FailedLoads)
		now.failed += int(status.Counters.FailedLoads)
	}
	s.samples = append(s.samples, now)
}

var bubbleHeader = regexp.MustCompile(`(?m)^goroutine \d+ \[.*synctest bubble`)

// bubbleGoroutines counts the goroutines of the test's bubble, this one included.
func bubbleGoroutines() int {
	stacks := make([]byte, 1<<20)
	return len(bubbleHeader.FindAll(stacks[:runtime.Stack(stacks, true)], -1))
}

// check compares the first quarter of the samples with the last, and the calls of
// every one with those of the one before.
func (s *soak) check() {
	t, n := s.t, len(s.samples)/4
	early, late := s.samples[:n], s.samples[len(s.samples)-n:]
	from, to := early[n/2], late[n/2]
	growth := func(of func(soakSample) int) int { return median(late, of) - median(early, of) }
	objects, bytes := growth(func(x soakSample) int { return x.objects }), growth(func(x soakSample) int { return x.bytes })
	loads, tokens, changes := to.loads-from.loads, to.tokens-from.tokens, (to.changes-from.changes)*len(s.fleet)
	t.Logf("%d loads, %d tokens and %d changes of a key set have grown the heap by %d objects, %d bytes", loads, tokens, changes, objects, bytes)
	// What chance alone moves is some hundred objects, so that the short form sees a
	// leak for each load or token, and the long one also for each change.
	require.Less(t, objects, long(loads/2, min(loads, tokens, changes)/2), "objects on the heap")
	require.Less(t, bytes, max(16*loads, 128<<10), "bytes on the heap: the smallest object for each load")

	atRest := func(samples []soakSample) int { // without calls that are on their way
		return slices.MinFunc(samples, func(a, b soakSample) int { return a.goroutines - b.goroutines }).goroutines
	}
	require.Equal(t, atRest(early), atRest(late), "goroutines")

	last := s.samples[len(s.samples)-1]
	planned := float64(last.at.Sub(from.at)) / float64(s.cfg.Rotation.Every)
	require.InDelta(t, planned, last.rotations-from.rotations, 1+planned*0.15, "rotations")
	require.Zero(t, last.refused, "versions over the quota")
	require.LessOrEqual(t, s.fake.Versions(awsName), 100)
	for i, x := range s.samples[1:] {
		s.checkCalls(s.samples[i], x)
	}
	require.Len(t, s.proxy.Counts(), len(faultproxy.All)+1)
}

// checkCalls: an instance loads every RefreshEvery less a tenth, once more after a
// load that failed, and once for a kid that it does not know, if so often. A load
// is one call, and one for each fault that the SDK tries again after. A save looks
// where the label is, before and perhaps for five seconds afterwards.
func (s *soak) checkCalls(before, after soakSample) {
	planned := int(float64(after.at.Sub(before.at))/float64(s.cfg.RefreshEvery)/0.9+1) * len(s.fleet)
	loads, failed := after.loads-before.loads, after.failed-before.failed
	require.LessOrEqual(s.t, loads, planned+failed+after.made-before.made, "loads from %s on", before.at)
	const visitor, save = 5, 12
	require.LessOrEqual(s.t, after.calls-before.calls, loads+after.faults-before.faults+save*(after.writes-before.writes)+visitor,
		"calls from %s on", before.at)
}

func median(samples []soakSample, of func(soakSample) int) int {
	var all []int
	for _, x := range samples {
		all = append(all, of(x))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
