package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGoClients runs the whole story with the clients that are Go libraries.
func TestGoClients(t *testing.T) {
	chosen := slices.DeleteFunc(slices.Clone(clients), func(c *client) bool { return c.runner != golang })
	trials := playAll(t.Context(), chosen, time.Second)
	assert.Empty(t, failures(trials))
	require.Len(t, trials, len(chosen)*len(algorithms))
	for i, trial := range trials {
		assert.False(t, trial.lacking)
		assert.True(t, trial.outage, "%s must know an announced key", trial.client.name)
		if i < len(chosen) { // go-oidc answers before it stores the keys that it has fetched, so the test must be patient
			assert.Equal(t, trial.fresh == never, trial.beside == never, "%s: one fetch adds one key and removes the other", trial.client.name)
		}
	}
}

// TestResultsAreWhole checks that the committed table has every client, and no failures.
func TestResultsAreWhole(t *testing.T) {
	results, err := os.ReadFile(resultsFile)
	require.NoError(t, err)
	assert.NotContains(t, string(results), "**FAILED**")
	for _, c := range clients {
		assert.Regexp(t, `\n\| `+regexp.QuoteMeta(c.name)+` [\d.]+ \(`+c.runner.language+`\) \| yes \|`, string(results))
		if c.runner != haproxy { // which need not be installed here
			assert.NotContains(t, c.label(), "unknown")
		}
	}
	assert.Equal(t, len(clients)+2, strings.Count(string(results), "\n|"))
}

// TestSnippets checks that each snippet of docs/clients.md is a part of what the clients run
// here, and that each client has one.
func TestSnippets(t *testing.T) {
	page, err := os.ReadFile("../docs/clients.md")
	require.NoError(t, err)
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") } // the page and the programs are indented differently
	var programs string
	for _, file := range []string{"go/main.go", "node/client.mjs", "python/client.py", "java/src/main/java/Client.java", "rust/src/main.rs",
		"proxy/envoy.yaml", "proxy/haproxy.cfg", "proxy/oauth2-proxy.cfg"} {
		text, err := os.ReadFile(filepath.FromSlash(file))
		require.NoError(t, err)
		programs += words(string(text)) + "\n"
	}
	snippets := regexp.MustCompile("(?ms)^```[a-z]+\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	require.NotEmpty(t, snippets)
	for _, s := range snippets {
		assert.True(t, strings.Contains(programs, words(s[1])), "nothing runs this:\n%s", s[1])
	}
	for _, c := range clients {
		assert.True(t, strings.Contains(string(page), "**"+c.name+"**"), "docs/clients.md lacks **%s**", c.name)
	}
}
