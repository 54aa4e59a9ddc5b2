package fleetkey_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
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
	"github.com/fleetkey/fleetkey/internal/moto"
)

// A fleet on AWS while every kind of fault A1 to A6, A13 and A16 happens at random
// between it and Secrets Manager, in the manner of etcd's robustness tests: it
// issues, verifies, rotates, revokes, trusts and restarts meanwhile, everything is
// recorded, and fleet_chaos_history_test.go judges the record afterwards.
//
// Over sockets all is real but the times, which are as short as NewSigner allows:
// rotation is by hand, as automatic rotation needs minutes. On pipes, in virtual
// time, the policy is one that people use, and days pass.
//
//	go test -run TestFleetChaos .                                     a few seeds
//	FLEETKEY_SEED=7 go test -run TestFleetChaos -v .                  that one again
//	FLEETKEY_LONG=1 go test -run TestFleetChaos -timeout 1h .         many, for longer
//
// A seed settles what is attempted and what each call meets; which instance is
// quicker it does not.

// A chaosPlan is a fleet and what happens to it. Times between events are means.
type chaosPlan struct {
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

// virtualChaos is for days, with rotation every six hours.
func virtualChaos() *chaosPlan {
	p := &chaosPlan{name: awsName, cfg: config(), instances: 3, span: long(2*day, 20*day), step: 4 * time.Minute, operate: time.Hour,
		restart: 2 * time.Hour, weather: 20 * time.Minute, slow: 5 * time.Second, timeout: 10 * time.Second, clocks: time.Minute,
		settle: 5*time.Minute + 20*time.Second}
	p.cfg.MaxTokenTTL, p.cfg.ClockSkew, p.cfg.RefreshEvery, p.cfg.JWKSMaxAge = time.Hour, time.Minute, 5*time.Minute, 15*time.Minute
	p.cfg.Rotation = fleetkey.Rotation{Every: 6 * time.Hour, Announce: 2 * time.Hour, Retain: 2 * time.Hour}
	return p
}

// realChaos is for seconds.
func realChaos() *chaosPlan {
	p := &chaosPlan{name: freshName(), cfg: config(), instances: 4, span: long(3*time.Second, 30*time.Second), step: 15 * time.Millisecond,
		operate: 100 * time.Millisecond, restart: 300 * time.Millisecond, weather: 200 * time.Millisecond, slow: 30 * time.Millisecond, timeout: 300 * time.Millisecond, settle: 2 * time.Minute}
	p.cfg.MaxTokenTTL, p.cfg.ClockSkew, p.cfg.RefreshEvery, p.cfg.JWKSMaxAge = 2*time.Second, time.Millisecond, time.Second, time.Millisecond
	p.cfg.Rotation = fleetkey.Rotation{Announce: 2100 * time.Millisecond, Retain: 3 * time.Second}
	return p
}

// slack is by how much two observers may differ about a moment: by their clocks,
// and by the time that a slow save takes.
func (p *chaosPlan) slack() time.Duration { return 2*p.cfg.ClockSkew + 2*time.Minute }

// longestOutage is what the documentation promises to outlive.
func (p *chaosPlan) longestOutage() time.Duration {
	return p.cfg.Rotation.Announce - 2*p.cfg.RefreshEvery - 2*p.cfg.ClockSkew - p.cfg.JWKSMaxAge
}

func TestFleetChaos_A1toA6_A13_A16_InVirtualTime(t *testing.T) {
	eachSeed(t, 1, 40, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
			fake, plan := awsfake.New(), virtualChaos()
			f := newChaosFleet(t, plan, seed, faultproxy.StartPipes(t, fake.HTTPClient().Transport))
			f.run()
			require.Less(t, fake.Versions(plan.name), 100)
			require.Equal(t, f.proxy.Forwarded(""), fake.Calls(""), "the history is complete")
			for _, kind := range faultproxy.All {
				require.NotZero(t, f.proxy.Counts()[kind], kind)
			}
			for _, act := range []string{"rotate", "revoke", "trust", "restart", "start", "accepted", "refused"} {
				require.NotZero(t, f.history.done[act], act)
			}
		})
	})
}

func TestFleetChaos_A1toA6_A13_A16_OverSockets(t *testing.T) {
	for name, server := range map[string]func(t testing.TB) string{
		"awsfake": func(t testing.TB) string { return awsfake.Start(t).URL },
		"moto":    moto.URL,
	} {
		t.Run(name, func(t *testing.T) {
			url := server(t)
			eachSeed(t, 1, 10, func(t *testing.T, seed uint64) {
				f := newChaosFleet(t, realChaos(), seed, faultproxy.Start(t, url))
				f.run()
				require.NotZero(t, f.history.done["accepted"])
				requireNoneLeft(t)
			})
		})
	}
}

// eachSeed runs a test with the seed from the environment, or with several.
func eachSeed(t *testing.T, few, many int, test func(t *testing.T, seed uint64)) {
	seeds := []uint64{}
	for i := range long(few, many) {
		seeds = append(seeds, uint64(i+1))
	}
	if given, err := strconv.ParseUint(os.Getenv("FLEETKEY_SEED"), 10, 64); err == nil {
		seeds = []uint64{given}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("FLEETKEY_SEED=%d", seed), func(t *testing.T) { test(t, seed) })
	}
}

