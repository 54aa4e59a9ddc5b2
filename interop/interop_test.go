package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGoClients takes the clients that are Go libraries through the whole story.
func TestGoClients(t *testing.T) {
	mux := http.NewServeMux()
	server, authority := startServer(mux)
	defer server.Close()
	clients, err := goClients(t.Context(), authority)
	require.NoError(t, err)
	for _, c := range clients {
		defer c.close()
	}
	rows, err := playAll(t.Context(), server.URL, mux, clients)
	require.NoError(t, err)
	require.Len(t, rows, len(clients)*len(algorithms))
	assert.Empty(t, failures(rows, true))
	for _, r := range rows {
		for p, o := range r.outcomes {
			assert.True(t, o.ran, "%s, %s, %s", r.name, r.algorithm, titles[p][0])
		}
		assert.NotEmpty(t, r.version)
	}
}

// A liar answers every token in the same way.
type liar struct {
	subject string
	err     error
	lacks   []string
}

func (l liar) about() about {
	return about{name: "liar", version: "1", language: "Go", lacks: l.lacks}
}
func (l liar) close()                                          {}
func (l liar) verify(context.Context, request) (string, error) { return l.subject, l.err }

// TestLiarsAreFound is the test of the test: a client that does not check, or
// cannot, must not pass.
func TestLiarsAreFound(t *testing.T) {
	accepting := []phase{before, announced, activated, retired, revoked}
	refusing := []phase{brokenSignature, keyGone, revoked}
	for _, c := range []struct {
		name   string
		client liar
		fails  []phase
	}{
		{"accepts all", liar{subject: subject}, refusing},
		{"refuses all", liar{err: errors.New("no")}, accepting},
		{"accepts for another subject", liar{subject: "mallory"}, append(accepting, brokenSignature, keyGone, replaced)},
		{"its process has ended", liar{err: brokenError{errors.New("ended")}}, append(accepting, brokenSignature, keyGone, replaced)},
		{"accepts what it should not know", liar{subject: subject, lacks: []string{"ES256"}}, []phase{before}},
		{"says that it lacks the algorithm", liar{err: errors.New("what?"), lacks: []string{"ES256"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, err := play(t.Context(), "https://127.0.0.1", http.NewServeMux(), "ES256", []client{c.client})
			require.NoError(t, err)
			var failed []phase
			for p, o := range rows[0].outcomes {
				if o.failed != "" {
					failed = append(failed, phase(p))
				}
			}
			assert.ElementsMatch(t, c.fails, failed)
			assert.Len(t, failures(rows, true), len(c.fails))
			assert.Equal(t, len(c.fails) > 0, strings.Contains(report(rows), "**FAILED**"))
		})
	}
}

// TestMissingLanguage checks that a client that could not run is not overlooked.
func TestMissingLanguage(t *testing.T) {
	e := external{about: about{name: "x", language: "Java"}, needs: []string{"no-such-program"}}
	require.ErrorContains(t, e.missing(), "no-such-program")
	rows := []*row{{about: e.about, algorithm: "RS256", notRun: e.missing().Error()}}
	assert.Contains(t, report(rows), "| x (Java) | RS256 | **not run** |")
	assert.Contains(t, report(rows), "no-such-program")
	assert.Empty(t, failures(rows, false))
	assert.Len(t, failures(rows, true), 1)
}

// TestResultsAreWhole checks the committed table: every client with every
// algorithm, and nothing that failed or did not run.
func TestResultsAreWhole(t *testing.T) {
	data, err := os.ReadFile(resultsFile)
	require.NoError(t, err)
	results := string(data)
	assert.NotContains(t, results, "FAILED")
	assert.NotContains(t, results, "not run")
	for _, e := range externals() {
		assert.Equal(t, len(algorithms), strings.Count(results, "| "+e.name+" ")-strings.Count(results[strings.Index(results, "## Refusals"):], "| "+e.name+" "), e.name)
	}
}
