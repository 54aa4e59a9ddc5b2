package verifying

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const service = "https://api.example"

// TestFleet presents a fleet's tokens to a hundred Verifiers, or to twenty under the race
// detector.
func TestFleet(t *testing.T) {
	kind := Kind{Name: "fleetkey", Count: 100, Open: func(ctx context.Context, client *http.Client) Verify {
		v, err := fleetkey.NewVerifier(ctx, fleetkey.VerifierConfig{Issuer: testkit.Issuer, Audience: []string{service},
			HTTPClient: client, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		context.AfterFunc(ctx, func() { assert.NoError(t, v.Close()) })
		return func(ctx context.Context, token string) error {
			_, err := v.Verify(ctx, token)
			return err
		}
	}}
	if testkit.Race() {
		kind.Count = 20
	}
	synctest.Test(t, func(t *testing.T) {
		begins := time.Now()
		ours := Run(t, testkit.Issuer, service, []Kind{kind})[0]
		t.Logf("%v: %+v", time.Since(begins), ours)
		assert.Zero(t, ours.Refused, "good tokens were refused outside the window: %v", ours.Why)
		assert.Zero(t, ours.Revoked, "tokens of a revoked key were accepted")
		assert.LessOrEqual(t, ours.MostInAMinute, 6)
		assert.Positive(t, ours.RefusedInWindow, "an instance serves the old JWKS for a while")
	})
}
