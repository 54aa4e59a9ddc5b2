package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
)

// measureMemory fills fleetkey's cache of verified tokens.
func measureMemory(p plan, out io.Writer) {
	fmt.Fprintf(out, `
## Memory of the cache

What the process's heap grows by when a verifier has seen %d tokens, which by
default is about what its cache holds.

|| bytes of a token | bytes of memory for each |
|---|---|---|
`, p.tokens)
	for _, algorithm := range algorithms {
		ctx, cancel := context.WithCancel(context.Background())
		f := newFixture(ctx, algorithm)
		c := openSigner(ctx, f, 0)
		before := heapInUse()
		for range p.tokens {
			must(c.verify(must(c.issue())))
		}
		grown := heapInUse() - before
		fmt.Fprintf(out, "| %s | %d | %d |\n", algorithm, len(f.tokens[0]), grown/p.tokens)
		must(c.verify(f.tokens[0])) // the cache lives until here
		cancel()
	}
}

func heapInUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
