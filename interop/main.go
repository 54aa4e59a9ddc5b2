// Command interop shows fleetkey's tokens to relying parties that others have
// written, through a rotation and a revocation, and writes what they do to
// RESULTS.md. Run it in its folder:
//
//	go run .
//
// It installs the clients below itself, at the versions that their lock files name. A
// client that cannot be installed or started has failed, and the program fails at the end.
// Clients are added in clients.go. With names of clients it tries those alone, and prints
// what it finds.
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

// playAll takes the clients through the story with every algorithm, and is patient with
// the first.
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

// check ends the program: without its own server there is nothing to show.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
