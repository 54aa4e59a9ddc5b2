package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGoClients takes the clients that are Go libraries through the whole story.
func TestGoClients(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	clients := startGoLibraries(t.Context(), server.Client())
	playAll(t.Context(), server.URL, mux, clients)
	assert.Empty(t, failures(clients))
	for _, c := range clients {
		require.Len(t, c.rows, len(algorithms))
		for _, r := range c.rows {
			for p := range phases {
				want := map[bool]string{true: "refused", false: "ok"}[p == brokenSignature || p == keyGone || p == revoked]
				if p != replaced {
					assert.Equal(t, want, c.cell(r, p), "%s, %s, %s", c.label(), r.algorithm, titles[p][0])
				}
			}
		}
	}
}

// TestLiarsAreFound checks that a client that does not verify, or cannot, does not pass.
func TestLiarsAreFound(t *testing.T) {
	for name, liar := range map[string]struct {
		answer
		err   error
		lacks []string
		fails int
	}{
		"accepts all":                      {answer: answer{Subject: subject}, fails: 3},
		"refuses all":                      {answer: answer{Error: "no"}, fails: 5},
		"accepts for another subject":      {answer: answer{Subject: "mallory"}, fails: int(phases)},
		"its process has ended":            {err: errors.New("ended"), fails: 1},
		"accepts what it should not know":  {answer: answer{Subject: subject}, lacks: []string{"ES256"}, fails: 1},
		"says that it lacks the algorithm": {answer: answer{Error: "what?"}, lacks: []string{"ES256"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &client{name: "liar", lacks: liar.lacks, verify: func(request) (answer, error) { return liar.answer, liar.err }}
			play(t.Context(), "https://127.0.0.1", http.NewServeMux(), "ES256", []*client{c})
			assert.Len(t, failures([]*client{c}), liar.fails)
			assert.Equal(t, liar.fails > 0, strings.Contains(report([]*client{c}), "## What went wrong"))
		})
	}
}

// TestResultsAreWhole checks the committed table: every client with every
// algorithm, and nothing that failed or did not run.
func TestResultsAreWhole(t *testing.T) {
	results, err := os.ReadFile(resultsFile)
	require.NoError(t, err)
	table, _, _ := strings.Cut(string(results), "## Refusals")
	assert.NotContains(t, table, "**FAILED**")
	assert.NotContains(t, table, "**not run**")
	assert.Equal(t, (len(goLibraries)+len(processes))*len(algorithms), strings.Count(table, ") | "))
}
