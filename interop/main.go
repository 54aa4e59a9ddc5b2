// Command interop shows fleetkey's tokens to relying parties that others have
// written, before, during and after a rotation, and writes what they say to
// RESULTS.md. Run it in its folder:
//
//	go run .
//
// It installs the clients of other languages beside itself, at the versions
// that their lock files name. A client that cannot be installed or started becomes a
// row "not run", and the program fails at the end. Clients are added in client.go.
package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

const resultsFile = "RESULTS.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux) // some clients insist on https
	temp := must(os.MkdirTemp("", "interop-"))
	authorityFile := filepath.Join(temp, "authority.pem")
	check(os.WriteFile(authorityFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	clients := slices.Concat(startGoLibraries(ctx, server.Client()), startProcesses(ctx, authorityFile))
	playAll(ctx, server.URL, mux, clients)
	check(os.RemoveAll(temp))
	check(os.WriteFile(resultsFile, []byte(report(clients)), 0o644))
	if failed := failures(clients); len(failed) > 0 {
		fmt.Fprintf(os.Stderr, "interop: see %s:\n%s\n", resultsFile, strings.Join(failed, "\n"))
		os.Exit(1)
	}
	fmt.Printf("%d clients ran and did as they should: see %s\n", len(clients), resultsFile)
}

// playAll takes the clients through the story with every algorithm.
func playAll(ctx context.Context, url string, mux *http.ServeMux, clients []*client) {
	for _, algorithm := range algorithms {
		play(ctx, url, mux, algorithm, clients)
	}
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
