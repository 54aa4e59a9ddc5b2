package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A fleet is an issuer and a verifier that share a store, so that what one
// issues is new to the other.
type fleet struct{ issuer, verifier *fleetkey.Signer }

func newFleet(ctx context.Context, algorithm string, cachedTokens int) (*fleet, error) {
	store := fleetkeytest.NewStore()
	cfg := config(algorithm)
	issuer, err := fleetkey.NewSigner(ctx, store, cfg)
	if err != nil {
		return nil, err
	}
	cfg.CachedTokens = cachedTokens
	verifier, err := fleetkey.NewSigner(ctx, store, cfg)
	if err != nil {
		return nil, err
	}
	return &fleet{issuer, verifier}, nil
}

func (f *fleet) close() {
	_ = f.issuer.Close()
	_ = f.verifier.Close()
}

// A pouring is what is sent: tokens each so many times, after a change that makes
// them bad, if there is one.
type pouring struct {
	name   string
	times  int
	change func(token string) string
}

var fresh = pouring{name: "valid tokens, each once", times: 1}

// pour issues tokens and has them verified, on all cores.
func (f *fleet) pour(ctx context.Context, tokens int, p pouring) {
	var done sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		done.Go(func() {
			for i := w; i < tokens; i += workers {
				f.send(ctx, p)
			}
		})
	}
	done.Wait()
}

func (f *fleet) send(ctx context.Context, p pouring) {
	token, err := f.issuer.Issue(ctx, claims())
	must(err)
	if p.change != nil {
		token = p.change(token)
	}
	for range p.times {
		if _, err := f.verifier.Verify(ctx, token); (err != nil) != (p.change != nil) {
			panic(fmt.Sprintf("%s: %v", p.name, err))
		}
	}
}

// measureCache fills caches with tokens, and then sends many times as many.
func measureCache(p plan, out *page) error {
	ctx := context.Background()
	fmt.Fprint(out, "\n## Memory of the cache of verified tokens\n\nHeap in use after a collection: with the cache empty, after as many distinct tokens\n"+
		"as Config.CachedTokens, and after many times as many.\n\n| algorithm, token | CachedTokens | empty | full | bytes for each token | after more |\n|---|---|---|---|---|---|\n")
	for _, algorithm := range []string{"EdDSA", "RS256"} {
		for _, entries := range p.entries {
			if algorithm == "RS256" && entries > 10_000 {
				continue // signing them takes minutes, and the figures follow from the others
			}
			if err := fill(ctx, algorithm, entries, out); err != nil {
				return err
			}
		}
	}
	return nil
}

func fill(ctx context.Context, algorithm string, entries int, out io.Writer) error {
	before := heap()
	f, err := newFleet(ctx, algorithm, entries)
	if err != nil {
		return err
	}
	defer f.close()
	token, err := f.issuer.Issue(ctx, claims())
	if err != nil {
		return err
	}
	empty := heap() - before
	f.pour(ctx, entries, fresh)
	full := heap() - before
	more := min(9*entries, 200_000-entries)
	if algorithm == "RS256" {
		more = min(more, 2*entries)
	}
	f.pour(ctx, more, fresh)
	flooded := heap() - before
	fmt.Fprintf(out, "| %s, %d bytes | %d | %s | %s | %d | %s (%d in all) |\n", algorithm, len(token), entries,
		kibibytes(empty), kibibytes(full), (full-empty)/int64(entries), kibibytes(flooded), entries+more)
	return nil
}

func kibibytes(n int64) string { return fmt.Sprintf("%.0f KiB", float64(n)/1024) }

const (
	honest  = 100 // tokens in use while the flood goes on
	settled = 3   // times that each was seen before
)

// measureFlood sends distinct tokens, valid ones and made-up ones, past a cache
// that holds a hundred in use, and counts how many of these it still knows when
// they come again.
func measureFlood(p plan, out *page) error {
	fmt.Fprintf(out, "\n## Flood past the cache\n\nA cache of 10,000 tokens, %d of them in honest use; %d others pass by (EdDSA).\n"+
		"The honest ones come again in turn, each after so many tokens of the flood.\n\n"+
		"| flood of | flood tokens between two uses | honest tokens found in the cache | heap before | heap after |\n|---|---|---|---|---|\n", honest, p.flood)
	for _, kind := range []pouring{fresh, {"valid tokens, each twice", 2, nil}, {"wrong signatures", 1, wrongSignature}} {
		for _, between := range []int{1_000, 10_000, 100_000} {
			if between > p.flood/2 {
				continue
			}
			if err := flood(p, kind, between, out); err != nil {
				return err
			}
		}
	}
	return nil
}

func flood(p plan, kind pouring, between int, out io.Writer) error {
	ctx := context.Background()
	f, err := newFleet(ctx, "EdDSA", 10_000)
	if err != nil {
		return err
	}
	defer f.close()
	tokens := make([]string, honest)
	seen := make([]*fleetkey.Token, honest)
	for i := range tokens {
		if tokens[i], err = f.issuer.Issue(ctx, claims()); err != nil {
			return err
		}
		for range settled {
			seen[i], err = f.verifier.Verify(ctx, tokens[i])
			must(err)
		}
	}
	before := heap()
	uses, hits := 0, 0
	step := max(1, between/honest)
	for sent := 0; sent < p.flood; sent += step {
		f.pour(ctx, step, kind)
		i := uses % honest
		t, err := f.verifier.Verify(ctx, tokens[i])
		must(err)
		uses++
		if t == seen[i] { // the cache hands out the one it keeps
			hits++
		}
		seen[i] = t
	}
	fmt.Fprintf(out, "| %s | %d | %.1f %% of %d | %s | %s |\n", kind.name, between, 100*float64(hits)/float64(uses), uses, kibibytes(before), kibibytes(heap()))
	return nil
}
