package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
)

const (
	// dearestTime and dearestBytes are the goal for what anybody's token may cost.
	dearestTime  = 200 * time.Microsecond
	dearestBytes = 64 << 10
)

// madeUp returns the dearest tokens that anybody can make up, as long as a token
// may be. load_hostile_test.go of the root module has more of them.
func madeUp(f *fixture) []hostileToken {
	const room = 11_800 // bytes that a segment decodes to
	parts := strings.Split(f.tokens[0], ".")
	header := func(text string) string { return b64(text) + ".e30.AAAA" }
	return []hostileToken{
		{"16 KiB of dots", strings.Repeat(".", fleetkey.MaxTokenSize)},
		{"header of nested arrays", header(`{"alg":` + repeat(room, "["))},
		{"header with a long kid of escapes", header(`{"alg":"RS256","typ":"at+jwt","kid":"` + repeat(room-60, `\u00e9`) + `"}`)},
		{"unknown kid, long payload", b64(fmt.Sprintf(`{"alg":%q,"kid":"x","typ":%q}`, f.algorithm, tokenType)) + "." + b64(repeat(room-60, "x")) + ".AAAA"},
		{"wrong signature, long payload", parts[0] + "." + b64(repeat(room-400, "x")) + "." + parts[2]},
		{"long signature", parts[0] + "." + parts[1] + "." + b64(repeat(room-400, "x"))},
	}
}

// signedMadly returns tokens whose signature is good and whose claims are meant
// to cost as much as they can.
func signedMadly(f *fixture) []hostileToken {
	const room = 11_400
	sign := func(payload string) string {
		text := b64(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":%q}`, f.algorithm, f.keyID, tokenType)) + "." + b64(payload)
		signature, err := jwt.GetSigningMethod(f.algorithm).Sign(text, f.private)
		must(err)
		return text + "." + b64(string(signature))
	}
	var members strings.Builder
	for i := 0; members.Len() < room; i++ {
		fmt.Fprintf(&members, `"%x":0,`, i)
	}
	return []hostileToken{
		{"signed, long string", sign(`{"x":"` + repeat(room, "x") + `"}`)},
		{"signed, audience of many", sign(`{"aud":["x"` + repeat(room, `,"x"`) + `]}`)},
		{"signed, many members", sign("{" + members.String() + `"x":0}`)},
		{"signed, nested arrays", sign(`{"x":` + repeat(room, "["))},
		{"signed, nested objects", sign(repeat(room, `{"":`))},
	}
}

func b64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// repeat repeats a text to so many bytes, or a few less.
func repeat(bytes int, text string) string { return strings.Repeat(text, bytes/len(text)) }

// A cost is what one hostile token takes, for each algorithm.
type cost struct {
	name  string
	took  []*result
	bytes int // at most
}

// measureDearest has fleetkey refuse the tokens that cost most.
func measureDearest(p plan, out *page) error {
	p.slice /= 4
	var good []*result
	var costs []cost
	anybodys := 0 // of costs; the others take a key to sign
	for _, algorithm := range []string{"RS256", "ES256"} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		f, stop, err := newFixture(ctx, algorithm)
		if err != nil {
			return err
		}
		defer stop()
		verifier, err := openFleetkey(-1)(ctx, f)
		if err != nil {
			return err
		}
		tokens, ops := append(madeUp(f), signedMadly(f)...), verifying([]contender{verifier}, f.tokens)
		anybodys = len(madeUp(f))
		for i, h := range tokens {
			op := refusing([]contender{verifier}, h.token)[0]
			if len(h.token) > fleetkey.MaxTokenSize {
				return fmt.Errorf("%s: %d bytes", h.name, len(h.token))
			}
			if len(good) == 0 {
				costs = append(costs, cost{name: h.name})
			}
			costs[i].bytes = max(costs[i].bytes, allocatedBytes(op))
			ops = append(ops, op)
		}
		results := measure(p, 1, ops)
		good = append(good, results[0])
		for i, r := range results[1:] {
			costs[i].took = append(costs[i].took, r)
		}
	}
	writeCosts(out, good, costs, anybodys)
	return nil
}

func writeCosts(out *page, good []*result, costs []cost, anybodys int) {
	fmt.Fprint(out, "\nThe dearest tokens, as long as they may be (16 KiB): the time to refuse one, its ratio to accepting a good\n"+
		"token for the first time, and what it allocates. To send one that is signed takes a key that is trusted.\n\n"+
		"|| RS256 | ES256 | allocated |\n|---|---|---|---|\n")
	slowest, largest := 0.0, 0
	for i, c := range costs {
		fmt.Fprintf(out, "| %s |", c.name)
		for alg, r := range c.took {
			fmt.Fprintf(out, " %s µs, %s |", figure(r.micros()), r.over(good[alg]))
			if i < anybodys {
				slowest = max(slowest, r.micros())
			}
		}
		fmt.Fprintf(out, " %s |\n", kibibytes(int64(c.bytes)))
		if i < anybodys {
			largest = max(largest, c.bytes)
		}
	}
	limit := float64(dearestTime) / float64(time.Microsecond)
	out.goal("the dearest token that anybody can make up, time", fmt.Sprintf("at most %g µs", limit), figure(slowest)+" µs", slowest <= limit)
	out.goal("the same, bytes", "at most "+kibibytes(dearestBytes), kibibytes(int64(largest)), largest <= dearestBytes)
}

// allocatedBytes returns how many bytes one operation allocates.
func allocatedBytes(op operation) int {
	const n = 50
	var before, after runtime.MemStats
	op(0)
	runtime.ReadMemStats(&before)
	for i := range n {
		op(i)
	}
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc-before.TotalAlloc) / n
}
