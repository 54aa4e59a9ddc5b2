package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// A page is what is written; it collects how the goals were met.
type page struct {
	io.Writer
	goals strings.Builder // rows of a table
}

func (p *page) goal(what, goal, measured string, met bool) {
	fmt.Fprintf(&p.goals, "| %s | %s | %s | %s |\n", what, goal, measured, map[bool]string{true: "yes", false: "no"}[met])
}

// writeGoals sets what was measured beside what was aimed at.
func (p *page) writeGoals() {
	if p.goals.Len() > 0 {
		fmt.Fprintf(p, "\n## fleetkey against its goals\n\n|| goal | measured | met |\n|---|---|---|---|\n%s", p.goals.String())
	}
}

// intro says what was measured, on what, and how to read it.
func intro(p plan) string {
	var t strings.Builder
	t.WriteString("# fleetkey beside its peers\n\nWritten by `make bench`.")
	if p.rounds < full.rounds {
		t.WriteString(" **Made with `-quick`: the figures mean little.**")
	}
	fmt.Fprintf(&t, `

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
	t.WriteString("\n\"Verify, first time\" is fleetkey with its cache of verified tokens off; \"again\" is with\n" +
		"the cache, which the peers lack: they do all of it again. Each goes through " + fmt.Sprint(tokensInUse) + " tokens.\n")
	return t.String()
}

func moduleVersions() map[string]string {
	versions := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	for _, m := range info.Deps {
		versions[m.Path] = m.Version
	}
	return versions
}

// cpuModel returns the processor's name, where the system tells it in a file.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
