// Package chaos runs a fleet on AWS while every kind of fault that a network or an
// overloaded service causes (rows A1 to A6, A13 and A16) happens at random between it and
// Secrets Manager, in the manner of etcd's robustness tests. The fleet issues, verifies,
// rotates, revokes, trusts and restarts meanwhile. Everything is recorded, and the record
// is judged afterwards: no key gets lost, no write is lost or made twice, no valid token
// is rejected, no revoked key is trusted, and each error names the secret and its cause.
//
// Connections are pipes in memory and time is virtual, so that days pass in seconds under
// a policy that people use.
//
//	go test ./tests/chaos                                     one seed
//	FLEETKEY_SEED=7 go test -v ./tests/chaos                  that one again
//	FLEETKEY_LONG=1 go test -timeout 1h ./tests/chaos         many, for longer
//
// A seed decides what is attempted and what each call meets. It does not decide which
// instance is quicker.
package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/faultproxy"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A plan is a fleet and what happens to it. Times between events are means.
type plan struct {
	name      string // of the secret
	cfg       fleetkey.Config
	instances int
	span      time.Duration
	step      time.Duration // between two acts of an instance
	operate   time.Duration // between two acts of an operator
	restart   time.Duration // between two restarts
	weather   time.Duration // with the same faults
	slow      time.Duration // the longest delay of an answer
	timeout   time.Duration // of the store
	settle    time.Duration // the longest time until all have the same keys, once there are no faults
	clocks    time.Duration // how far clocks are off
}

// newPlan returns a plan for days, with a rotation every six hours.
func newPlan() *plan {
	p := &plan{name: "indicium/openid-server-production", cfg: testkit.Config(), instances: 3, span: testkit.Long(2*testkit.Day, 20*testkit.Day),
		step: 4 * time.Minute, operate: 30 * time.Minute, restart: 2 * time.Hour, weather: 10 * time.Minute, slow: 5 * time.Second, timeout: 10 * time.Second,
		clocks: time.Minute, settle: 5*time.Minute + 20*time.Second}
	p.cfg.MaxTokenTTL, p.cfg.ClockSkew, p.cfg.RefreshEvery, p.cfg.JWKSMaxAge = time.Hour, time.Minute, 5*time.Minute, 15*time.Minute
	p.cfg.Rotation = fleetkey.Rotation{Every: 6 * time.Hour, Announce: 2 * time.Hour, Retain: 2 * time.Hour}
	return p
}

// slack is by how much two observers may differ about a moment: by their clocks,
// and by the time that a slow save takes.
func (p *plan) slack() time.Duration { return 2*p.cfg.ClockSkew + 2*time.Minute }

// longestOutage is what the documentation promises to outlive.
func (p *plan) longestOutage() time.Duration {
	return p.cfg.Rotation.Announce - 2*p.cfg.RefreshEvery - 2*p.cfg.ClockSkew - p.cfg.JWKSMaxAge
}

func TestChaos_A1toA6_A13_A16(t *testing.T) {
	eachSeed(t, 1, 40, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
			fake, plan := awsfake.New(), newPlan()
			f := newChaosFleet(t, plan, seed, faultproxy.StartPipes(t, fake.HTTPClient().Transport))
			f.run()
			require.Less(t, fake.Versions(plan.name), 100)
			require.Equal(t, f.proxy.Forwarded(""), fake.Calls(""), "the history is complete")
			for _, kind := range faultproxy.All {
				require.NotZero(t, f.proxy.Counts()[kind], kind)
			}
			for _, act := range []string{"rotate", "revoke", "trust", "restart", "start", "accept", "reject"} {
				require.NotZero(t, f.history.done[act], act)
			}
		})
	})
}

// eachSeed runs a test with the seed from the environment, or with several.
func eachSeed(t *testing.T, few, many int, test func(t *testing.T, seed uint64)) {
	seeds := []uint64{}
	for i := range testkit.Long(few, many) {
		seeds = append(seeds, uint64(i+1))
	}
	if given, err := strconv.ParseUint(os.Getenv("FLEETKEY_SEED"), 10, 64); err == nil {
		seeds = []uint64{given}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("FLEETKEY_SEED=%d", seed), func(t *testing.T) { test(t, seed) })
	}
}

// A fleet is real Signers with the real SDK behind a faultproxy.
type fleet struct {
	t       *testing.T
	plan    *plan
	seed    uint64
	proxy   *faultproxy.Proxy
	history *history
	seats   []*seat
	others  []*fleetkey.Signer // of other fleets; the first is trusted some day
	ended   chan struct{}
	acts    sync.WaitGroup
}

// A seat is one instance, through all its restarts.
type seat struct {
	f      *fleet
	id     uint64
	store  *fleetkey.AWSStore
	offset time.Duration // of its clock
	life   atomic.Pointer[life]
}

// A life is an instance from one start to the next. It notes its loads.
type life struct {
	*fleetkey.Signer
	store *fleetkey.AWSStore

	mu    sync.Mutex
	loads [2]time.Time // when the last good ones began
}

