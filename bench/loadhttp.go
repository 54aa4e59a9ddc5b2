package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/fleetkey/fleetkey"
)

// compareRequests puts the verifiers behind a server, and floods that.
func compareRequests(p plan, out *page) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, stop, err := newFixture(ctx, "RS256")
	if err != nil {
		return err
	}
	defer stop()
	guards, err := openGuards(ctx, f)
	if err != nil {
		return err
	}
	mixed := f.mixedFlood()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4 * flooders}}
	defer client.CloseIdleConnections()
	var streams []*stream
	for _, g := range guards {
		server := httptest.NewServer(g.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		defer server.Close()
		streams = append(streams, &stream{name: g.name, honestRate: honestByHTTP, hostileRate: floodByHTTP,
			honest:  func(i int) { request(client, server.URL, f.tokens[i%len(f.tokens)], http.StatusOK) },
			hostile: func(i int) { request(client, server.URL, mixed[i%len(mixed)], http.StatusUnauthorized) }})
	}
	pourAll(p.load, streams)
	fmt.Fprintf(out, `
Over HTTP on the loopback interface, %d honest requests a second and %d hostile
ones: made-up kids, wrong signatures, alg none, headers that are no JSON, and 16
KiB of dots, in equal parts. fleetkey is Signer.Require, the peers are in a handler
as short. The first row is a server that looks the token up in a list, and
verifies nothing: what the flood does to any server on this machine.
`, honestByHTTP, floodByHTTP)
	streamTable(out, "over HTTP", streams)
	return nil
}

// mixedFlood is hostile tokens of every kind in turn.
func (f *fixture) mixedFlood() []string {
	kinds, strange := hostile(f), f.flood()
	mixed := make([]string, len(strange))
	for i := range mixed {
		if kind := i % (len(kinds) + 1); kind < len(kinds) {
			mixed[i] = kinds[kind].token
		} else {
			mixed[i] = strange[i/(len(kinds)+1)]
		}
	}
	return mixed
}

// request sends a token; any other answer than the expected one ends the program.
func request(client *http.Client, url, token string, want int) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	must(err)
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := client.Do(r)
	must(err)
	_, err = io.Copy(io.Discard, answer.Body)
	must(err)
	must(answer.Body.Close())
	if answer.StatusCode != want {
		panic(fmt.Sprintf("%s answers %s to a token that should get %d", url, answer.Status, want))
	}
}

// A guard is middleware that lets requests with good tokens through.
type guard struct {
	name  string
	guard func(http.Handler) http.Handler
}

func openGuards(ctx context.Context, f *fixture) ([]guard, error) {
	listed := func(token string) (string, error) {
		if !slices.Contains(f.tokens, token) {
			return "", errBare
		}
		return subject, nil
	}
	guards := []guard{{"no verification", guarding(listed)}}
	for _, c := range underLoad[1:] {
		if c.cached != nil {
			cfg := config(f.algorithm)
			cfg.CachedTokens = *c.cached
			signer, err := fleetkey.NewSigner(ctx, f.store.Open(), cfg)
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { _ = signer.Close() })
			guards = append(guards, guard{c.name, signer.Require()})
			continue
		}
		opened, err := c.open(ctx, f)
		if err != nil {
			return nil, err
		}
		guards = append(guards, guard{c.name, guarding(opened.verify)})
	}
	return guards, nil
}

// guarding is Signer.Require for another verifier.
func guarding(verify func(string) (string, error)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if _, err := verify(token); err != nil {
				http.Error(w, "", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}
