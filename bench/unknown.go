package main

import (
	"context"
	"fmt"
	"io"
)

// countQuestions sends tokens that each name another made-up key, and counts how
// often they make a contender look for keys. Contenders that never look are left out.
func countQuestions(p plan, out io.Writer) {
	const number = 1_000
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, peers := openAll(ctx, "RS256")
	tokens := f.unknownKeys(number)
	asked := make([]int, len(peers))
	ops := make([]operation, len(peers))
	ops[bare] = verifying(peers[bare], f.tokens)
	for i, c := range peers {
		if c.asked == nil {
			continue
		}
		ops[i] = refusing(c, tokens)
		before := c.asked()
		for j := range tokens {
			ops[i](j)
		}
		asked[i] = c.asked() - before
	}
	results := measure(p, false, ops)

	fmt.Fprintf(out, `
## Unknown kid, %s

%d tokens, each with a kid of its own that nobody knows. fleetkey's store is in memory; the peers
fetch from a server on the loopback interface. The ratio is to the bare verification of one good token.

|| asked for keys | ratio |
|---|---|---|
`, f.algorithm, number)
	for i, c := range peers {
		if c.asked != nil {
			fmt.Fprintf(out, "| %s | %d times | %s |\n", c.name, asked[i], results[i].over(results[bare]))
		}
	}
}