func (l *life) String() string { return l.store.String() }

func (l *life) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	begin := time.Now()
	bundle, v, err := l.store.Load(ctx)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.loads = [2]time.Time{l.loads[1], begin}
	}
	return bundle, v, err
}

func (l *life) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	return l.store.Save(ctx, bundle, prev)
}

func newChaosFleet(t *testing.T, plan *plan, seed uint64, proxy *faultproxy.Proxy) *fleet {
	f := &fleet{t: t, plan: plan, seed: seed, proxy: proxy, history: newChaosHistory(plan), ended: make(chan struct{})}
	for range 2 {
		f.others = append(f.others, testkit.Start(t, fleetkeytest.NewStore(), plan.cfg))
	}
	proxy.Watch(f.history.served)
	t.Cleanup(f.close)
	for i := range plan.instances {
		offset := plan.clocks * time.Duration(i%3-1)
		f.seats = append(f.seats, &seat{f: f, id: uint64(i), store: f.open(plan.timeout), offset: offset})
	}
	return f
}

// open opens the secret as a process of its own does.
func (f *fleet) open(timeout time.Duration) *fleetkey.AWSStore {
	client := f.proxy.HTTPClient()
	f.t.Cleanup(client.GetTransport().CloseIdleConnections)
	options := secretsmanager.Options{
		Region: awsfake.Region, BaseEndpoint: aws.String(f.proxy.URL), HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", strings.Repeat("fake", 10), ""),
		Retryer:     retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = f.plan.slow * 4 }),
	}
	s, err := fleetkey.NewAWSStore(f.t.Context(), f.plan.name, func(o *fleetkey.AWSOptions) {
		o.Client, o.Timeout = secretsmanager.New(options), timeout
	})
	require.NoError(f.t, err)
	return s
}

// run lets it all happen, then heals the network and judges.
func (f *fleet) run() {
	f.acts.Go(f.weather)
	for _, in := range f.seats {
		f.acts.Go(in.live)
	}
	f.acts.Go(f.operate)
	f.acts.Go(f.restart)
	time.Sleep(f.plan.span)
	close(f.ended)
	f.acts.Wait()
	f.proxy.Play(nil)
	f.requireConverged()
	f.close()
	f.history.judge(f.t)
}

func (f *fleet) close() {
	for _, in := range f.seats {
		if life := in.life.Load(); life != nil {
			require.NoError(f.t, life.Close())
		}
	}
}

// rng is the source of one actor.
func (f *fleet) rng(actor uint64) *rand.Rand { return rand.New(rand.NewPCG(f.seed, actor)) }

// pause waits for about a time, and reports false at the end.
func (f *fleet) pause(rng *rand.Rand, mean time.Duration) bool {
	select {
	case <-time.After(time.Duration(rng.ExpFloat64() * float64(mean))):
		return true
	case <-f.ended:
		return false
	}
}

// weather changes what calls meet: some kinds of fault, rarely or often, or for a
// while no call succeeds at all.
func (f *fleet) weather() {
	rng := f.rng(100)
	for {
		kinds := slices.Clone(faultproxy.All)
		rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		probability := []float64{0, 0.1, 0.3, 0.6, 1}[rng.IntN(5)]
		f.proxy.Play(faultproxy.Random(rng.Uint64(), probability, f.plan.slow, kinds[:1+rng.IntN(6)]...))
		if !f.pause(rng, f.plan.weather) {
			return
		}
	}
}

// up starts an instance, as a supervisor does: again and again.
func (in *seat) up(rng *rand.Rand) {
	cfg := in.f.plan.cfg
	for {
		life := &life{store: in.store}
		var err error
		life.Signer, err = fleetkey.NewSigner(testkit.By(testkit.Off(in.offset)), life, cfg)
		in.f.history.acted("start", err)
		if err == nil {
			in.life.Store(life)
			return
		}
		if !in.f.pause(rng, in.f.plan.step) {
			in.f.proxy.Play(nil) // so that it ends
		}
	}
}

// requireConverged requires that within one refresh every instance has what is current,
// by itself and without an error.
func (f *fleet) requireConverged() {
	end := time.Now().Add(f.plan.settle)
	for !f.converged() {
		require.True(f.t, time.Now().Before(end), "after the faults the instances do not come to the same keys")
		time.Sleep(f.plan.settle / 100)
	}
	data, v, err := f.open(time.Minute).Load(f.t.Context())
	require.NoError(f.t, err)
	keys, err := parse(data)
	require.NoError(f.t, err)
	require.Equal(f.t, f.history.now(), v)
	for _, in := range f.seats {
		var kids []string
		for _, k := range in.life.Load().Status().Keys {
			kids = append(kids, k.KeyID)
		}
		require.ElementsMatch(f.t, slices.Collect(maps.Keys(keys)), kids)
	}
}

func (f *fleet) converged() bool {
	current := f.history.now()
	return !slices.ContainsFunc(f.seats, func(in *seat) bool {
		status := in.life.Load().Status()
		return status.LoadErr != nil || status.Version != current
	})
}
