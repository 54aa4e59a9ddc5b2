package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
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
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/golang-jwt/jwt/v5"
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
		settle: 5*time.Minute*11/10 + 20*time.Second}
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

func long[T any](short, long T) T {
	if os.Getenv("FLEETKEY_LONG") != "" {
		return long
	}
	return short
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
	loads [2]time.Time // begins of the last good ones
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
	client := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) { tr.DialContext, tr.Proxy = f.proxy.Dial, nil })
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
	cfg.Now = func() time.Time { return time.Now().Add(in.offset) }
	for {
		life := &chaosLife{store: in.store}
		var err error
		life.Signer, err = fleetkey.NewSigner(context.Background(), life, cfg)
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

// live is what an instance does all day.
func (in *chaosSeat) live() {
	rng := in.f.rng(in.id)
	in.up(rng)
	for in.f.pause(rng, in.f.plan.step) {
		switch n := rng.IntN(20); {
		case n < 8:
			in.issue(in.life.Load())
		case n == 8:
			in.f.history.acted("refresh", in.life.Load().Refresh(context.Background()))
		case n == 9:
			in.f.foreign(rng)
		default:
			in.verify(rng)
		}
	}
}

func (in *chaosSeat) issue(life *chaosLife) {
	h, status := in.f.history, life.Status()
	exp := time.Now().Add(in.offset + in.f.plan.cfg.MaxTokenTTL).Truncate(time.Second)
	raw, err := life.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ExpiresAt: exp})
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
		h.tokens = append(h.tokens, &chaosToken{raw, keyIDOf(raw), exp, status.Version})
	case errors.Is(err, fleetkey.ErrStale) && time.Since(status.LastLoad) > in.f.plan.longestOutage():
		h.beyond["an issuer out of touch for longer than Announce allows"]++
	default:
		h.faulty("an instance did not issue: %v", err)
	}
}

// foreign brings a token of another fleet, which says to be of this one.
func (f *chaosFleet) foreign(rng *rand.Rand) {
	raw, err := f.others[rng.IntN(2)].Issue(context.Background(), fleetkey.Claims{Subject: "mallory"})
	h := f.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.faulty("another fleet did not issue: %v", err)
		return
	}
	if len(h.chain) > 0 {
		h.tokens = append(h.tokens, &chaosToken{raw, keyIDOf(raw), time.Now().Add(f.plan.cfg.MaxTokenTTL), h.current()})
	}
}

// verify checks one of the last tokens that any instance has issued.
func (in *chaosSeat) verify(rng *rand.Rand) {
	h := in.f.history
	h.mu.Lock()
	n := len(h.tokens)
	if n == 0 {
		h.mu.Unlock()
		return
	}
	v := chaosVerdict{token: h.tokens[n-1-rng.IntN(min(n, 25))]}
	h.mu.Unlock()
	life := in.life.Load()
	life.mu.Lock()
	v.loads = life.loads
	life.mu.Unlock()
	v.knew, v.begin = life.Status().Version, time.Now()
	_, v.err = life.Verify(context.Background(), v.token.raw)
	v.end = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdicts = append(h.verdicts, v)
	if v.err == nil {
		h.done["accepted"]++
	} else {
		h.done["refused"]++
	}
}

// restart restarts instances, one at a time. It belongs to the operators, since
// an instance that acts has to be there.
func (f *chaosFleet) restart() {
	rng := f.rng(101)
	for f.pause(rng, f.plan.restart) {
		in := f.seats[rng.IntN(len(f.seats))]
		old := in.life.Load()
		if old == nil {
			continue
		}
		if err := old.Close(); err != nil {
			f.history.acted("close", err)
		}
		in.up(rng) // meanwhile the old one works on from memory
		f.history.count("restart")
	}
}

// operate does by hand what people do.
func (f *chaosFleet) operate() {
	rng := f.rng(102)
	for f.pause(rng, f.plan.operate) {
		s := f.seats[rng.IntN(len(f.seats))].life.Load()
		if s == nil {
			continue
		}
		switch n := rng.IntN(10); {
		case n < 5:
			f.history.acted("rotate", s.Rotate(context.Background()))
		case n < 8:
			keys := s.Status().Keys
			kid := keys[rng.IntN(len(keys))].KeyID
			f.history.ask(kid)
			err := s.Revoke(context.Background(), kid)
			if f.history.acted("revoke", err); err == nil {
				f.steal(kid)
				f.history.know(s.PublicKeys(), kid, false)
			}
		default:
			other := f.others[0].SigningKey()
			f.history.ask(other.KeyID)
			err := s.Trust(context.Background(), other.Certificate, "")
			if f.history.acted("trust", err); err == nil {
				f.history.know(s.PublicKeys(), other.KeyID, true)
			}
		}
	}
}

func (h *chaosHistory) ask(kid string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[kid] = true
}

// know checks that the instance that changed the set works by it at once.
func (h *chaosHistory) know(keys []fleetkey.PublicKey, kid string, want bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.ContainsFunc(keys, func(k fleetkey.PublicKey) bool { return k.KeyID == kid }) != want {
		h.faulty("after its own change an instance does not know it: key %s", kid)
	}
}

// steal has a thief sign with a key that was revoked just now.
func (f *chaosFleet) steal(kid string) {
	h := f.history
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.chain {
		k := c.bundle[kid]
		if k.private == nil {
			continue
		}
		exp := time.Now().Add(f.plan.cfg.MaxTokenTTL).Truncate(time.Second)
		for range 5 {
			token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": issuer, "aud": issuer, "sub": "mallory", "iat": time.Now().Unix(), "exp": exp.Unix()})
			token.Header["kid"], token.Header["typ"] = kid, "at+jwt"
			raw, err := token.SignedString(k.private)
			require.NoError(f.t, err)
			h.tokens = append(h.tokens, &chaosToken{raw, kid, exp, c.version})
		}
		return
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
	bundle, v, err := f.open(time.Minute).Load(f.t.Context())
	require.NoError(f.t, err)
	require.Equal(f.t, f.history.now(), v)
	for _, in := range f.seats {
		kids := chaosBundle{}
		for _, k := range in.life.Load().Status().Keys {
			kids[k.KeyID] = chaosKey{}
		}
		require.Equal(f.t, parseChaosBundle(bundle).kids(), kids.kids())
	}
}

func (f *chaosFleet) converged() bool {
	current := f.history.now()
	return !slices.ContainsFunc(f.seats, func(in *chaosSeat) bool {
		status := in.life.Load().Status()
		return status.LoadErr != nil || status.Version != current
	})
}
