package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A learner is a verifier that has to find out about a new key.
type learner struct {
	name   string
	before time.Duration // that the flood began before the key was exchanged
	verify func(token string) (string, error)
	took   time.Duration // until it took a token of the new key; 0: longer than it was waited for
}

// compareNewKeys has an issuer sign at once with a key that no verifier has
// seen, and floods these with made-up kids, which take what chances they have
// to ask for keys.
func compareNewKeys(p plan, out *page) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, stop, err := newFixture(ctx, "RS256")
	if err != nil {
		return err
	}
	defer stop()
	issuer, err := fleetkey.NewSigner(ctx, f.store.Open(), config(f.algorithm))
	if err != nil {
		return err
	}
	defer issuer.Close()
	server := httptest.NewServer(issuer.JWKS())
	defer server.Close()
	learners, err := openLearners(ctx, f, server.URL, p.load.patience)
	if err != nil {
		return err
	}

	flood := f.flood()
	var made atomic.Pointer[string]
	var done sync.WaitGroup
	for _, l := range learners {
		done.Go(func() { l.learn(flood, p.load.patience, &made) })
	}
	time.Sleep(p.load.patience * 3 / 4)
	must(issuer.Revoke(ctx, f.keyID))
	token, err := issuer.Issue(ctx, claims())
	must(err)
	made.Store(&token)
	done.Wait()
	fmt.Fprintf(out, `
A key that signs at once, without having been announced, as after Signer.Revoke:
how long a verifier refuses its tokens while made-up kids flood in, a thousand a
second. (One that was announced is in the key set a day before, and its first
token is accepted at once by all that have read the set in that day.) fleetkey
asks at most every 10 s, so that it matters how long before the exchange the flood
began.

|| flood began before | first token accepted after |
|---|---|---|
`)
	for _, l := range learners {
		took := fmt.Sprintf("%.2f s", l.took.Seconds())
		if l.took == 0 {
			took = fmt.Sprintf("not within %v", p.load.patience)
		}
		fmt.Fprintf(out, "| %s | %.1f s | %s |\n", l.name, l.before.Seconds(), took)
	}
	return nil
}

// openLearners opens every verifier of one key set, and fleetkey some times over.
func openLearners(ctx context.Context, f *fixture, jwksURL string, patience time.Duration) ([]*learner, error) {
	var all []*learner
	remote := &fixture{algorithm: f.algorithm, store: f.store.Open(), jwksURL: jwksURL}
	for _, c := range []struct {
		name  string
		parts time.Duration // quarters of the patience
		open  func(context.Context, *fixture) (contender, error)
	}{{"fleetkey", 1, openFleetkey(-1)}, {"fleetkey", 2, openFleetkey(-1)}, {"fleetkey", 3, openFleetkey(-1)}, {"keyfunc", 3, openKeyfunc}, {"go-oidc", 3, openGoOIDC}} {
		opened, err := c.open(ctx, remote)
		if err != nil {
			return nil, err
		}
		all = append(all, &learner{name: c.name, before: patience * c.parts / 4, verify: opened.verify})
	}
	return all, nil
}

// learn floods a verifier, and from the moment that there is a token of the new
// key tries that as well.
func (l *learner) learn(flood []string, patience time.Duration, made *atomic.Pointer[string]) {
	time.Sleep(patience*3/4 - l.before)
	var since time.Time
	for i := 0; ; i++ {
		if _, err := l.verify(flood[i%len(flood)]); err == nil {
			panic(l.name + " took a hostile token")
		}
		if token := made.Load(); token != nil {
			if since.IsZero() {
				since = time.Now()
			}
			if _, err := l.verify(*token); err == nil {
				l.took = time.Since(since)
				return
			}
			if time.Since(since) > patience {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}

const (
	jwksClients = 16
	reloadEvery = 10 * time.Millisecond
	jwksGoal    = 10_000 // requests a second
)

// measureJWKS has clients fetch the key set without pause, while keys reload and
// while they do not.
func measureJWKS(p plan, out *page) error {
	ctx := context.Background()
	store := fleetkeytest.NewStore()
	var bundles [2][]byte
	for i := range bundles {
		first := fleetkeytest.NewStore()
		signer, err := fleetkey.NewSigner(ctx, first, config("RS256"))
		if err != nil {
			return err
		}
		must(signer.Close())
		bundles[i], _ = first.Content()
	}
	store.Set(bundles[0])
	signer, err := fleetkey.NewSigner(ctx, store, config("RS256"))
	if err != nil {
		return err
	}
	defer signer.Close()
	server := httptest.NewServer(signer.JWKS())
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: jwksClients}}
	defer client.CloseIdleConnections()

	var rest, reloading result
	wrong, reloads := 0, 0
	for range p.load.rounds {
		for _, busy := range []bool{false, true} {
			reloaded, stop := make(chan int), make(chan struct{})
			go func() { reloaded <- reload(signer, store, bundles, busy, stop) }()
			ns, bad := fetchAll(client, server.URL, p.load.slice)
			close(stop)
			reloads += <-reloaded
			wrong += bad
			if busy {
				reloading.ns = append(reloading.ns, ns)
			} else {
				rest.ns = append(rest.ns, ns)
			}
		}
	}
	perSecond := func(r *result) float64 { return 1e9 / median(r.ns) }
	fmt.Fprintf(out, `
The key set over HTTP on the loopback interface, to %d clients that ask without
pause, in the same process, on the same %d cores: requests a second while the keys
rest, and while they are exchanged and loaded %.0f times a second.

| at rest | reloading | reloading / at rest, time for a request | wrong answers |
|---|---|---|---|
| %.0f | %.0f | %s | %d |
`, jwksClients, runtime.GOMAXPROCS(0), float64(reloads)/(float64(p.load.rounds)*p.load.slice.Seconds()),
		perSecond(&rest), perSecond(&reloading), reloading.over(&rest), wrong)
	out.goal("JWKS requests a second while keys reload, clients on the same cores", fmt.Sprintf("at least %d, none wrong", jwksGoal),
		fmt.Sprintf("%.0f, %d wrong", perSecond(&reloading), wrong), perSecond(&reloading) >= jwksGoal && wrong == 0)
	return nil
}

// reload exchanges the keys until it is stopped, and returns how often.
func reload(signer *fleetkey.Signer, store *fleetkeytest.Store, bundles [2][]byte, busy bool, stop <-chan struct{}) (n int) {
	ticks := time.NewTicker(reloadEvery)
	defer ticks.Stop()
	for {
		select {
		case <-stop:
			return n
		case <-ticks.C:
		}
		if busy {
			n++
			store.Set(bundles[n%2])
			must(signer.Refresh(context.Background()))
		}
	}
}

// fetchAll returns the nanoseconds that a request took, of all clients together,
// and how many answers were not a set of keys.
func fetchAll(client *http.Client, url string, d time.Duration) (ns float64, wrong int) {
	var requests, bad atomic.Int64
	var done sync.WaitGroup
	start := time.Now()
	for range jwksClients {
		done.Go(func() {
			for time.Since(start) < d {
				answer, err := client.Get(url)
				must(err)
				body, err := io.ReadAll(answer.Body)
				must(err)
				must(answer.Body.Close())
				requests.Add(1)
				if answer.StatusCode != http.StatusOK || !bytes.HasPrefix(body, []byte(`{"keys":[{`)) {
					bad.Add(1)
				}
			}
		})
	}
	done.Wait()
	return float64(time.Since(start)) / float64(requests.Load()), int(bad.Load())
}
