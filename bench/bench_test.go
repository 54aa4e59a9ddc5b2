package main

import (
	"bytes"
	"flag"
	"os"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	story "github.com/fleetkey/fleetkey/tests/verifying"
)

var (
	verifiers = flag.Int("verifiers", 5, "of fleetkey, beside a tenth as many of each other library")
	section   = flag.String("section", "", "the `file` that gets the section of RESULTS.md")
)

// TestQuick keeps the command alive: every section runs, and with it the check
// that each contender accepts the good tokens and refuses the bad.
func TestQuick(t *testing.T) {
	var page bytes.Buffer
	run(quick, "", &page)
	for _, heading := range []string{"## RS256", "## ES256", "## EdDSA", "make a contender look for keys: fleetkey 1 times", "## Under load",
		"## Time to start", "## Memory of the cache"} {
		require.Contains(t, page.String(), heading)
	}
}

// TestFleet tells the story of a fleet to fleetkey's Verifiers and to the other libraries.
func TestFleet(t *testing.T) {
	var tallies []story.Tally
	synctest.Test(t, func(t *testing.T) {
		var err error
		tallies, err = story.Run(t.Context(), issuer, audience, fleetKinds(*verifiers))
		require.NoError(t, err)
	})
	for i, kind := range tallies {
		assert.Positive(t, kind.Tokens-kind.Refused-kind.RefusedInWindow, "%s accepts nothing", kind.Name)
		assert.Positive(t, kind.Fetches, kind.Name)
		if i == 0 {
			assert.Zero(t, kind.Refused+kind.Revoked)
			assert.LessOrEqual(t, kind.MostInAMinute, 6)
		}
	}
	t.Log(fleetSection(tallies))
	if *section != "" {
		require.NoError(t, os.WriteFile(*section, []byte(fleetSection(tallies)), 0o644))
	}
}
