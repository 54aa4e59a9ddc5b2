// Command fleetkey is the operator's tool for the signing keys that a fleet of OpenID
// servers shares. It shows, creates, moves and replaces keys.
//
//	fleetkey status --file /var/lib/openid-server/keys.pem
//	fleetkey doctor --secret indicium/openid-server-test
//	fleetkey import signing.pfx --settings appsettings.json
//
// docs/cli.md shows every command with its output.
//
// Exit status:
//
//	0  done, and nothing is wrong
//	1  failed; nothing was changed unless the message says so
//	2  wrong usage
//	3  status, verify or doctor found a problem
//	4  not confirmed; nothing was changed
//
// Results go to standard output; messages, questions and warnings go to standard error.
// Private keys are never printed; export writes them to a file, and only on request.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// A cli is the command line. Each command is in a file of its name, and kong calls its Run.
type cli struct {
	Verbose bool             `short:"v" help:"Log the library's actions to standard error."`
	Timeout time.Duration    `default:"1m" help:"Time limit for a store, or for reading a pipe."`
	JSON    bool             `help:"Print the result as JSON."`
	Version kong.VersionFlag `help:"Print the version and exit."`

	Status statusCmd `cmd:"" help:"Show the keys: a table and a timeline."`
	Verify verifyCmd `cmd:"" help:"Check a token, and print which check fails and why."`
	Doctor doctorCmd `cmd:"" help:"Find problems with a store, and commands that fix them."`

	Init   initCmd   `cmd:"" help:"Create the first key in an empty store."`
	Rotate rotateCmd `cmd:"" help:"Announce a new key that takes over later."`
	Revoke revokeCmd `cmd:"" help:"Revoke a stolen key immediately."`

	Import importCmd `cmd:"" help:"Import the key of another system: PEM, PFX, JWK and other formats."`
	Export exportCmd `cmd:"" help:"Export certificates, public keys, the JWKS or the private keys."`
	Copy   copyCmd   `cmd:"" help:"Copy the keys to an empty store, with the same kids."`

	Policy policyCmd `cmd:"" help:"Print the minimal IAM policy for a secret."`

	Completion completionCmd `cmd:"" help:"Print a shell completion script."`
}

const (
	exitFailed      = 1
	exitUsage       = 2
	exitWrong       = 3
	exitUnconfirmed = 4
)

// A usageError is a usage error that kong cannot detect.
type usageError string

func (e usageError) Error() string { return string(e) }

// errWrong ends a command that has printed what is wrong.
var errWrong = errors.New("something is wrong")

// An app is what a command works with.
type app struct {
	ctx            context.Context
	stdin          *os.File
	stdout, stderr io.Writer
	log            *slog.Logger
	timeout        time.Duration
	json           bool
	lost           error // the first error while printing
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	a := &app{ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, log: slog.New(slog.DiscardHandler), timeout: time.Minute}
	os.Exit(a.run(os.Args[1:]))
}

// run returns the exit status.
func (a *app) run(args []string) int {
	switch { // as kubectl, docker and gh do
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help":
		args = append(args[1:], "--help")
	case args[0] == "version":
		args[0] = "--version"
	}
	parser := newParser(a)
	answerShell(parser) // exits if a shell requests completions
	command, err := parser.Parse(shieldKIDs(args))
	switch {
	case errors.Is(err, context.Canceled): // while --config was read
		return report(a.stderr, err)
	case err != nil:
		return report(a.stderr, usageError(err.Error()))
	}
	switch err = command.Run(a); {
	case err == nil:
		err = a.lost
	case errors.Is(err, errWrong) && a.ctx.Err() != nil: // doctor was interrupted
		err = a.ctx.Err()
	}
	return report(a.stderr, err)
}

// AfterApply is called by kong, before that of the command.
func (c *cli) AfterApply(a *app) error {
	a.timeout, a.json = c.Timeout, c.JSON
	if c.Verbose {
		a.log = slog.New(slog.NewTextHandler(a.stderr, nil))
	}
	return nil
}

// shieldKIDs moves kids that begin with a hyphen behind the flags; one in 64 does.
func shieldKIDs(args []string) []string {
	if slices.Contains(args, "--") {
		return args
	}
	isKID := func(arg string) bool { return strings.HasPrefix(arg, "-") && keyset.CheckThumbprint(arg) == nil }
	i := slices.IndexFunc(args, isKID)
	if i < 0 {
		return args
	}
	return slices.Concat(args[:i], args[i+1:], []string{"--", args[i]})
}

// report prints an error, if any, and returns the exit status.
func report(w io.Writer, err error) int {
	var usage usageError
	prefix := "fleetkey: "
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errWrong):
		return exitWrong
	case errors.Is(err, context.Canceled):
		prefix += "interrupted: "
	}
	_, _ = fmt.Fprintf(w, "%s%s\n", prefix, trimPrefix(err))
	switch {
	case errors.As(err, &usage):
		_, _ = fmt.Fprintln(w, "Try: fleetkey --help, or fleetkey COMMAND --help")
		return exitUsage
	case errors.Is(err, errUnconfirmed):
		return exitUnconfirmed
	}
	return exitFailed
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version + " " + info.GoVersion
}

func (a *app) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(a.stdout, format, args...); err != nil {
		a.lost = err
	}
}

// show prints a result as text or JSON.
func (a *app) show(result any, text func()) error {
	if a.json {
		return a.printJSON(result)
	}
	text()
	return nil
}

func (a *app) printJSON(result any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(result)
}

// note prints a message that is not part of the result.
func (a *app) note(format string, args ...any) { _, _ = fmt.Fprintf(a.stderr, format+"\n", args...) }
