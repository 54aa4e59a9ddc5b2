package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
)

// measureMemory fills fleetkey's cache of verified tokens.
func measureMemory(p plan, out io.Writer) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f := newFixture(ctx, "RS256")
	c := openSigner(ctx, f, 0)
	before := heapInUse()
	for range p.tokens {
		must(c.verify(must(c.issue())))
	}
	grown := heapInUse() - before
	must(c.verify(f.tokens[0])) // the cache lives until here
	fmt.Fprintf(out, `
## Memory of the cache

Verifying %d tokens of %d bytes (RS256), which by default is about what the cache holds,
makes the process's heap grow by %.1f kB for each.
`, p.tokens, len(f.tokens[0]), float64(grown)/float64(p.tokens)/1000)
}

func heapInUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
