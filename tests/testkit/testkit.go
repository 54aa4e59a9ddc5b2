// Package testkit holds what the tests of fleetkey share: configurations, signers that
// end with their test, and clocks that are wrong. It uses the public API only.
package testkit

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
)

// Issuer is the issuer of Config.
const Issuer = jwstest.Issuer

// Day is 24 hours.
const Day = 24 * time.Hour

// Config returns a configuration with cheap keys, no log and no rotation.
func Config() fleetkey.Config {
	return fleetkey.Config{Issuer: Issuer, Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)}
}

// Rotating returns Config with a new key every 90 days.
func Rotating() fleetkey.Config {
	cfg := Config()
	cfg.Rotation.Every = 90 * Day
	return cfg
}

// Lazily returns cfg with fewer loads, so that years of virtual time pass quickly.
func Lazily(cfg fleetkey.Config) fleetkey.Config {
	cfg.RefreshEvery = 6 * time.Hour
	return cfg
}

// Long returns the second value if FLEETKEY_LONG=1, and the first one otherwise.
func Long[T any](short, long T) T {
	if os.Getenv("FLEETKEY_LONG") == "1" {
		return long
	}
	return short
}

// In FIPS 140 mode, Go seeds its random bytes from the jitter of a clock, which the clock of a
// testing/synctest bubble lacks. So they are seeded before any bubble.
func init() { rand.Text() }

// Race reports whether the race detector is on. It makes code about ten times slower.
func Race() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// By returns a context whose signers use a wall clock.
func By(now func() time.Time) context.Context {
	return clock.With(context.Background(), clock.Wall(now))
}

// Off returns a wall clock that is ahead by d, or behind if d is negative.
func Off(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

// Start returns a signer that is closed when the test ends.
func Start(t testing.TB, store fleetkey.KeyStore, cfg fleetkey.Config) *fleetkey.Signer {
	t.Helper()
	return StartBy(t, time.Now, store, cfg)
}

// StartBy is Start with a wall clock.
func StartBy(t testing.TB, now func() time.Time, store fleetkey.KeyStore, cfg fleetkey.Config) *fleetkey.Signer {
	t.Helper()
	s, err := fleetkey.NewSigner(By(now), store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// Issue returns a token for alice.
func Issue(t testing.TB, s *fleetkey.Signer) string {
	t.Helper()
	token, err := s.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
	require.NoError(t, err)
	return token
}

// Accepts requires that every signer accepts a token.
func Accepts(t testing.TB, token string, signers ...*fleetkey.Signer) {
	t.Helper()
	for i, s := range signers {
		_, err := s.Verify(t.Context(), token)
		require.NoError(t, err, "signer %d", i)
	}
}

// Refuses requires that every signer rejects a token with an error.
func Refuses(t testing.TB, want error, token string, signers ...*fleetkey.Signer) {
	t.Helper()
	for i, s := range signers {
		got, err := s.Verify(t.Context(), token)
		require.ErrorIs(t, err, want, "signer %d", i)
		require.Nil(t, got)
	}
}

// Fail returns a hook for a fleetkeytest.Store that makes every call of the given
// operations fail.
func Fail(err error, ops ...fleetkeytest.Op) func(fleetkeytest.Call) fleetkeytest.Fault {
	return func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
		for _, op := range ops {
			if c.Op == op {
				f.Err = err
			}
		}
		return f
	}
}

// LoseReply is a hook that stores what is saved and reports that the store is
// unavailable.
func LoseReply(c fleetkeytest.Call) (f fleetkeytest.Fault) {
	if c.Op == fleetkeytest.OpSave {
		f = fleetkeytest.Fault{Err: fleetkey.ErrUnavailable, Stored: true}
	}
	return f
}

// A LogBuffer collects what a signer logs. The test can read it at the same time.
type LogBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *LogBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Missing skips a test that lacks a tool, or fails it if FLEETKEY_REQUIRE=1. enable says how
// to get the tool.
func Missing(t testing.TB, what, enable string) {
	t.Helper()
	if os.Getenv("FLEETKEY_REQUIRE") == "1" {
		t.Fatalf("%s is missing: %s", what, enable)
	}
	t.Skipf("skipped: %s is missing: %s", what, enable)
}
