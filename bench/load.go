package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
)

// The huge kids of a flood.
const (
	hugeKid   = 100_000
	hugeEvery = 100 // one made-up kid in so many is huge
)

// measureLoad floods servers whose middleware verifies by each of the contenders
// that look for keys they do not know.
func measureLoad(p plan, out io.Writer) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, peers := openAll(ctx, "RS256")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4 * flooders}}
	defer client.CloseIdleConnections()
	flood := f.flood()
	var streams []*stream
	add := func(name string, guard func(http.Handler) http.Handler) {
		server := httptest.NewServer(guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		context.AfterFunc(ctx, server.Close)
		streams = append(streams, &stream{
			name:    name,
			honest:  func(i int) { request(client, server.URL, f.tokens[i%len(f.tokens)], http.StatusOK) },
			hostile: func(i int) { request(client, server.URL, flood[i%len(flood)], http.StatusUnauthorized) },
		})
	}
	add("no verification", guarding(func(token string) (string, error) {
		if !slices.Contains(f.tokens, token) {
			return "", errBare
		}
		return subject, nil
	}))
	add("fleetkey, first time", peers[ours].guard)
	add("fleetkey, again", peers[ours].again.guard)
	for _, c := range peers[ours+1:] {
		if c.asked != nil {
			add(c.name, c.guard)
		}
	}
	pourAll(p, streams)

	fmt.Fprintf(out, `
## Under load

Honest tokens come at a fixed rate, evenly except for chance, and each counts from
the moment when it was due, so that one that holds up others is charged for them
all. Quiet and flooded slices of %v take turns, in %d rounds. The ratio of the
p99 is that of a round's two slices: the median, and in brackets the quartiles;
p50, p99 and p99.9 are over all rounds. The flood has a fixed rate as well, as
one that takes all there is of the processor would slow down anything: it is as
heavy as the verifier makes it. Everything runs in this one process on %d cores.

Over HTTP on the loopback interface, %d honest requests a second and %d hostile
ones: made-up kids, one in %d of them of %d kB, wrong signatures, alg none, headers that
are no JSON, and 16 KiB of dots, in equal parts (RS256). fleetkey is Signer.Require, the
peers are in a handler as short. The first row is a server that looks the token up in a
list, and verifies nothing: what the flood does to any server on this machine.

|| quiet p50, p99, p99.9 | under the flood | p99, ratio | hostile tokens a second |
|---|---|---|---|---|
`, p.loadSlice, p.loadRounds, runtime.GOMAXPROCS(0), honestRate, hostileRate, hugeEvery, hugeKid/1000)
	for _, s := range streams {
		fmt.Fprint(out, s.row(p))
	}
}

// flood returns hostile tokens of every kind in turn.
func (f *fixture) flood() (tokens []string) {
	for i, token := range f.unknownKeys(500) {
		if i%hugeEvery == 0 {
			token = withHeader(f.tokens[0], fmt.Sprintf(`{"alg":%q,"kid":"%0*d","typ":%q}`, f.algorithm, hugeKid, i, tokenType))
		}
		tokens = append(tokens, token)
		for _, h := range hostile(f) {
			tokens = append(tokens, h.token)
		}
	}
	return tokens
}

// request sends a token; any answer but the expected one ends the program.
func request(client *http.Client, url, token string, want int) {
	r := must(http.NewRequest(http.MethodGet, url, nil))
	r.Header.Set("Authorization", "Bearer "+token)
	answer := must(client.Do(r))
	must(io.Copy(io.Discard, answer.Body))
	check(answer.Body.Close())
	if answer.StatusCode != want {
		panic(fmt.Sprintf("%s answers %s to a token that should get %d", url, answer.Status, want))
	}
}
