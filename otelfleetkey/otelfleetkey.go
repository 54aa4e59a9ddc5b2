// Package otelfleetkey exports OpenTelemetry metrics of a fleetkey Signer or Verifier. It
// uses only the metrics API: without a provider it does nothing, and the program chooses
// the exporter. It is a separate module, so other programs do not depend on OpenTelemetry.
package otelfleetkey

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/fleetkey/fleetkey"
)

// Name is the instrumentation scope of the metrics.
const Name = "github.com/fleetkey/fleetkey/otelfleetkey"

// Outcome is the attribute with the outcome of verified tokens and of loads. Reason is the
// attribute with the reason for skipping keys.
const (
	Outcome = attribute.Key("fleetkey.outcome")
	Reason  = attribute.Key("fleetkey.reason")
)

// A Source is a [fleetkey.Signer] or [fleetkey.Verifier].
type Source interface{ Status() fleetkey.Status }

// Register makes a provider observe a Signer or Verifier whenever metrics are collected. Each
// collection calls Status once; issuing and verifying tokens get no slower. A nil provider
// means the global one. Unregister the result when the source is closed.
//
//	fleetkey.issued.tokens          counter  {token}  tokens signed
//	fleetkey.verified.tokens        counter  {token}  tokens verified, by Outcome ("accepted", "expired", ...)
//	fleetkey.cache.hits             counter  {token}  accepted tokens that cost no cryptography
//	fleetkey.store.loads            counter  {load}   loads after the first good one, by Outcome ("ok", "error")
//	fleetkey.store.suppressed_loads counter  {token}  tokens of an unknown key that caused no load, because the last one was less than 10 seconds ago
//	fleetkey.store.last_load.age    gauge    s        time since the last successful read of the store
//	fleetkey.skipped.keys           gauge    {key}    unusable keys of a Verifier's issuer, by Reason ("unsupported", "weak", ...)
//	fleetkey.signing_key.age        gauge    s        since the signing key began to sign
//	fleetkey.signing_key.remaining  gauge    s        until its certificate ends
//	fleetkey.rotation.overdue       gauge    s        since the next key should have been announced; 0: it is not due, or rotation is off
//	fleetkey.healthy                gauge             1 if Status.Err is nil: a Signer can issue tokens, a Verifier verify them; else 0
//
// For a Verifier of [fleetkey.NewVerifier], the store metrics are about its issuer. The
// signing key metrics exist while a key signs, even if its certificate ends too soon to
// issue a token. last_load.age exists once the keys have been read, and skipped.keys only
// while a key is skipped.
//
// Each point has the attributes attrs. Sources in one program must use different ones,
// or their numbers are mixed up.
func Register(provider metric.MeterProvider, s Source, attrs ...attribute.KeyValue) (metric.Registration, error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	m := maker{meter: provider.Meter(Name)}
	issued := m.counter("fleetkey.issued.tokens", "{token}", "Tokens signed.")
	verified := m.counter("fleetkey.verified.tokens", "{token}", "Tokens verified, by outcome.")
	hits := m.counter("fleetkey.cache.hits", "{token}", "Tokens accepted because they were verified before.")
	loads := m.counter("fleetkey.store.loads", "{load}", "Loads of the key store after the first, by outcome.")
	suppressed := m.counter("fleetkey.store.suppressed_loads", "{token}", "Tokens of an unknown key that caused no load.")
	lastLoad := m.gauge("fleetkey.store.last_load.age", "s", "Time since the key store was last read successfully.")
	skipped := m.gauge("fleetkey.skipped.keys", "{key}", "Keys of the issuer that cannot be used, by reason.")
	age := m.gauge("fleetkey.signing_key.age", "s", "Time since the signing key began to sign.")
	remaining := m.gauge("fleetkey.signing_key.remaining", "s", "Time until the signing key's certificate ends.")
	overdue := m.gauge("fleetkey.rotation.overdue", "s", "Time since the next key should have been announced.")
	healthy := m.gauge("fleetkey.healthy", "", "1 if tokens can be issued, or verified where that is all, else 0.") // unit "1" is for ratios
	if m.err != nil {
		return nil, fmt.Errorf("otelfleetkey: %w", m.err)
	}
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	outcome := func(name string) metric.ObserveOption { return metric.WithAttributes(Outcome.String(name)) }
	return m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		status := s.Status()
		c := status.Counters
		o.ObserveInt64(issued, int64(c.Issued), set)
		for name, n := range c.Verified {
			o.ObserveInt64(verified, int64(n), set, outcome(name))
		}
		o.ObserveInt64(hits, int64(c.CacheHits), set)
		o.ObserveInt64(loads, int64(c.Loads), set, outcome("ok"))
		o.ObserveInt64(loads, int64(c.FailedLoads), set, outcome("error"))
		o.ObserveInt64(suppressed, int64(c.SuppressedLoads), set)
		if !status.LastLoad.IsZero() {
			o.ObserveFloat64(lastLoad, time.Since(status.LastLoad).Seconds(), set) // LastLoad is the only time by the machine's clock
		}
		for reason, n := range status.SkippedKeys {
			o.ObserveFloat64(skipped, float64(n), set, metric.WithAttributes(Reason.String(reason)))
		}
		for _, k := range status.Keys {
			if k.Role == fleetkey.RoleSigning {
				o.ObserveFloat64(age, status.Time.Sub(k.NotBefore).Seconds(), set)
				o.ObserveFloat64(remaining, k.NotAfter.Sub(status.Time).Seconds(), set)
			}
		}
		var late time.Duration
		if !status.RotationDue.IsZero() {
			late = max(0, status.Time.Sub(status.RotationDue))
		}
		o.ObserveFloat64(overdue, late.Seconds(), set)
		able := 0.0
		if status.Err == nil {
			able = 1
		}
		o.ObserveFloat64(healthy, able, set)
		return nil
	}, m.made...)
}

// A maker makes instruments and keeps the first error.
type maker struct {
	meter metric.Meter
	made  []metric.Observable
	err   error
}

func (m *maker) counter(name, unit, text string) metric.Int64ObservableCounter {
	c, err := m.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
	m.keep(c, err)
	return c
}

func (m *maker) gauge(name, unit, text string) metric.Float64ObservableGauge {
	g, err := m.meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
	m.keep(g, err)
	return g
}

func (m *maker) keep(o metric.Observable, err error) {
	m.made = append(m.made, o)
	if m.err == nil {
		m.err = err
	}
}
