package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
)

// A row is one thing that contenders do, measured side by side.
type row struct {
	name    string
	results []*result
}

// compare puts all contenders beside each other, for each algorithm.
func compare(p plan, out io.Writer) {
	for _, algorithm := range algorithms {
		fmt.Fprintf(out, "\n## %s\n\n%s", algorithm, rowTable(compareOn(p, algorithm)))
	}
}

func compareOn(p plan, algorithm string) []row {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, peers := openAll(ctx, algorithm)
	var rows []row
	add := func(name string, parallel bool, operation func(contender) operation) {
		rows = append(rows, row{name, measure(p, parallel, each(peers, operation))})
	}
	first := func(c contender) operation { return verifying(c, f.tokens) }
	again := func(c contender) operation { return verifying(*c.again, f.tokens) }
	add("issue", false, issuing)
	add("verify, first time", false, first)
	add("verify, again", false, again)
	cores := fmt.Sprintf(", on %d cores", runtime.GOMAXPROCS(0))
	add("verify, first time"+cores, true, first)
	add("verify, again"+cores, true, again)
	add("Require, again", false, func(c contender) operation { return guardingAgain(c, f.tokens) })
	add("JWKS", false, serving)
	for i, h := range hostile(f) {
		add("refuse: "+h.name, false, func(c contender) operation {
			if i > 0 && c.name == contenders[bare].name {
				return first(c) // it cannot refuse this token: compare with a good one
			}
			return refusing(c, []string{h.token})
		})
	}
	return rows
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

func each(peers []contender, f func(contender) operation) []operation {
	ops := make([]operation, len(peers))
	for i, c := range peers {
		ops[i] = f(c)
	}
	return ops
}

// rowTable writes rows of ratios to the bare call and of allocations.
func rowTable(rows []row) string {
	var t strings.Builder
	t.WriteString("|")
	for _, c := range contenders {
		t.WriteString(" | " + c.name)
	}
	t.WriteString(" |\n|---" + strings.Repeat("|---", len(contenders)) + "|\n")
	for _, r := range rows {
		t.WriteString("| " + r.name)
		for i, result := range r.results {
			switch {
			case result == nil:
				t.WriteString(" | –")
			case i == bare:
				fmt.Fprintf(&t, " | %s µs, %.0f allocs", figure(result.micros()), result.allocs)
			default:
				fmt.Fprintf(&t, " | %s, %.0f allocs", result.over(r.results[bare]), result.allocs)
			}
		}
		t.WriteString(" |\n")
	}
	return t.String()
}
