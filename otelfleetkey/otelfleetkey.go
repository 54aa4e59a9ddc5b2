// Package otelfleetkey exports what a fleetkey signer does as OpenTelemetry
// metrics. It uses the metrics API alone: without a provider it does nothing,
// and which exporter follows is the program's choice. It is a module of its own,
// so that programs without OpenTelemetry do not get it.
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

// Register makes a provider observe a signer whenever metrics are collected, at
// the cost of one Signer.Status; issuing and verifying tokens get no slower. A
// nil provider means the global one. Unregister the result when the signer is
// closed.
//
//	fleetkey.tokens.issued          counter    {token}    tokens signed
//	fleetkey.tokens.verified        counter    {token}    tokens verified, by outcome ("accepted", "expired", ...)
//	fleetkey.cache.hits             counter    {token}    of the accepted, those that cost no cryptography
//	fleetkey.store.loads            counter    {load}     background loads, by outcome ("ok", "error")
//	fleetkey.store.last_load.age    gauge      s          since the store was last read with success
//	fleetkey.signing_key.age        gauge      s          since the signing key began to sign
//	fleetkey.signing_key.remaining  gauge      s          until its certificate ends
//	fleetkey.rotation.overdue       gauge      s          since the next key should have been announced; 0: it is not due
//	fleetkey.healthy                gauge      1          1 if tokens can be issued, else 0
func Register(provider metric.MeterProvider, s *fleetkey.Signer) (metric.Registration, error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	m := maker{meter: provider.Meter(Name)}
	issued := m.counter("fleetkey.tokens.issued", "{token}", "Tokens signed.")
	verified := m.counter("fleetkey.tokens.verified", "{token}", "Tokens verified, by outcome.")
	hits := m.counter("fleetkey.cache.hits", "{token}", "Tokens accepted because they were verified before.")
	loads := m.counter("fleetkey.store.loads", "{load}", "Background loads of the key store, by outcome.")
	lastLoad := m.gauge("fleetkey.store.last_load.age", "s", "Time since the key store was last read with success.")
	age := m.gauge("fleetkey.signing_key.age", "s", "Time since the signing key began to sign.")
	remaining := m.gauge("fleetkey.signing_key.remaining", "s", "Time until the signing key's certificate ends.")
	overdue := m.gauge("fleetkey.rotation.overdue", "s", "Time since the next key should have been announced.")
	healthy := m.gauge("fleetkey.healthy", "1", "1 if tokens can be issued, else 0.")
	if m.err != nil {
		return nil, fmt.Errorf("otelfleetkey: %w", m.err)
	}
	outcome := attribute.Key("outcome")
	return m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		status := s.Status()
		c := status.Counters
		o.ObserveInt64(issued, int64(c.Issued))
		for name, n := range c.Verified {
			o.ObserveInt64(verified, int64(n), metric.WithAttributes(outcome.String(name)))
		}
		o.ObserveInt64(hits, int64(c.CacheHits))
		o.ObserveInt64(loads, int64(c.Loads), metric.WithAttributes(outcome.String("ok")))
		o.ObserveInt64(loads, int64(c.FailedLoads), metric.WithAttributes(outcome.String("error")))
		o.ObserveFloat64(lastLoad, time.Since(status.LastLoad).Seconds())
		o.ObserveFloat64(overdue, since(status.RotationDue))
		if status.Err == nil {
			o.ObserveFloat64(age, since(status.SigningSince))
			o.ObserveFloat64(healthy, 1)
		} else {
			o.ObserveFloat64(healthy, 0)
		}
		for _, k := range status.Keys {
			if k.KeyID == status.SigningKeyID {
				o.ObserveFloat64(remaining, time.Until(k.NotAfter).Seconds())
			}
		}
		return nil
	}, m.made...)
}

// since returns the seconds since a time that may be zero or lie ahead.
func since(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return max(0, time.Since(t).Seconds())
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
