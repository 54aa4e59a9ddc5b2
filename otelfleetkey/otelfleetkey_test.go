package otelfleetkey_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/otelfleetkey"
)

// collect returns every point by metric name and outcome.
func collect(t *testing.T, reader sdk.Reader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	points := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		require.Equal(t, otelfleetkey.Name, scope.Scope.Name)
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				require.True(t, data.IsMonotonic)
				for _, p := range data.DataPoints {
					outcome, _ := p.Attributes.Value("outcome")
					points[m.Name+" "+outcome.AsString()] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					points[m.Name] = p.Value
				}
			}
		}
	}
	return points
}

func TestRegister(t *testing.T) {
	s := fleetkeytest.NewSigner(t, fleetkey.Config{})
	reader := sdk.NewManualReader()
	registration, err := otelfleetkey.Register(sdk.NewMeterProvider(sdk.WithReader(reader)), s)
	require.NoError(t, err)

	token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice"})
	require.NoError(t, err)
	for range 3 {
		_, err = s.Verify(t.Context(), token)
		require.NoError(t, err)
	}
	_, err = s.Verify(t.Context(), "junk")
	require.Error(t, err)
	require.NoError(t, s.Refresh(t.Context()))

	points := collect(t, reader)
	require.Equal(t, 1.0, points["fleetkey.tokens.issued "])
	require.Equal(t, 3.0, points["fleetkey.tokens.verified accepted"])
	require.Equal(t, 1.0, points["fleetkey.tokens.verified malformed"])
	require.Contains(t, points, "fleetkey.tokens.verified expired", "a series exists before its first token")
	require.Equal(t, 2.0, points["fleetkey.cache.hits "])
	require.Equal(t, 1.0, points["fleetkey.store.loads ok"])
	require.Equal(t, 0.0, points["fleetkey.store.loads error"])
	require.Less(t, points["fleetkey.store.last_load.age"], 60.0)
	require.Positive(t, points["fleetkey.signing_key.age"])
	require.Positive(t, points["fleetkey.signing_key.remaining"])
	require.Equal(t, 0.0, points["fleetkey.rotation.overdue"])
	require.Equal(t, 1.0, points["fleetkey.healthy"])

	require.NoError(t, registration.Unregister())
	require.Empty(t, collect(t, reader))
}

func TestWithoutAProvider(t *testing.T) {
	registration, err := otelfleetkey.Register(nil, fleetkeytest.NewSigner(t, fleetkey.Config{}))
	require.NoError(t, err)
	require.NoError(t, registration.Unregister())
}
