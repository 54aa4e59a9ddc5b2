package main

import (
	"fmt"
	"os"
	"regexp"
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
	info, _ := debug.ReadBuildInfo()
	for _, c := range contenders {
		for _, m := range info.Deps {
			if m.Path == c.module {
				fmt.Fprintf(&t, "- %s: %s %s\n", c.name, m.Path, m.Version)
			}
		}
	}
	fmt.Fprintf(&t, `
fleetkey is the Signer, fleetkey.Verifier is for services that hold no private key and fetch
the JWKS. "Verify, first time" is with their cache of verified tokens off; "again" is with
the cache, which the peers lack: they do all of it again. Each goes through %d tokens.
"Require" is the middleware, and a handler of the same length for the others; "JWKS"
answers a request with the public keys, beside http.ServeContent.
`, tokensInUse)
	return t.String()
}

// cpuModel returns the processor's name, where the system has it in a file.
func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	if name := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(info); name != nil {
		return string(name[1])
	}
	return "unknown processor"
}
