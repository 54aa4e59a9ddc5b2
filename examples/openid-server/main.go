// Command openid-server is a small OpenID token server, run as a fleet of three
// instances that share one signing key.
//
//	go run ./examples/openid-server
//
// starts them behind a round-robin proxy on 127.0.0.1:8080, shows that every instance accepts
// the tokens of the others, and serves until Ctrl-C, with a page that shows the fleet at
// http://127.0.0.1:8080. The key is in a file in a temporary directory unless -settings names
// another store.
//
// See server.go (one server), fleet.go (many servers and the proxy), demo.go (the
// demonstration) and page.go (what the browser shows).
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/fleetkey/fleetkey"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`host:port` of the proxy; port 0 takes any free one")
	once := flag.Bool("once", false, "end after the demonstration")
	settings := flag.String("settings", "", "keep the key where this appsettings.json `file` says; default: a temporary file")
	flag.Parse()

	slog.SetLogLoggerLevel(slog.LevelWarn) // the demonstration reports the rest
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, *addr, *settings, *once, os.Stdout); err != nil {
		log.Fatal("openid-server: ", err)
	}
}

// run starts the fleet and the demonstration, and then, unless once is set,
// serves until ctx ends.
func run(ctx context.Context, addr, settings string, once bool, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "openid-server-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store := new(tap)
	open := func() (fleetkey.KeyStore, error) {
		if settings != "" {
			opened, err := fleetkey.OpenStore(ctx, settings)
			return tapped{opened, store}, err
		}
		return tapped{fleetkey.NewFileStore(filepath.Join(dir, "keys.pem")), store}, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("choose another address for the proxy with -addr, such as -addr 127.0.0.1:0 for any free port: %w", err)
	}
	d := demo{out: out, id: "demo", secret: rand.Text()}
	f, err := startFleet(ctx, "http://"+l.Addr().String(), open, client{d.id, sha256.Sum256([]byte(d.secret))})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { err = errors.Join(err, f.close()) }()
	p := newPage(f, store, d)
	f.serve(l, p.handler())
	if err := d.run(ctx, f, fleetkey.NewFileStore(filepath.Join(dir, "stranger.pem"))); err != nil {
		return fmt.Errorf("the demonstration failed: %w", err)
	}
	if !once {
		d.printCommands(f)
		p.watch(ctx)
	}
	return nil
}
