// Command openid-server is a small OpenID token server, run as a fleet of three
// instances that share one signing key.
//
//	go run ./examples/openid-server
//
// starts them behind a round-robin proxy on 127.0.0.1:8080, shows that a token
// of one is accepted by all, and serves until Ctrl-C. The key is in a file in a
// temporary directory; -file, -secret and -settings put it elsewhere.
//
// Read on in server.go (what one server serves), token.go (the token endpoint),
// fleet.go (many servers and the proxy) and demo.go (the demonstration).
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/fleetkey/fleetkey"
)

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn) // the demonstration tells the rest
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program. It returns the exit code: 0 if all went well, 1 if
// something failed, 2 for a command line that makes no sense.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	scratch, err := os.MkdirTemp("", "openid-server-")
	if err == nil {
		err = errors.Join(start(ctx, o, o.store(scratch), scratch, stdout), os.RemoveAll(scratch))
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "openid-server:", err)
		return 1
	}
	return 0
}

type options struct {
	addr                   string
	once                   bool
	file, secret, settings string // at most one is set
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("openid-server", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:8080", "`host:port` of the proxy; port 0 takes any free one")
	flags.BoolVar(&o.once, "once", false, "end after the demonstration")
	flags.StringVar(&o.file, "file", "", "keep the key in this file; default: a temporary one")
	flags.StringVar(&o.secret, "secret", "", "keep the key in the AWS Secrets Manager secret of this `name` or ARN")
	flags.StringVar(&o.settings, "settings", "", "keep the key where this appsettings.json `file` says")
	if err := flags.Parse(args); err != nil {
		return o, err // already printed
	}
	stores := 0
	for _, s := range []string{o.file, o.secret, o.settings} {
		if s != "" {
			stores++
		}
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q; all settings are flags, see -help", flags.Arg(0))
	case stores > 1:
		err = errors.New("give only one of -file, -secret and -settings")
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "openid-server:", err)
	}
	return o, err
}

// store returns how an instance opens its store.
func (o options) store(scratch string) openStore {
	return func(ctx context.Context) (fleetkey.KeyStore, error) {
		switch {
		case o.settings != "":
			return fleetkey.OpenStore(ctx, o.settings)
		case o.secret != "":
			return fleetkey.NewAWSStore(ctx, o.secret)
		case o.file != "":
			return fleetkey.NewFileStore(o.file), nil
		}
		return fleetkey.NewFileStore(filepath.Join(scratch, "keys.pem")), nil
	}
}

// start runs the fleet and the demonstration on it, and then, unless it is for
// once, serves until ctx ends.
func start(ctx context.Context, o options, open openStore, scratch string, out io.Writer) (err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.addr)
	if err != nil {
		return fmt.Errorf("the proxy cannot serve at %s; choose another address with -addr, such as -addr 127.0.0.1:0 for any free port: %w", o.addr, err)
	}
	d := demo{out: out, clientID: "demo", secret: rand.Text()}
	f, err := startFleet(ctx, l, open, map[string]client{
		d.clientID: {sha256.Sum256([]byte(d.secret)), []string{scopeRead, scopeWrite}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := d.run(ctx, f, filepath.Join(scratch, "stranger.pem")); err != nil {
		return fmt.Errorf("the demonstration failed: %w", err)
	}
	if o.once {
		return nil
	}
	d.printCommands(f)
	<-ctx.Done()
	d.printf("\nStopping.\n")
	return nil
}
