// Command interop sends fleetkey's tokens to third-party relying parties, through a rotation
// and a revocation, and writes the results to RESULTS.md. Run it in its folder:
//
//	go run .
//
// It installs the clients in its subfolders, at the versions that their lock files name. A
// client that cannot be installed or started counts as failed, and the program fails at the
// end. To add a client, see clients.go. With the names of clients as arguments, it tests only
// those and prints the results.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

const resultsFile = "RESULTS.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	check(os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")) // where Debian has HAProxy
	chosen := clients
	if names := os.Args[1:]; len(names) > 0 {
		chosen = slices.DeleteFunc(slices.Clone(clients), func(c *client) bool { return !slices.Contains(names, c.name) })
	}
	trials := playAll(ctx, chosen, patience)
	if len(chosen) < len(clients) {
		fmt.Println(report(trials))
	} else {
		check(os.WriteFile(resultsFile, []byte(report(trials)), 0o644))
	}
	if failed := failures(trials); len(failed) > 0 {
		fmt.Fprintf(os.Stderr, "interop: %s\n", strings.Join(failed, "\n"))
		os.Exit(1)
	}
	fmt.Printf("%d clients ran and did as they must\n", len(chosen))
}

// playAll runs the story with every algorithm. With the first one, it waits until patience
// ends.
func playAll(ctx context.Context, clients []*client, patience time.Duration) (trials []*trial) {
	prepare(ctx, clients)
	for i, algorithm := range algorithms {
		if i > 0 {
			patience = 0
		}
		trials = append(trials, play(ctx, algorithm, clients, patience)...)
	}
	return trials
}

// check ends the program on an error: without its own server there is nothing to test.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

const intro = `# Results

Made by ` + "`make interop`" + `; [README.md](README.md) says how, and
[docs/clients.md](../docs/clients.md) what each client was told. Every client accepted good
tokens and refused bad ones while a key was announced, signed, retired, and its
successor was revoked. The columns, of which those after the algorithms are for RS256:

- An algorithm: ` + "`yes`" + `, or ` + "`-`" + ` where the client does not know it and says so.
- **typ**: it refuses an ID token that was made for the API's audience.
- **announced**: tokens of a new key are accepted while the JWKS cannot be reached, since the
  key was announced before.
- After ` + "`Revoke`" + `, a client that runs accepts the **fresh key** and refuses the **revoked
  key** within this time. The first figure is for a client that gets tokens of both, the
  second for one that gets none of the fresh key.

`

// patience is how long clients are tested after a revocation.
const patience = 16 * time.Minute

// report returns the text of RESULTS.md. It contains no date and nothing else that differs
// between two runs, so that a changed file means a changed result.
func report(trials []*trial) string {
	var b strings.Builder
	b.WriteString(intro)
	fmt.Fprintf(&b, "| client | %s | typ | announced | fresh key | revoked key |\n|%s\n",
		strings.Join(algorithms, " | "), strings.Repeat("---|", len(algorithms)+5))
	each := len(trials) / len(algorithms) // number of clients; trials lists them in the same order for each algorithm
	for i, t := range trials[:each] {
		fmt.Fprintf(&b, "| %s |", t.client.label())
		for j := i; j < len(trials); j += each {
			cell := "yes"
			if len(trials[j].failed) > 0 {
				cell = "**FAILED**"
			} else if trials[j].lacking {
				cell = "-"
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		fmt.Fprintf(&b, " %s | %s | %s | %s, %s |\n", yes(t.typed), yes(t.outage), within(t.fresh), within(t.beside), within(t.alone))
	}
	if failed := failures(trials); len(failed) > 0 {
		b.WriteString("\n## What went wrong\n\n- " + strings.Join(failed, "\n- ") + "\n")
	}
	return b.String()
}

func (c *client) label() string {
	return fmt.Sprintf("%s %s (%s)", c.name, c.version(), c.runner.language)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// within rounds up to a likely lifetime of a cache.
func within(d time.Duration) string {
	if d == never {
		return "over 15 min"
	}
	if d < 5*time.Second {
		return "at once"
	}
	for _, limit := range []time.Duration{1, 5, 10} {
		if d < limit*time.Minute+30*time.Second {
			return fmt.Sprintf("%d min", limit)
		}
	}
	return "15 min"
}

// failures returns the first failure of each trial, since the others follow from it. They
// make the run fail.
func failures(trials []*trial) (failed []string) {
	for _, t := range trials {
		if len(t.failed) > 0 {
			failed = append(failed, fmt.Sprintf("%s, %s: %.1000s", t.client.label(), t.algorithm, t.failed[0]))
		}
	}
	return failed
}
