package scale

import (
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const (
	secretName = "indicium/openid-server-production"
	staleReads = 3 * time.Second // at most
)

// A fleet has one secret. Its times are short, so that a rotation passes within hours.
type fleet struct {
	t         *testing.T
	aws       *awsfake.Server
	cfg       fleetkey.Config
	instances []*instance
	ended     chan struct{}

	mu       sync.Mutex
	begun    time.Time // start of the measurement
	starts   bool      // count the calls of an instance only until it serves
	seconds  map[time.Duration]int
	versions int     // before the measurement
	cost     float64 // before the measurement
	tokens   []token
	refused  map[string]int // tokens, by reason
	revoked  string         // kid whose tokens must be refused
}

// An instance is a Signer with its own AWSStore and SDK client.
type instance struct {
	fleet  *fleet
	adopts fleetkey.KeyStore
	signer atomic.Pointer[fleetkey.Signer] // nil: it does not serve

	calls, writes int // guarded by fleet.mu
}

type token struct {
	raw string
	exp time.Time
}

// newFleet returns a fleet that has not started. Once started, it exchanges tokens with pauses.
func newFleet(t *testing.T, n int, pause time.Duration) *fleet {
	f := &fleet{t: t, aws: awsfake.New(), cfg: testkit.Config(), ended: make(chan struct{}), refused: map[string]int{}}
	f.cfg.CachedTokens, f.cfg.TokenTTL, f.cfg.ClockSkew, f.cfg.JWKSMaxAge = 16, 10*time.Minute, time.Second, time.Minute
	f.cfg.Rotation = fleetkey.Rotation{Every: 3 * time.Hour, Announce: 15 * time.Minute, Retain: 2 * time.Hour}
	f.aws.Limit(1, staleReads)
	for range n {
		f.instances = append(f.instances, &instance{fleet: f})
	}
	f.measure()
	go f.traffic(pause)
	return f
}

// close ends every goroutine of the fleet.
func (f *fleet) close() {
	close(f.ended)
	f.stop(f.instances)
}

// begin starts instances at once. wait returns when they serve.
func (f *fleet) begin(instances []*instance) (wait func()) {
	var starting sync.WaitGroup
	for _, i := range instances {
		starting.Go(func() {
			client := f.aws.Client(func(o *secretsmanager.Options) {
				o.HTTPClient, o.Retryer = &http.Client{Transport: i}, retry.NewStandard() // with the SDK's own pauses
			})
			store, err := fleetkey.NewAWSStore(f.t.Context(), secretName, func(o *fleetkey.AWSOptions) { o.Client = client })
			if err == nil {
				cfg := f.cfg
				cfg.Adopt = i.adopts
				var s *fleetkey.Signer
				s, err = fleetkey.NewSigner(f.t.Context(), store, cfg)
				i.signer.Store(s)
			}
			if err != nil {
				f.t.Error(err)
			}
		})
	}
	return starting.Wait
}

func (f *fleet) start() { f.begin(f.instances)() }

func (f *fleet) stop(instances []*instance) {
	for _, i := range instances {
		if s := i.signer.Swap(nil); s != nil {
			require.NoError(f.t, s.Close())
		}
	}
}

// RoundTrip delivers a call to AWS and its answer, in 20 to 80 ms in total.
func (i *instance) RoundTrip(r *http.Request) (*http.Response, error) {
	way := 10*time.Millisecond + rand.N(30*time.Millisecond)
	time.Sleep(way)
	defer time.Sleep(way)
	i.fleet.count(i, strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager."))
	return i.fleet.aws.HTTPClient().Transport.RoundTrip(r)
}

func (f *fleet) count(i *instance, action string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seconds[time.Since(f.begun).Truncate(time.Second)]++
	if f.starts && i.signer.Load() != nil {
		return
	}
	i.calls++
	if action != "GetSecretValue" {
		i.writes++
	}
}

// measure starts to count.
func (f *fleet) measure() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun, f.seconds, f.versions, f.cost = time.Now(), map[time.Duration]int{}, f.aws.Versions(secretName), f.aws.Cost()
	for _, i := range f.instances {
		i.calls, i.writes = 0, 0
	}
}

// measureStart starts the fleet and measures until all instances serve.
func (f *fleet) measureStart() time.Duration {
	f.starts = true
	f.measure()
	f.start()
	return time.Since(f.begun)
}

// row returns what was counted, after a last look at the tokens of some instances.
func (f *fleet) row(scenario string, took time.Duration) row {
	for range 20 {
		f.exchange(20)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := row{Scenario: scenario, Instances: len(f.instances), All: round(took.Seconds(), 10), Burst: slices.Max(slices.Collect(maps.Values(f.seconds))),
		Versions: f.aws.Versions(secretName) - f.versions, USD: round(f.aws.Cost()-f.cost, 10_000)}
	calls, writes, kids := 0, 0, map[string]bool{}
	for _, i := range f.instances {
		calls, writes, r.Worst = calls+i.calls, writes+i.writes, max(r.Worst, i.calls)
		s := i.signer.Load()
		require.NotNil(f.t, s, "an instance that does not serve")
		kids[s.SigningKey().KeyID] = true
	}
	n := float64(r.Instances)
	r.Keys, r.Calls, r.Writes = len(kids), round(float64(calls)/n, 100), round(float64(writes)/n, 10_000)
	for reason, tokens := range f.refused {
		r.Refused += tokens
		f.t.Logf("%d tokens refused: %s", tokens, reason)
	}
	return r
}

func round(x, parts float64) float64 { return math.Round(x*parts) / parts }

// traffic exchanges tokens between instances that serve.
func (f *fleet) traffic(pause time.Duration) {
	for {
		select {
		case <-f.ended:
			return
		case <-time.After(pause):
			f.exchange(5)
		}
	}
}

// exchange lets one instance issue a token that others verify, and verifies an older one.
func (f *fleet) exchange(others int) {
	issuer := f.pick()
	if issuer == nil {
		return
	}
	raw, err := issuer.Issue(f.t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
	if err != nil {
		f.t.Error("no token is issued: ", err)
		return
	}
	f.mu.Lock()
	f.tokens = append(f.tokens, token{raw, time.Now().Add(f.cfg.TokenTTL)})
	for time.Now().After(f.tokens[0].exp) {
		f.tokens = f.tokens[1:]
	}
	older := f.tokens[rand.N(len(f.tokens))].raw
	f.mu.Unlock()
	f.verify(raw, others)
	f.verify(older, 1)
}

func (f *fleet) verify(raw string, times int) {
	for range times {
		if verifier := f.pick(); verifier != nil {
			if _, err := verifier.Verify(f.t.Context(), raw); err != nil {
				f.refuse(raw, err)
			}
		}
	}
}

func (f *fleet) refuse(raw string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if testkit.KeyID(raw) != f.revoked {
		f.refused[err.Error()]++
	}
}

// pick returns an instance that serves, or nil.
func (f *fleet) pick() *fleetkey.Signer {
	for range 20 {
		if s := f.instances[rand.N(len(f.instances))].signer.Load(); s != nil {
			return s
		}
	}
	return nil
}

// until waits until all instances serve and pass a test, and returns how long that took.
func (f *fleet) until(limit time.Duration, passes func(*fleetkey.Signer) bool) time.Duration {
	begin := time.Now()
	for _, i := range f.instances {
		for s := i.signer.Load(); s == nil || !passes(s); s = i.signer.Load() {
			if time.Since(begin) > limit {
				f.t.Errorf("an instance is not ready after %v", limit)
				return limit
			}
			time.Sleep(time.Second)
		}
	}
	return time.Since(begin)
}
