// Command filestorechild is one process of the FileStore tests: it waits for
// its standard input to end, does one thing to a store and prints the result
// as JSON. The tests start many at once, and kill it or fail its system calls
// one by one. For the latter all calls come from the main thread, in an order
// that does not change, and the end of the standard input marks where they
// begin.
//
//	filestorechild [-timeout D] first|load|save|hold|signer|rotate PATH [PREV]
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/fleetkey/fleetkey"
)

// A Result is what the child prints.
type Result struct {
	Version  fleetkey.Version // of the bundle it loaded, or saved
	Saved    bool             // it was this process that saved it
	Err      string           // the error's text
	ErrTypes []string         // the sentinels that the error matches, by their text
	GoesOn   bool             // after a failed rotation it issued a token, and rotated
}

// Only an init function surely runs on the main thread.
func init() { runtime.LockOSThread() }

func main() {
	timeout := flag.Duration("timeout", 30*time.Second, "end of the context")
	flag.Parse()
	_, _ = io.Copy(io.Discard, os.Stdin)

	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	r, err := run(ctx, flag.Arg(0), flag.Arg(1), fleetkey.Version(flag.Arg(2)))
	if err != nil {
		r.Err = err.Error()
		for _, target := range []error{
			fleetkey.ErrNotExist, fleetkey.ErrConflict, fleetkey.ErrAccessDenied, fleetkey.ErrUnavailable,
			os.ErrNotExist, os.ErrPermission, context.DeadlineExceeded,
		} {
			if errors.Is(err, target) {
				r.ErrTypes = append(r.ErrTypes, target.Error())
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, op, path string, prev fleetkey.Version) (r Result, err error) {
	store := fleetkey.NewFileStore(path)
	switch op {
	case "load":
		_, r.Version, err = store.Load(ctx)
	case "save":
		r.Version, err = store.Save(ctx, newBundle(), prev)
		r.Saved = err == nil
	case "first": // what a Signer does at its first start
		_, r.Version, err = store.Load(ctx)
		if errors.Is(err, fleetkey.ErrNotExist) {
			r.Version, err = store.Save(ctx, newBundle(), "")
			r.Saved = err == nil
		}
		if errors.Is(err, fleetkey.ErrConflict) {
			_, r.Version, err = store.Load(ctx)
		}
	case "signer", "rotate": // a whole Signer; the Version is the newest kid
		s, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{Issuer: "https://id.example", Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return r, err
		}
		defer s.Close()
		if op == "rotate" {
			if err = s.Rotate(ctx); err != nil {
				_, issueErr := s.Issue(ctx, fleetkey.Claims{Subject: "alice"})
				r.GoesOn = issueErr == nil && s.Rotate(ctx) == nil
			}
		}
		r.Version = fleetkey.Version(s.Status().Keys[0].KeyID)
		return r, err
	case "hold": // a writer that is stopped while it holds the lock
		l := flock.New(path + ".lock")
		if err = l.Lock(); err == nil {
			fmt.Println("held")
			<-ctx.Done()
		}
		runtime.KeepAlive(l)
	default:
		err = fmt.Errorf("no operation %q", op)
	}
	return r, err
}

// newBundle returns 64 equal lines of random text, so that a torn or mixed
// file shows.
func newBundle() []byte { return []byte(strings.Repeat(rand.Text()+"\n", 64)) }
