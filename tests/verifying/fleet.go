// Package verifying proves what services see that verify a fleet's tokens by its JWKS:
// while the fleet rotates and revokes, while its JWKS is out of reach, and under a flood
// of tokens with made-up kids. The bench module tells the same story to other libraries.
// Other tests are about issuers that misbehave as users of other libraries have reported,
// and about what the large issuers publish and sign. It has no long form.
package verifying

import (
	"context"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

const (
	// Window is how long after a revocation good tokens may be refused: an instance serves
	// the old JWKS for RefreshEvery, and a Verifier asks once in 10 seconds.
	Window = 5*time.Minute + 10*time.Second
	// Outage is how long the JWKS is out of reach, around the moment when a new key begins
	// to sign: a third each with HTTP status 503, without a connection, and without an answer.
	Outage = 90 * time.Minute

	// Algorithm is that of the keys.
	Algorithm = "RS256"

	requestTimeout = 5 * time.Second // of a request that carries a token
	latency        = 20 * time.Millisecond
	tokenLife      = 40 * time.Minute // in use, and until the next one is issued; it is good for an hour
)

// A Kind is a way to verify tokens.
type Kind struct {
	Name  string
	Count int // of verifiers
	// Open returns a verifier that ends with ctx and reaches the issuer by the client.
	Open func(ctx context.Context, client *http.Client) Verify
}

// Verify returns why a token is refused.
type Verify func(ctx context.Context, token string) error

// A Tally is what has become of the verifiers of one kind.
type Tally struct {
	Name                     string
	Verifiers                int
	Tokens                   int           // good ones shown to all of them
	Refused, RefusedInWindow int           // of these
	Why                      error         // one of them was refused outside the window
	Revoked                  int           // tokens of a revoked key accepted after the window
	Fetches                  int           // of the JWKS
	MostInAMinute            int           // fetches by one verifier
	Longest                  time.Duration // that a good token took
}

// A fleet is two instances of an OpenID server and the clients that verify its tokens.
type fleet struct {
	signers      [2]*fleetkey.Signer
	handlers     [2]*http.ServeMux
	pace         atomic.Int64 // between two tokens of a client, as a time.Duration
	outageBegins atomic.Pointer[time.Time]
	madeUp       atomic.Bool // a token with a made-up kid was accepted

	mu       sync.Mutex
	live     []issued // newest last
	revoked  map[string]time.Time
	revokeAt time.Time // the last one
}

type issued struct {
	token, kid string
	at         time.Time
}

// Run tells the story to verifiers of all kinds, for days. It has to be called in a
// testing/synctest bubble.
func Run(ctx context.Context, issuer, audience string, kinds []Kind) ([]Tally, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &fleet{revoked: map[string]time.Time{}}
	if err := f.start(ctx, issuer, audience); err != nil {
		return nil, err
	}
	defer f.close()
	var clients []*client
	tallies := make([]Tally, len(kinds))
	for i, k := range kinds {
		tallies[i] = Tally{Name: k.Name, Verifiers: k.Count}
		for range k.Count {
			c := &client{fleet: f, tally: &tallies[i]}
			c.verify = k.Open(ctx, &http.Client{Transport: c, Timeout: 30 * time.Second})
			clients = append(clients, c)
		}
	}
	over, end := context.WithCancel(ctx)
	defer end()
	var running sync.WaitGroup
	running.Go(func() { f.keepIssuing(over) })
	for _, c := range clients {
		running.Go(func() { c.run(over) })
	}
	err := f.story(ctx)
	end()
	running.Wait()
	if f.madeUp.Load() {
		err = errors.Join(err, errors.New("a token with a made-up kid was accepted"))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(tallies), err
}

func (f *fleet) start(ctx context.Context, issuer, audience string) error {
	f.pace.Store(int64(busy))
	store := fleetkeytest.NewStore()
	for i := range f.signers {
		s, err := fleetkey.NewSigner(ctx, store.Open(), fleetkey.Config{
			Issuer: issuer, Audience: []string{audience}, Algorithm: Algorithm,
			Rotation: fleetkey.Rotation{Every: 48 * time.Hour}, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return err
		}
		f.signers[i], f.handlers[i] = s, http.NewServeMux()
		f.handlers[i].Handle(fleetkey.DiscoveryPath, s.Discovery(nil))
		f.handlers[i].Handle(fleetkey.JWKSPath, s.JWKS())
	}
	return f.issue(ctx)
}

func (f *fleet) close() {
	for _, s := range f.signers {
		_ = s.Close()
	}
}

// The paces: how long a client waits between two tokens, on average.
const (
	quiet = 15 * time.Minute
	slow  = 15 * time.Second // with a flood
	busy  = time.Second      // with a flood
)

// story is what happens to the fleet. Clients are busy whenever it matters.
func (f *fleet) story(ctx context.Context) error {
	pace := func(p, how time.Duration) {
		f.pace.Store(int64(p))
		time.Sleep(how)
	}
	pace(busy, 2*time.Minute)
	pace(quiet, time.Until(f.signers[0].Status().RotationDue)+time.Hour)
	next := f.signers[0].Status().NextActivation
	if next.IsZero() {
		return errors.New("no key is announced")
	}
	pace(quiet, time.Until(next)-Outage/2)
	begins := time.Now()
	f.outageBegins.Store(&begins)
	pace(slow, Outage/2-time.Minute)
	old := f.signers[0].SigningKey().KeyID
	pace(busy, 2*time.Minute)
	if f.signers[0].SigningKey().KeyID == old {
		return errors.New("the announced key does not sign")
	}
	pace(slow, Outage/2)
	for range 2 {
		pace(quiet, 2*time.Hour)
		pace(slow, 2*quiet)
		pace(busy, time.Minute)
		if err := f.revoke(ctx); err != nil {
			return err
		}
		pace(busy, Window+time.Minute)
	}
	return nil
}

// revoke takes the signing key out. Its thief continues to use tokens of it.
func (f *fleet) revoke(ctx context.Context) error {
	stolen := f.signers[1].SigningKey().KeyID
	f.mu.Lock()
	f.revokeAt = time.Now()
	f.revoked[stolen] = f.revokeAt
	f.mu.Unlock()
	if err := f.signers[1].Revoke(ctx, stolen); err != nil {
		return err
	}
	return f.issue(ctx)
}

// keepIssuing issues tokens, on whichever instance.
func (f *fleet) keepIssuing(ctx context.Context) {
	for sleep(ctx, min(quiet, 10*time.Duration(f.pace.Load()))) {
		_ = f.issue(ctx)
	}
}

// issue issues a token at the instance that hears of a revocation first: the others go on
// with the revoked key for RefreshEvery, and their tokens are not good.
func (f *fleet) issue(ctx context.Context) error {
	s := f.signers[1]
	token, err := s.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web"})
	if err != nil {
		return err
	}
	parsed, err := s.Verify(ctx, token)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for len(f.live) > 0 && now.Sub(f.live[0].at) > tokenLife {
		f.live = f.live[1:]
	}
	f.live = append(f.live, issued{token, parsed.KeyID(), now})
	return nil
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
