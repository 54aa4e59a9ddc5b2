package otelfleetkey_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/otelfleetkey"
	"github.com/fleetkey/fleetkey/tests/secrets"
)

// TestSecretsStaySecret: telemetry goes to third parties. It has no key, no token and
// nothing that a request or a store said.
func TestSecretsStaySecret(t *testing.T) {
	store, hidden := fleetkeytest.NewStore(), secrets.NewDetector()
	s, err := fleetkey.NewSigner(t.Context(), store, fleetkey.Config{
		Issuer: "https://issuer.example", Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	defer s.Close()
	reader := sdk.NewManualReader()
	_, err = otelfleetkey.Register(sdk.NewMeterProvider(sdk.WithReader(reader)), s)
	require.NoError(t, err)
	check := func() {
		t.Helper()
		bundle, _ := store.Content()
		hidden.HideBundle(bundle)
		var all metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &all))
		encoded, err := json.Marshal(all)
		require.NoError(t, err)
		text := fmt.Sprintf("%+v %s", all, encoded)
		require.Contains(t, text, "fleetkey.verified.tokens")
		require.Empty(t, hidden.Find(text))
	}
	check()
	token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
	require.NoError(t, err)
	_, err = s.Verify(t.Context(), token)
	require.NoError(t, err)
	const said = "what a request or a store may say"
	hidden.Hide("a token", token)
	hidden.Hide("what somebody said", said)
	for _, bad := range []string{token + "x", strings.Replace(token, ".", "", 1), said, said + "." + said + "." + said} {
		_, err = s.Verify(t.Context(), bad)
		require.Error(t, err)
	}
	require.NoError(t, s.Rotate(t.Context()))
	check()
	require.NoError(t, s.Revoke(t.Context(), s.SigningKey().KeyID))
	check()
	store.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault {
		return fleetkeytest.Fault{Err: fmt.Errorf("%w: %s", fleetkey.ErrUnavailable, said)} // which is logged
	})
	require.Error(t, s.Refresh(t.Context()))
	check()
}
