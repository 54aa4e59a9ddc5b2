// Command interop shows fleetkey's tokens to relying parties that others have
// written, before, during and after a rotation, and writes what they say to
// RESULTS.md. Run it in its folder:
//
//	go run .
//
// It installs the clients of other languages beside itself, at the versions
// that their lock files name. A client whose language is not on the machine
// becomes a row "not run", and a failure if FLEETKEY_REQUIRE is 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

const resultsFile = "RESULTS.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Getenv("FLEETKEY_REQUIRE") == "1")
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, requireAll bool) (err error) {
	if _, err := os.Stat("node/package.json"); err != nil {
		return errors.New("run this in the folder interop")
	}
	mux := http.NewServeMux()
	server, authority := startServer(mux)
	defer server.Close()
	temp, err := os.MkdirTemp("", "interop-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	authorityFile := filepath.Join(temp, "authority.pem")
	if err := os.WriteFile(authorityFile, authority, 0o600); err != nil {
		return err
	}
	clients, absent, err := startClients(ctx, authority, authorityFile)
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	if err != nil {
		return err
	}
	rows, err := playAll(ctx, server.URL, mux, clients)
	if err != nil {
		return err
	}
	rows = append(rows, absent...)
	if err := os.WriteFile(resultsFile, []byte(report(rows)), 0o644); err != nil {
		return err
	}
	if failed := failures(rows, requireAll); len(failed) > 0 {
		return fmt.Errorf("see %s:\n%s", resultsFile, strings.Join(failed, "\n"))
	}
	fmt.Printf("%d clients ran and did as they should, %d could not run: see %s\n", len(clients), len(absent)/len(algorithms), resultsFile)
	return nil
}

// playAll takes the clients through the story with every algorithm.
func playAll(ctx context.Context, url string, mux *http.ServeMux, clients []client) ([]*row, error) {
	var rows []*row
	for _, algorithm := range algorithms {
		some, err := play(ctx, url, mux, algorithm, clients)
		if err != nil {
			return nil, err
		}
		rows = append(rows, some...)
	}
	return rows, nil
}

// startClients starts all clients. Of those that this machine has no language
// for it returns the rows that say so; one that cannot be installed or started
// is an error. It returns the clients that run also with an error.
func startClients(ctx context.Context, authority []byte, authorityFile string) (clients []client, absent []*row, err error) {
	clients, err = goClients(ctx, authority)
	if err != nil {
		return nil, nil, err
	}
	done := make(map[string]bool)
	for _, e := range externals() {
		if missing := e.missing(); missing != nil {
			fmt.Fprintf(os.Stderr, "NOT RUN: %s: %v\n", e.name, missing)
			for _, algorithm := range algorithms {
				absent = append(absent, &row{about: e.about, algorithm: algorithm, notRun: missing.Error()})
			}
			continue
		}
		c, err := e.start(ctx, ".", authorityFile, done)
		if err != nil {
			return clients, nil, err
		}
		clients = append(clients, c)
	}
	return clients, absent, nil
}
