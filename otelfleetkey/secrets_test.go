package otelfleetkey_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/leak"
	"github.com/fleetkey/fleetkey/otelfleetkey"
)

// TestSecretsStaySecret: telemetry goes to third parties. No key, no token and
// nothing that a request or a store has said is in it, whatever happens.
func TestSecretsStaySecret(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		store := fleetkeytest.NewStore()
		s, err := fleetkey.NewSigner(t.Context(), store, fleetkey.Config{
			Issuer: "https://issuer.example", Algorithm: alg, Rotation: fleetkey.Rotation{Every: 30 * 24 * time.Hour}, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		defer s.Close()
		reader := sdk.NewManualReader()
		_, err = otelfleetkey.Register(sdk.NewMeterProvider(sdk.WithReader(reader)), s)
		require.NoError(t, err)
		hidden := leak.NewDetector()
		secret := hideBundle(t, hidden, store)

		token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
		require.NoError(t, err)
		hidden.HideText("a token", token)
		_, err = s.Verify(t.Context(), token)
		require.NoError(t, err)
		for _, bad := range []string{token + "x", strings.Replace(token, ".", "", 1), secret, secret + "." + secret + "." + secret} {
			_, err = s.Verify(t.Context(), bad)
			require.Error(t, err)
		}
		requireNoSecret(t, hidden, reader)
		require.NoError(t, s.Rotate(t.Context()))
		hideBundle(t, hidden, store)
		requireNoSecret(t, hidden, reader)
		require.NoError(t, s.Revoke(t.Context(), s.SigningKey().KeyID))
		hideBundle(t, hidden, store)
		requireNoSecret(t, hidden, reader)

		const said = "what a store may say of a key it cannot read"
		hidden.HideText("what the store said", said)
		store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault {
			return fleetkeytest.Fault{Err: fmt.Errorf("%w: %s", fleetkey.ErrUnavailable, said)} // which is logged, by the way
		})
		require.Error(t, s.Refresh(t.Context()))
		requireNoSecret(t, hidden, reader)
	}
}

// hideBundle hides the private keys of a store, and returns a line of one.
func hideBundle(t *testing.T, d *leak.Detector, store *fleetkeytest.Store) (secret string) {
	bundle, _ := store.Content()
	d.HideBundle(bundle)
	_, private, found := strings.Cut(string(bundle), "-----BEGIN PRIVATE KEY-----\n")
	require.True(t, found)
	secret, _, _ = strings.Cut(private, "\n")
	d.HideText("a line of the bundle", secret)
	return secret
}

func requireNoSecret(t *testing.T, d *leak.Detector, reader sdk.Reader) {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	require.NotEmpty(t, all.ScopeMetrics)
	encoded, err := json.Marshal(all)
	require.NoError(t, err)
	text := fmt.Sprintf("%+v %s", all, encoded)
	require.Contains(t, text, "fleetkey.verified.tokens")
	require.Empty(t, d.Find(text)+leak.Shape(text))
}
