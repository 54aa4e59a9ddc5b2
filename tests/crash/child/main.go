// Command child is one process of the tests in package crash. When its standard input ends,
// it performs one operation on a FileStore and prints the result as JSON. The tests start
// many children at once, kill them, and make their system calls fail one by one. For that,
// the main thread makes all calls of the store, and the end of the standard input marks where
// they begin.
//
//	child load|create|start|rotate PATH
//
// With readonly- before the operation, the store is read-only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
)

// A result is what the child prints. The tests have the same type.
type result struct {
	Newest  string   // the ID of the newest key of a signer
	Err     string   // the error's text
	Matches []string // the texts of the sentinels that the error matches
	GoesOn  bool     // after a failed rotation, it issued a token and then rotated
}

var sentinels = []error{
	fleetkey.ErrNotExist, fleetkey.ErrConflict, fleetkey.ErrAccessDenied, fleetkey.ErrUnavailable, fleetkey.ErrReadOnly,
	os.ErrNotExist, os.ErrPermission,
}

// Only an init function is sure to run on the main thread.
func init() { runtime.LockOSThread() }

func main() {
	_, _ = io.Copy(io.Discard, os.Stdin)

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	op, readOnly := strings.CutPrefix(os.Args[1], "readonly-")
	file := fleetkey.NewFileStore(os.Args[2], func(o *fleetkey.FileOptions) { o.ReadOnly = readOnly })
	store := mainThread{file, make(chan func())}
	results := make(chan result)
	go func() {
		var r result
		if err := r.run(ctx, op, store); err != nil {
			r.Err = err.Error()
			for _, target := range sentinels {
				if errors.Is(err, target) {
					r.Matches = append(r.Matches, target.Error())
				}
			}
		}
		results <- r
	}()
	for {
		select {
		case call := <-store.calls:
			call()
		case r := <-results:
			if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
				os.Exit(1)
			}
			return
		}
	}
}

func (r *result) run(ctx context.Context, op string, store mainThread) error {
	switch op {
	case "load":
		_, _, err := store.Load(ctx)
		return err
	case "create": // without a Load, which would fail first
		_, err := store.Save(ctx, []byte("a new bundle"), "")
		return err
	case "start", "rotate":
		cfg := fleetkey.Config{Issuer: "https://issuer.example", Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)}
		s, err := fleetkey.NewSigner(ctx, store, cfg)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		if op == "rotate" {
			if err = s.Rotate(ctx); err != nil {
				_, issueErr := s.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web"})
				r.GoesOn = issueErr == nil && s.Rotate(ctx) == nil
			}
		}
		r.Newest = s.Status().Keys[0].KeyID
		return err
	}
	return fmt.Errorf("no operation %q", op)
}

// A mainThread is a store that makes its calls on the main thread.
type mainThread struct {
	*fleetkey.FileStore
	calls chan func()
}

func (s mainThread) Load(ctx context.Context) (bundle []byte, v fleetkey.Version, err error) {
	s.do(func() { bundle, v, err = s.FileStore.Load(ctx) })
	return bundle, v, err
}

func (s mainThread) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (v fleetkey.Version, err error) {
	s.do(func() { v, err = s.FileStore.Save(ctx, bundle, prev) })
	return v, err
}

func (s mainThread) do(call func()) {
	done := make(chan struct{})
	s.calls <- func() { call(); close(done) }
	<-done
}
