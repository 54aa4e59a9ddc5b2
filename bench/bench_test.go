package main

import (
	"context"
	"flag"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	story "github.com/fleetkey/fleetkey/tests/verifying"
)

var verifiers = flag.Int("verifiers", 0, "of each kind in the story, which then goes into results.json")

// TestStory runs the story of package tests/verifying with fleetkey and the other libraries.
func TestStory(t *testing.T) {
	var kinds []story.Kind
	for _, c := range contenders {
		if c.fetches {
			name, _, _ := strings.Cut(c.name, seen)
			kinds = append(kinds, story.Kind{Name: name, Count: max(*verifiers, 1), Open: func(ctx context.Context, client *http.Client) story.Verify {
				return c.open(ctx, &fixture{algorithm: story.Algorithm, client: client}).verify
			}})
		}
	}
	r := load()
	synctest.Test(t, func(t *testing.T) {
		r.Story = story.Run(t, issuer, audience, kinds)
		time.Sleep(time.Minute) // go-oidc and cap continue to fetch after their verifiers have ended
	})
	for i := range r.Story {
		kind := &r.Story[i]
		kind.Why = nil // cannot be encoded as JSON
		assert.Positive(t, kind.Tokens-kind.Refused-kind.RefusedInWindow, "%s accepts nothing", kind.Name)
		assert.Positive(t, kind.Fetches, kind.Name)
	}
	assert.Zero(t, r.Story[0].Refused+r.Story[0].Revoked)
	assert.LessOrEqual(t, r.Story[0].MostInAMinute, 6)
	if *verifiers > 0 {
		r.save()
	}
}

// TestMeasure makes sure that the measurement works, and with it the check that each
// contender accepts the good tokens and rejects the bad ones.
func TestMeasure(t *testing.T) {
	r := load()
	r.measure(plan{rounds: 1, slice: time.Millisecond, starts: 1, tokens: 20})
	page := string(r.draw()["RESULTS.md"])
	for _, c := range contenders {
		assert.Contains(t, page, "Verify, "+c.name)
	}
}

// TestPage checks that the committed page and charts match the figures.
func TestPage(t *testing.T) {
	r := load()
	for name, content := range r.draw() {
		committed, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.True(t, string(content) == string(committed), "%s does not match the figures: go run . -render", name)
	}
}