// requireNoneLeft looks for goroutines of Signers.
func requireNoneLeft(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		stacks := make([]byte, 1<<20)
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "fleetkey.(*Signer)")
	}, 10*time.Second, 10*time.Millisecond)
}

// A chaosFleet is real Signers with the real SDK behind a faultproxy.
type chaosFleet struct {
	t       *testing.T
	plan    *chaosPlan
	seed    uint64
	proxy   *faultproxy.Proxy
	history *chaosHistory
	seats   []*chaosSeat
	others  []*fleetkey.Signer // of other fleets; the first is trusted some day
	log     logBuffer
	ended   chan struct{}
	acts    sync.WaitGroup
}

// A chaosSeat is one instance, through all its restarts.
type chaosSeat struct {
	f      *chaosFleet
	id     uint64
	store  *fleetkey.AWSStore
	offset time.Duration // of its clock
	life   atomic.Pointer[chaosLife]
}

// A chaosLife is an instance from one start to the next. It notes its loads.
type chaosLife struct {
	*fleetkey.Signer
	store *fleetkey.AWSStore

	mu    sync.Mutex
	loads [2]time.Time // when the last good ones began
}

func (l *chaosLife) String() string { return l.store.String() }

func (l *chaosLife) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	begin := time.Now()
	bundle, v, err := l.store.Load(ctx)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.loads = [2]time.Time{l.loads[1], begin}
	}
	return bundle, v, err
}

func (l *chaosLife) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	return l.store.Save(ctx, bundle, prev)
}

func newChaosFleet(t *testing.T, plan *chaosPlan, seed uint64, proxy *faultproxy.Proxy) *chaosFleet {
	f := &chaosFleet{t: t, plan: plan, seed: seed, proxy: proxy, history: newChaosHistory(plan), ended: make(chan struct{})}
	plan.cfg.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	for range 2 {
		f.others = append(f.others, start(t, fleetkeytest.NewStore(), plan.cfg))
	}
	proxy.Watch(f.history.served)
	t.Cleanup(f.close)
	for i := range plan.instances {
		offset := plan.clocks * time.Duration(i%3-1)
		f.seats = append(f.seats, &chaosSeat{f: f, id: uint64(i), store: f.open(plan.timeout), offset: offset})
	}
	return f
}

// open opens the secret as a process of its own does.
func (f *chaosFleet) open(timeout time.Duration) *fleetkey.AWSStore {
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
func (f *chaosFleet) run() {
	f.acts.Go(f.weather)
	for _, in := range f.seats {
		f.acts.Go(in.live)
	}
	f.acts.Go(f.operate)
	f.acts.Go(f.restart)
	time.Sleep(f.plan.span)
	for end := time.Now().Add(f.plan.settle); f.history.accepted() < 20 && time.Now().Before(end); {
		time.Sleep(f.plan.step) // the machine is busy
	}
	close(f.ended)
	f.acts.Wait()
	f.proxy.Play(nil)
	f.requireConverged()
	f.close()
	for _, other := range f.others {
		require.NoError(f.t, other.Close())
	}
	f.history.secret.add("the log", f.log.String())
	f.history.judge(f.t)
}

func (f *chaosFleet) close() {
	for _, in := range f.seats {
		if life := in.life.Load(); life != nil {
			require.NoError(f.t, life.Close())
		}
	}
}

// rng is the source of one actor.
func (f *chaosFleet) rng(actor uint64) *rand.Rand { return rand.New(rand.NewPCG(f.seed, actor)) }

// pause waits for about a time, and reports false at the end.
func (f *chaosFleet) pause(rng *rand.Rand, mean time.Duration) bool {
	select {
	case <-time.After(time.Duration(rng.ExpFloat64() * float64(mean))):
		return true
	case <-f.ended:
		return false
	}
}

// weather changes what calls meet: some kinds of fault, rarely or often, or for a
// while no call succeeds at all.
func (f *chaosFleet) weather() {
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
func (in *chaosSeat) up(rng *rand.Rand) {
	cfg := in.f.plan.cfg
	for {
		life := &chaosLife{store: in.store}
		var err error
		life.Signer, err = fleetkey.NewSigner(by(off(in.offset)), life, cfg)
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

// requireConverged waits until every instance has what is current, by itself and
// without an error: in virtual time for one refresh, over sockets for as long as a
// busy machine may need.
func (f *chaosFleet) requireConverged() {
	end := time.Now().Add(f.plan.settle)
	for !f.converged() {
		require.True(f.t, time.Now().Before(end), "after the faults the instances do not come to the same keys")
		time.Sleep(f.plan.settle / 100)
	}
	data, v, err := f.open(time.Minute).Load(f.t.Context())
	require.NoError(f.t, err)
	bundle, err := parseChaosBundle(data)
	require.NoError(f.t, err)
	require.Equal(f.t, f.history.now(), v)
	for _, in := range f.seats {
		kids := chaosBundle{}
		for _, k := range in.life.Load().Status().Keys {
			kids[k.KeyID] = keyInStore{}
		}
		require.Equal(f.t, bundle.kids(), kids.kids())
	}
}

func (f *chaosFleet) converged() bool {
	current := f.history.now()
	return !slices.ContainsFunc(f.seats, func(in *chaosSeat) bool {
		status := in.life.Load().Status()
		return status.LoadErr != nil || status.Version != current
	})
}
