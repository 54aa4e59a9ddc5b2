package otelfleetkey_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
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
		require.Equal(t, otelfleetkey.Name, scope.Scope.Name)
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				require.True(t, data.IsMonotonic)
				for _, p := range data.DataPoints {
					outcome, _ := p.Attributes.Value(otelfleetkey.Outcome)
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

	token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
	require.NoError(t, err)
	for range 3 {
		_, err = s.Verify(t.Context(), token)
		require.NoError(t, err)
	}
	_, err = s.Verify(t.Context(), "junk")
	require.Error(t, err)
	require.NoError(t, s.Refresh(t.Context()))

	points := collect(t, reader)
	require.Len(t, points, 1+12+1+2+5, "12 outcomes of Verify, 2 of a load")
	require.Equal(t, 1.0, points["fleetkey.issued.tokens "])
	require.Equal(t, 3.0, points["fleetkey.verified.tokens accepted"])
	require.Equal(t, 1.0, points["fleetkey.verified.tokens malformed"])
	require.Contains(t, points, "fleetkey.verified.tokens expired", "a series exists before its first token")
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

// A rotation that cannot be saved grows late by the clock of the Config, also
// once the key is so near its end that no token can be issued; the machine's
// clock does not matter.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead, every, announce = 300 * 24 * time.Hour, 90 * 24 * time.Hour, 24 * time.Hour
		store := fleetkeytest.NewStore()
		store.SetHook(func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
			if c.Op == fleetkeytest.OpSave && c.N > 1 {
				f.Err = fleetkey.ErrUnavailable
			}
			return f
		})
		cfg := fleetkey.Config{Issuer: "https://issuer.example", Algorithm: "ES256", RefreshEvery: 12 * time.Hour,
			Rotation: fleetkey.Rotation{Every: every, Announce: announce + 24*time.Hour}}
		wall := clock.Wall(func() time.Time { return time.Now().Add(ahead) })
		s, err := fleetkey.NewSigner(clock.With(t.Context(), wall), store, cfg)
		require.NoError(t, err)
		defer s.Close()
		reader := sdk.NewManualReader()
		_, err = otelfleetkey.Register(sdk.NewMeterProvider(sdk.WithReader(reader)), s)
		require.NoError(t, err)
		key := s.Status().Keys[0]
		due := s.Status().RotationDue
		require.NotZero(t, due)

		for _, now := range []time.Time{key.NotBefore.Add(25 * time.Hour), due, due.Add(time.Hour), key.NotAfter.Add(-time.Minute)} {
			time.Sleep(now.Sub(wall.Now()))
			points := collect(t, reader)
			require.Equal(t, max(0, now.Sub(due)).Seconds(), points["fleetkey.rotation.overdue"], now)
			require.Equal(t, now.Sub(key.NotBefore).Seconds(), points["fleetkey.signing_key.age"], now)
			require.Equal(t, key.NotAfter.Sub(now).Seconds(), points["fleetkey.signing_key.remaining"], now)
			require.Less(t, points["fleetkey.store.last_load.age"], 14*time.Hour.Seconds(), now)
		}
		require.ErrorIs(t, s.Status().Err, fleetkey.ErrKeyExpired)
		require.Equal(t, 0.0, collect(t, reader)["fleetkey.healthy"])

		time.Sleep(2 * time.Minute)
		points := collect(t, reader)
		require.NotContains(t, points, "fleetkey.signing_key.remaining", "no key signs any more")
		require.Equal(t, 0.0, points["fleetkey.healthy"])
	})
}

// Two signers of one program are told apart by their attributes.
func TestAttributes(t *testing.T) {
	reader := sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))
	for i, issuer := range []string{"https://a.example", "https://b.example"} {
		s := fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: issuer})
		_, err := otelfleetkey.Register(provider, s, attribute.String("issuer", issuer))
		require.NoError(t, err)
		for range i + 1 {
			_, err = s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
			require.NoError(t, err)
		}
	}
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	require.Len(t, all.ScopeMetrics, 1)
	issued := map[string]int64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "fleetkey.issued.tokens" {
			for _, p := range sum.DataPoints {
				issuer, _ := p.Attributes.Value("issuer")
				issued[issuer.AsString()] = p.Value
			}
		}
		if m.Name == "fleetkey.healthy" {
			require.Empty(t, m.Unit, "with unit 1 Prometheus calls it a ratio")
		}
	}
	require.Equal(t, map[string]int64{"https://a.example": 1, "https://b.example": 2}, issued)
}
