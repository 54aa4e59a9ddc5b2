package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// intro says what was measured, on what, and how to read it.
func intro(p plan) string {
	var t strings.Builder
	fmt.Fprintf(&t, `# fleetkey beside its peers

Written by `+"`make bench`"+`.

All contenders work in one process on the same keys and claims, each configured
as a careful user would, and each proves first that it takes the good tokens and
none of the bad. Every row is measured in %d rounds; in a round each contender
runs for about %v, in an order that changes. Figures are **ratios to the bare
crypto call** of the same round (hash and signature, text at hand): the median,
and in brackets the quartiles. The bare call's own column has its absolute time,
which is side information.

- machine: %s, %d cores (GOMAXPROCS %d), %s/%s
- date: %s
- %s
`, p.rounds, p.slice, cpuModel(), runtime.NumCPU(), runtime.GOMAXPROCS(0), runtime.GOOS, runtime.GOARCH,
		time.Now().UTC().Format(time.DateOnly), runtime.Version())
	versions := moduleVersions()
	for _, c := range contenders {
		if c.module != "" {
			fmt.Fprintf(&t, "- %s: %s %s\n", c.name, c.module, versions[c.module])
		}
	}
	fmt.Fprintf(&t, `
"Verify, first time" is fleetkey with its cache of verified tokens off; "again" is with
the cache, which the peers lack: they do all of it again. Each goes through %d tokens.
"Require" is the middleware, and a handler of the same length for the others; "JWKS"
answers a request with the public keys, beside http.ServeContent.
`, tokensInUse)
	return t.String()
}

func moduleVersions() map[string]string {
	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			versions[m.Path] = m.Version
		}
	}
	return versions
}

// cpuModel returns the processor's name, where the system has it in a file.
func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, found := strings.Cut(string(info), "model name\t: ")
	if !found {
		return "unknown processor"
	}
	name, _, _ := strings.Cut(rest, "\n")
	return name
}
