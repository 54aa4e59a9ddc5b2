package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
)

// A goal is the largest ratio to the bare crypto call that fleetkey allows
// itself, for each of the algorithms.
type goal struct {
	row string
	max [3]float64
}

var goals = []goal{
	{rowIssue, [3]float64{1.01, 1.05, 1.08}},
	{rowFirst, [3]float64{1.12, 1.06, 1.08}},
}

const (
	rowIssue = "issue"
	rowFirst = "verify, first time"
	rowAgain = "verify, again"

	// againGoal is how many times cheaper than with golang-jwt it is to verify
	// a token again, on RS256.
	againGoal = 100
	// issueAllocations is the goal for what Issue allocates beyond the bare call.
	issueAllocations = 6
)

// A row is one thing that contenders do, measured side by side.
type row struct {
	name    string
	base    int // contender that the ratios are taken to
	results []*result
}

// compare puts all contenders beside each other, for each algorithm.
func compare(p plan, out *page) error {
	all := map[string][]row{}
	for _, algorithm := range algorithms {
		rows, err := compareOn(p, algorithm)
		if err != nil {
			return err
		}
		all[algorithm] = rows
		fmt.Fprintf(out, "\n## %s\n\n%s", algorithm, rowTable(rows))
		fmt.Fprintf(out, "\nTo verify a token again takes golang-jwt %s times as long as fleetkey.\n", again(rows).factor())
	}
	addGoals(out, all)
	return nil
}

func compareOn(p plan, algorithm string) ([]row, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, stop, err := newFixture(ctx, algorithm)
	if err != nil {
		return nil, err
	}
	defer stop()
	peers, err := openAll(ctx, f)
	if err != nil {
		return nil, err
	}
	remembering, err := openFleetkey(0)(ctx, f)
	if err != nil {
		return nil, err
	}
	again := append([]contender(nil), peers...)
	again[ours] = remembering
	again[ours].name = contenders[ours].name

	cores := runtime.GOMAXPROCS(0)
	rows := []row{
		{name: rowIssue, results: measure(p, 1, issuing(peers))},
		{name: rowFirst, results: measure(p, 1, verifying(peers, f.tokens))},
		{name: rowAgain, results: measure(p, 1, verifying(again, f.tokens))},
		{name: fmt.Sprintf("%s, on %d cores", rowFirst, cores), results: measure(p, cores, verifying(peers, f.tokens))},
		{name: fmt.Sprintf("%s, on %d cores", rowAgain, cores), results: measure(p, cores, verifying(again, f.tokens))},
	}
	for _, h := range hostile(f) {
		ops := refusing(peers, h.token)
		if h.token != hostile(f)[0].token {
			// The bare call cannot refuse it: compare with a good token.
			ops[bare] = verifying(peers, f.tokens)[bare]
		}
		rows = append(rows, row{name: "refuse: " + h.name, results: measure(p, 1, ops)})
	}
	return rows, nil
}

func issuing(peers []contender) []operation {
	return each(peers, func(c contender) operation {
		if c.issue == nil {
			return nil
		}
		return func(int) {
			_, err := c.issue()
			must(err)
		}
	})
}

func verifying(peers []contender, tokens []string) []operation {
	return each(peers, func(c contender) operation {
		return func(i int) {
			_, err := c.verify(tokens[i%len(tokens)])
			must(err)
		}
	})
}

func refusing(peers []contender, token string) []operation {
	return each(peers, func(c contender) operation {
		return func(int) {
			if _, err := c.verify(token); err == nil {
				panic(c.name + " took a hostile token")
			}
		}
	})
}

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
			case i == r.base:
				fmt.Fprintf(&t, " | %s µs, %.0f allocs", figure(result.micros()), result.allocs)
			default:
				fmt.Fprintf(&t, " | %s, %.0f allocs", result.over(r.results[r.base]), result.allocs)
			}
		}
		t.WriteString(" |\n")
	}
	return t.String()
}

func again(rows []row) row { return named(rows, rowAgain) }

// factor is how much longer golang-jwt takes than fleetkey.
func (r row) factor() string { return r.results[golangJWT].over(r.results[ours]) }

func named(rows []row, name string) row {
	for _, r := range rows {
		if r.name == name {
			return r
		}
	}
	panic("no row " + name)
}

func addGoals(out *page, all map[string][]row) {
	for i, algorithm := range algorithms {
		rows := all[algorithm]
		for _, g := range goals {
			r := named(rows, g.row)
			out.goal(algorithm+", "+g.row, fmt.Sprintf("at most %v", g.max[i]), r.results[ours].over(r.results[bare]),
				median(r.results[ours].ratios(r.results[bare])) <= g.max[i])
		}
		issue := named(rows, rowIssue)
		beyond := issue.results[ours].allocs - issue.results[bare].allocs
		out.goal(algorithm+", allocations of issue beyond the bare call", fmt.Sprintf("at most %d", issueAllocations),
			fmt.Sprint(beyond), beyond <= issueAllocations)
		r := again(rows)
		out.goal(algorithm+", allocations of verify, again", "0", fmt.Sprint(r.results[ours].allocs), r.results[ours].allocs == 0)
		if algorithm == "RS256" {
			out.goal("RS256, golang-jwt's time over fleetkey's, verify again", fmt.Sprintf("at least %d", againGoal), r.factor(),
				median(r.results[golangJWT].ratios(r.results[ours])) >= againGoal)
		}
	}
}
