package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
)

// compare puts all contenders beside each other, for each algorithm.
func compare(p plan, out io.Writer) {
	for _, algorithm := range algorithms {
		fmt.Fprintf(out, "\n## %s\n\n|", algorithm)
		for _, c := range contenders {
			fmt.Fprintf(out, " | %s", c.name)
		}
		fmt.Fprintf(out, " |\n|---%s|\n", strings.Repeat("|---", len(contenders)))
		compareOn(p, out, algorithm)
	}
}

func compareOn(p plan, out io.Writer, algorithm string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, peers := openAll(ctx, algorithm)
	unknown := f.unknownKeys(1_000)
	asked := questions(peers, unknown)

	row := func(name string, of func(contender) operation) { writeRow(out, name, measure(p, peers, of)) }
	first := func(c contender) operation { return verifying(c, f.tokens) }
	row("issue", issuing)
	row("verify, first time", first)
	row("verify, again", func(c contender) operation { return verifying(*c.again, f.tokens) })
	row("Require, again", func(c contender) operation { return guardingAgain(c, f.tokens) })
	row("JWKS", serving)
	refuse := func(name string, bareToo bool, tokens ...string) {
		row("refuse: "+name, func(c contender) operation {
			if c.name == contenders[bare].name && !bareToo {
				return first(c) // it cannot refuse this token: compare with a good one
			}
			return refusing(c, tokens)
		})
	}
	for i, h := range hostile(f) {
		refuse(h.name, i == 0, h.token)
	}
	refuse("unknown kid", false, unknown...)
	fmt.Fprintf(out, "\n%d tokens, each with another unknown kid, make a contender look for keys: %s.\n", len(unknown), asked)
}

// questions says how often tokens make the contenders look for keys, of those that ever do.
func questions(peers []contender, tokens []string) string {
	var asked []string
	for _, c := range peers {
		if c.asked == nil {
			continue
		}
		before := c.asked()
		for i := range tokens {
			refusing(c, tokens)(i)
		}
		asked = append(asked, fmt.Sprintf("%s %d times", c.name, c.asked()-before))
	}
	return strings.Join(asked, ", ")
}

func issuing(c contender) operation {
	if c.issue == nil {
		return nil
	}
	return func(int) { must(c.issue()) }
}

func verifying(c contender, tokens []string) operation {
	return func(i int) { must(c.verify(tokens[i%len(tokens)])) }
}

func refusing(c contender, tokens []string) operation {
	return func(i int) {
		if _, err := c.verify(tokens[i%len(tokens)]); err == nil {
			panic(c.name + " accepts a hostile token")
		}
	}
}

func guardingAgain(c contender, tokens []string) operation {
	served := 0
	handler := c.again.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
	var requests []*http.Request
	for _, token := range tokens {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		requests = append(requests, r)
	}
	return func(i int) {
		before := served
		handler.ServeHTTP(nil, requests[i%len(requests)])
		if served == before {
			panic(c.name + " refuses a good token")
		}
	}
}

func serving(c contender) operation {
	if c.jwks == nil {
		return nil
	}
	w, r := nowhere{http.Header{}}, httptest.NewRequest(http.MethodGet, "/", nil)
	return func(int) { c.jwks(w, r) }
}

// nowhere discards an answer.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}

// writeRow writes ratios to the bare call, and allocations.
func writeRow(out io.Writer, name string, results []*result) {
	fmt.Fprintf(out, "| %s", name)
	for i, r := range results {
		switch {
		case r == nil:
			fmt.Fprint(out, " | –")
		case i == bare:
			fmt.Fprintf(out, " | %s µs, %.0f allocs", figure(median(r.ns)/1e3), r.allocs)
		default:
			fmt.Fprintf(out, " | %s, %.0f allocs", r.over(results[bare]), r.allocs)
		}
	}
	fmt.Fprintln(out, " |")
}
