package main

import (
	"context"
	"fmt"

	"github.com/fleetkey/fleetkey"
)

// unknownTokens is how many tokens with made-up kids each contender gets.
const unknownTokens = 1_000

// compareUnknownKeys sends tokens whose kid nobody knows, a new one each time,
// and counts how often that makes a contender ask where its keys come from. A
// contender that has no such place is left out.
func compareUnknownKeys(p plan, out *page) error {
	const algorithm = "RS256"
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, stop, err := newFixture(ctx, algorithm)
	if err != nil {
		return err
	}
	defer stop()
	peers, err := openAll(ctx, f)
	if err != nil {
		return err
	}
	store := f.store.Open()
	cfg := config(algorithm)
	signer, err := fleetkey.NewSigner(ctx, store, cfg)
	if err != nil {
		return err
	}
	defer signer.Close()
	peers[ours].verify = func(token string) (string, error) {
		_, err := signer.Verify(ctx, token)
		return "", err
	}
	asks := map[string]func() int{
		"fleetkey": store.Loads,
		"keyfunc":  func() int { return int(f.fetches.Load()) },
		"go-oidc":  func() int { return int(f.fetches.Load()) },
	}
	tokens := make([]string, unknownTokens)
	for i := range tokens {
		tokens[i] = f.unknownKey(f.tokens[0])
	}

	fmt.Fprintf(out, "\n## Unknown kid, %s\n\n%d tokens, each with a kid of its own that nobody knows. fleetkey's store is in memory; the peers\n"+
		"fetch from a server on the loopback interface. The ratio is to the bare verification of one good token.\n\n"+
		"|| asked for keys | ratio |\n|---|---|---|\n", algorithm, unknownTokens)
	asked := make([]int, len(peers))
	ops := make([]operation, len(peers))
	ops[bare] = verifying(peers, f.tokens)[bare]
	for i, c := range peers {
		count := asks[c.name]
		if count == nil {
			continue
		}
		before := count()
		for _, token := range tokens {
			if _, err := c.verify(token); err == nil {
				return fmt.Errorf("%s takes a token of an unknown key", c.name)
			}
		}
		asked[i] = count() - before
		ops[i] = func(j int) { _, _ = c.verify(tokens[j%len(tokens)]) }
	}
	results := measure(p, 1, ops)
	for i, r := range results {
		if r != nil && i != bare {
			fmt.Fprintf(out, "| %s | %d times | %s |\n", peers[i].name, asked[i], r.over(results[bare]))
		}
	}
	return nil
}
