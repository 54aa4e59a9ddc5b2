// Package chaos runs a fleet on awsfake while every kind of fault that a network or an
// overloaded service causes (rows A1 to A6, A13 and A16) happens at random between them,
// in the manner of etcd's robustness tests. The fleet issues, verifies,
// rotates, revokes and restarts. Everything is recorded, and the record is judged
// afterwards: no key gets lost, no write is lost or made twice, no valid token
// is rejected, no revoked key is trusted, and each error names the secret and its cause.
//
// Time is virtual, so that days pass in seconds under a policy that people use.
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
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// The fleet, and the mean times between what happens to it.
const (
	secretName      = "indicium/openid-server-production"
	instances       = 3
	skew            = time.Minute // how far clocks are off
	betweenActs     = 4 * time.Minute
	betweenRestarts = 2 * time.Hour
	sameWeather     = 10 * time.Minute
	slowest         = 5 * time.Second // answer
	storeTimeout    = 10 * time.Second
	// settle is the longest time until all have the same keys, once there are no faults.
	settle = 5*time.Minute + 20*time.Second
	// slack is how far two observers may differ about a moment, by their clocks and by
	// the time of a slow save.
	slack = 2*skew + 2*time.Minute
	// longestOutage is what the documentation promises to outlive.
	longestOutage = announce - 2*refreshEvery - 2*skew - maxAge
	announce      = 2 * time.Hour
	refreshEvery  = 5 * time.Minute
	maxAge        = 15 * time.Minute
)

// AWS allows 100 versions a day. The long form would reach that on a busy day.
var betweenOperations = testkit.Long(30*time.Minute, time.Hour)

// policy rotates every six hours.
var policy = func() fleetkey.Config {
	cfg := testkit.Config()
	cfg.MaxTokenTTL, cfg.ClockSkew, cfg.RefreshEvery, cfg.JWKSMaxAge = time.Hour, skew, refreshEvery, maxAge
	cfg.Rotation = fleetkey.Rotation{Every: 6 * time.Hour, Announce: announce, Retain: 2 * time.Hour}
	return cfg
}()

func TestChaos_A1toA6_A13_A16(t *testing.T) {
	first, last := uint64(1), testkit.Long[uint64](1, 40)
	if given, err := strconv.ParseUint(os.Getenv("FLEETKEY_SEED"), 10, 64); err == nil {
		first, last = given, given
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("FLEETKEY_SEED=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
				f := newFleet(t, seed)
				f.run()
				for _, kind := range awsfake.Kinds() {
					require.NotZero(t, f.fake.Calls(kind), kind)
				}
				for _, act := range []string{"rotate", "revoke", "restart", "start", "accept", "reject"} {
					require.NotZero(t, f.history.done[act], act)
				}
			})
		})
	}
}

// A fleet is real Signers on the real SDK.
type fleet struct {
	t       *testing.T
	seed    uint64
	fake    *awsfake.Server
	history *history
	seats   []*seat
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
	loads atomic.Pointer[[2]time.Time] // when the last good ones began
}

func (l *life) String() string { return l.store.String() }

func (l *life) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	begin := time.Now()
	bundle, v, err := l.store.Load(ctx)
	if err == nil {
		l.loads.Store(&[2]time.Time{l.loads.Load()[1], begin})
	}
	return bundle, v, err
}

func (l *life) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	return l.store.Save(ctx, bundle, prev)
}

func newFleet(t *testing.T, seed uint64) *fleet {
	f := &fleet{t: t, seed: seed, fake: awsfake.New(), history: newHistory(), ended: make(chan struct{})}
	f.fake.Watch(f.history.served)
	t.Cleanup(f.close)
	for i := range instances {
		offset := skew * time.Duration(i%3-1)
		f.seats = append(f.seats, &seat{f: f, id: uint64(i), store: f.open(storeTimeout), offset: offset})
	}
	return f
}

// open opens the secret as a separate process does.
func (f *fleet) open(timeout time.Duration) *fleetkey.AWSStore {
	client := f.fake.Client(func(o *secretsmanager.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = slowest * 4 })
	})
	s, err := fleetkey.NewAWSStore(f.t.Context(), secretName, func(o *fleetkey.AWSOptions) {
		o.Client, o.Timeout = client, timeout
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
	time.Sleep(testkit.Long(2*testkit.Day, 20*testkit.Day))
	close(f.ended)
	f.acts.Wait()
	f.fake.Heal()
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
		kinds := awsfake.Kinds()
		rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		probability := []float64{0, 0.1, 0.3, 0.6, 1}[rng.IntN(5)]
		f.fake.Random(rng.Uint64(), probability, slowest, kinds[:1+rng.IntN(6)]...)
		if !f.pause(rng, sameWeather) {
			return
		}
	}
}

// up starts an instance, as a supervisor does: again and again.
func (in *seat) up(rng *rand.Rand) {
	for {
		life := &life{store: in.store}
		life.loads.Store(new([2]time.Time))
		var err error
		life.Signer, err = fleetkey.NewSigner(testkit.By(testkit.Off(in.offset)), life, policy)
		in.f.history.acted("start", err)
		if err == nil {
			in.life.Store(life)
			return
		}
		if !in.f.pause(rng, betweenActs) {
			in.f.fake.Heal() // so that it ends
		}
	}
}

// requireConverged requires that within one refresh every instance has what is current,
// by itself and without an error.
func (f *fleet) requireConverged() {
	lagging := func(in *seat) bool {
		status := in.life.Load().Status()
		return status.LoadErr != nil || status.Version != f.history.now()
	}
	for end := time.Now().Add(settle); slices.ContainsFunc(f.seats, lagging); time.Sleep(settle / 100) {
		require.True(f.t, time.Now().Before(end), "after the faults the instances do not come to the same keys")
	}
	data, v, err := f.open(time.Minute).Load(f.t.Context())
	require.NoError(f.t, err)
	keys, err := parse(data)
	require.NoError(f.t, err)
	require.Equal(f.t, f.history.now(), v)
	for _, in := range f.seats {
		var kids []string
		for _, k := range in.life.Load().Status().Keys {
			if k.Role != fleetkey.RoleRevoked {
				kids = append(kids, k.KeyID)
			}
		}
		require.ElementsMatch(f.t, slices.Collect(maps.Keys(keys)), kids)
	}
}
