// Package verifying tests services that verify a fleet's tokens with its JWKS: while the
// fleet rotates and revokes, while its JWKS is unreachable, and under a flood of tokens with
// made-up kids. The bench module runs the same story with other libraries. Other tests are
// about issuers that misbehave as users of other libraries have reported, and about what the
// large issuers publish and sign. There is no long form.
package verifying

import (
	"context"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const (
	// Window is how long after a revocation good tokens may be refused: an instance serves
	// the old JWKS for RefreshEvery, and a Verifier asks once in 10 seconds.
	Window = 5*time.Minute + 10*time.Second
	// Outage is how long the JWKS is unreachable, around the moment when a new key begins to
	// sign: a third each with HTTP status 503, without a connection, and without an answer.
	Outage = 90 * time.Minute

	// Algorithm is the algorithm of the keys.
	Algorithm = "RS256"

	requestTimeout = 5 * time.Second // of a request that carries a token
	latency        = 20 * time.Millisecond
	tokenLife      = 40 * time.Minute // how long a token is shown, plus the time until the next one is issued; it is valid for an hour
)

// A Kind is a way to verify tokens.
type Kind struct {
	Name  string
	Count int // of verifiers
	// Open returns a verifier that stops when ctx ends, and reaches the issuer with client.
	Open func(ctx context.Context, client *http.Client) Verify
}

// Verify returns an error if a token is rejected.
type Verify func(ctx context.Context, token string) error

// A Tally is the result of all verifiers of one kind.
type Tally struct {
	Name                     string
	Verifiers                int
	Tokens                   int           // good ones shown to all of them
	Refused, RefusedInWindow int           // of these
	Why                      error         // the reason of one that was refused outside the window
	Revoked                  int           // tokens of a revoked key accepted after the window
	Fetches                  int           // of the JWKS
	MostInAMinute            int           // fetches by one verifier
	Longest                  time.Duration // that a good token took
}

// A fleet is two instances of an OpenID server and the clients that verify its tokens.
type fleet struct {
	t            *testing.T
	signers      [2]*fleetkey.Signer
	handlers     [2]*http.ServeMux
	pace         atomic.Int64 // between two tokens of a client, as a time.Duration
	outageBegins atomic.Pointer[time.Time]

	mu       sync.Mutex
	live     []issued // newest last
	revoked  map[string]time.Time
	revokeAt time.Time // time of the last revocation
}

type issued struct {
	token, kid string
	at         time.Time
}

// Run runs the story with verifiers of all kinds, for days. It must be called in a
// testing/synctest bubble.
func Run(t *testing.T, issuer, audience string, kinds []Kind) []Tally {
	f := &fleet{t: t, revoked: map[string]time.Time{}}
	f.pace.Store(int64(busy))
	store, cfg := fleetkeytest.NewStore(), testkit.Config()
	cfg.Issuer, cfg.Audience, cfg.Algorithm, cfg.Rotation.Every = issuer, []string{audience}, Algorithm, 48*time.Hour
	for i := range f.signers {
		f.signers[i], f.handlers[i] = testkit.Start(t, store.Open(), cfg), http.NewServeMux()
		f.handlers[i].Handle(fleetkey.DiscoveryPath, f.signers[i].Discovery(nil))
		f.handlers[i].Handle(fleetkey.JWKSPath, f.signers[i].JWKS())
	}
	f.issue()
	open, end := context.WithCancel(t.Context())
	defer end()
	var clients []*client
	tallies := make([]Tally, len(kinds))
	for i, k := range kinds {
		tallies[i] = Tally{Name: k.Name, Verifiers: k.Count}
		for range k.Count {
			c := &client{fleet: f, tally: &tallies[i]}
			c.verify = k.Open(open, &http.Client{Transport: c, Timeout: 30 * time.Second})
			clients = append(clients, c)
		}
	}
	over, stop := context.WithCancel(open)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { f.keepIssuing(over) })
	for _, c := range clients {
		running.Go(func() { c.run(over) })
	}
	f.story()
	stop()
	running.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(tallies)
}

// How long a client waits between two tokens, on average.
const (
	quiet = 15 * time.Minute
	slow  = 15 * time.Second // with a flood
	busy  = time.Second      // with a flood
)

// story is what happens to the fleet. Clients are busy at the moments that matter.
func (f *fleet) story() {
	pace := func(p, how time.Duration) {
		f.pace.Store(int64(p))
		time.Sleep(how)
	}
	pace(busy, 2*time.Minute)
	pace(quiet, time.Until(f.signers[0].Status().RotationDue)+time.Hour)
	next := f.signers[0].Status().NextActivation
	require.NotZero(f.t, next, "no key is announced")
	pace(quiet, time.Until(next)-Outage/2)
	begins := time.Now()
	f.outageBegins.Store(&begins)
	pace(slow, Outage/2-time.Minute)
	old := f.signers[0].SigningKey().KeyID
	pace(busy, 2*time.Minute)
	require.NotEqual(f.t, old, f.signers[0].SigningKey().KeyID, "the announced key does not sign")
	pace(slow, Outage/2)
	for range 2 {
		pace(quiet, 2*time.Hour)
		pace(slow, 2*quiet)
		pace(busy, time.Minute)
		f.revoke()
		pace(busy, Window+time.Minute)
	}
}

// revoke revokes the signing key. A thief continues to use its tokens.
func (f *fleet) revoke() {
	stolen := f.signers[1].SigningKey().KeyID
	f.mu.Lock()
	f.revokeAt = time.Now()
	f.revoked[stolen] = f.revokeAt
	f.mu.Unlock()
	assert.NoError(f.t, f.signers[1].Revoke(f.t.Context(), stolen))
	f.issue()
}

// keepIssuing issues tokens until ctx ends.
func (f *fleet) keepIssuing(ctx context.Context) {
	for sleep(ctx, min(quiet, 10*time.Duration(f.pace.Load()))) {
		f.issue()
	}
}

// issue issues a token at the instance that learns of a revocation first: the others use the
// revoked key for up to RefreshEvery, and their tokens are not good.
func (f *fleet) issue() {
	token, err := f.signers[1].Issue(f.t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
	assert.NoError(f.t, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for len(f.live) > 0 && now.Sub(f.live[0].at) > tokenLife {
		f.live = f.live[1:]
	}
	f.live = append(f.live, issued{token, testkit.KeyID(token), now})
}

// pick returns the newest token, or another that is still in use.
func (f *fleet) pick(newest bool) issued {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := len(f.live) - 1
	if !newest {
		at = mathrand.IntN(len(f.live))
	}
	return f.live[at]
}
