package otelfleetkey_test

import (
	"strings"
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
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/otelfleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

func register(t *testing.T, s otelfleetkey.Source) sdk.Reader {
	t.Helper()
	reader := sdk.NewManualReader()
	_, err := otelfleetkey.Register(sdk.NewMeterProvider(sdk.WithReader(reader)), s)
	require.NoError(t, err)
	return reader
}

// collect returns every point by metric name and attributes.
func collect(t *testing.T, reader sdk.Reader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	points := map[string]float64{}
	key := func(name string, attrs attribute.Set) string {
		return strings.TrimSpace(name + " " + attrs.Encoded(attribute.DefaultEncoder()))
	}
	for _, scope := range all.ScopeMetrics {
		require.Equal(t, otelfleetkey.Name, scope.Scope.Name)
		for _, m := range scope.Metrics {
			require.NotEqual(t, "1", m.Unit, "Prometheus calls a metric of this unit a ratio")
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				require.True(t, data.IsMonotonic)
				for _, p := range data.DataPoints {
					points[key(m.Name, p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					points[key(m.Name, p.Attributes)] = p.Value
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

	token := testkit.Issue(t, s)
	testkit.Accepts(t, token, s, s, s)
	_, err = s.Verify(t.Context(), "junk")
	require.Error(t, err)
	require.NoError(t, s.Refresh(t.Context()))

	points := collect(t, reader)
	require.Len(t, points, 1+13+1+2+1+5, "13 outcomes of Verify, 2 of a load")
	for name, want := range map[string]float64{
		"issued.tokens": 1, "verified.tokens fleetkey.outcome=accepted": 3, "verified.tokens fleetkey.outcome=malformed": 1,
		"verified.tokens fleetkey.outcome=expired": 0, "cache.hits": 2, // a series exists before its first token
		"store.loads fleetkey.outcome=ok": 1, "store.loads fleetkey.outcome=error": 0, "store.suppressed_loads": 0,
		"rotation.overdue": 0, "healthy": 1,
	} {
		require.Equal(t, want, points["fleetkey."+name], name)
	}
	require.Less(t, points["fleetkey.store.last_load.age"], 60.0)
	require.Positive(t, points["fleetkey.signing_key.age"])
	require.Positive(t, points["fleetkey.signing_key.remaining"])

	require.NoError(t, registration.Unregister())
	require.Empty(t, collect(t, reader))

	registration, err = otelfleetkey.Register(nil, s) // without a provider
	require.NoError(t, err)
	require.NoError(t, registration.Unregister())
}

// TestOverdue: the overdue time of a rotation that cannot be saved follows the signer's
// clock, not the machine's, even when the key is too close to its end to issue tokens.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		store := fleetkeytest.NewStore()
		cfg := fleetkey.Config{Issuer: "https://issuer.example", Algorithm: "ES256", RefreshEvery: 12 * time.Hour,
			Rotation: fleetkey.Rotation{Every: 90 * day, Announce: 2 * day}}
		wall := clock.Wall(func() time.Time { return time.Now().Add(300 * day) })
		s, err := fleetkey.NewSigner(clock.With(t.Context(), wall), store, cfg)
		require.NoError(t, err)
		defer s.Close()
		store.SetHook(testkit.Fail(fleetkey.ErrUnavailable, fleetkeytest.OpSave))
		reader := register(t, s)
		key, due := s.Status().Keys[0], s.Status().RotationDue

		for _, now := range []time.Time{key.NotBefore.Add(25 * time.Hour), due, due.Add(time.Hour), key.NotAfter.Add(-time.Minute)} {
			time.Sleep(now.Sub(wall.Now()))
			points := collect(t, reader)
			require.Equal(t, max(0, now.Sub(due)).Seconds(), points["fleetkey.rotation.overdue"], now)
			require.Equal(t, now.Sub(key.NotBefore).Seconds(), points["fleetkey.signing_key.age"], now)
			require.Equal(t, key.NotAfter.Sub(now).Seconds(), points["fleetkey.signing_key.remaining"], now)
			require.Less(t, points["fleetkey.store.last_load.age"], 14*time.Hour.Seconds(), now)
		}
		require.ErrorIs(t, s.Status().Err, fleetkey.ErrKeyExpired)

		time.Sleep(2 * time.Minute)
		points := collect(t, reader)
		require.NotContains(t, points, "fleetkey.signing_key.remaining", "no key can sign")
		require.Equal(t, 0.0, points["fleetkey.healthy"])
	})
}

// A Verifier has the metrics of a Signer except those of signing. It also counts skipped keys
// and suppressed fetches.
func TestVerifier(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		p.Serve(testkit.JWKSURL, nil)
		v := p.Verifier(t)
		reader := register(t, v)
		points := collect(t, reader)
		require.NotContains(t, points, "fleetkey.store.last_load.age", "there are no keys yet")
		require.Equal(t, 0.0, points["fleetkey.healthy"])

		p.Publish(`{"kty":"oct","k":"AA","kid":"a"}`, `{"kty":"EC","kid":"b"}`, `{"kty":"EC","kid":"c"}`, key.JWK())
		require.NoError(t, v.Refresh(t.Context()))
		_, err := v.Verify(t.Context(), testkit.AccessToken(key))
		require.NoError(t, err)
		p.Serve(testkit.JWKSURL, nil)
		unknown := testkit.AccessToken(testkit.NewForger("ES256"))
		for range 4 { // the first one causes a fetch
			_, err = v.Verify(t.Context(), unknown)
			require.ErrorIs(t, err, fleetkey.ErrUnavailable)
		}
		time.Sleep(time.Second)
		points = collect(t, reader)
		require.Len(t, points, 1+13+1+2+1+1+2+2, "no metrics of a signing key, and no error text")
		for name, want := range map[string]float64{
			"verified.tokens fleetkey.outcome=accepted": 1, "verified.tokens fleetkey.outcome=unavailable": 4,
			"store.loads fleetkey.outcome=ok": 1, "store.loads fleetkey.outcome=error": 2, "store.suppressed_loads": 3, "store.last_load.age": 1,
			"skipped.keys fleetkey.reason=private": 1, "skipped.keys fleetkey.reason=unsupported": 2, "healthy": 1,
		} {
			require.Equal(t, want, points["fleetkey."+name], name)
		}
	})
}

// Attributes distinguish two signers of one program.
func TestAttributes(t *testing.T) {
	reader := sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))
	a, b := fleetkeytest.NewSigner(t, fleetkey.Config{}), fleetkeytest.NewSigner(t, fleetkey.Config{})
	for name, s := range map[string]*fleetkey.Signer{"a": a, "b": b} {
		_, err := otelfleetkey.Register(provider, s, attribute.String("name", name))
		require.NoError(t, err)
	}
	testkit.Issue(t, b)
	points := collect(t, reader)
	require.Equal(t, []float64{0, 1}, []float64{points["fleetkey.issued.tokens name=a"], points["fleetkey.issued.tokens name=b"]})
}
