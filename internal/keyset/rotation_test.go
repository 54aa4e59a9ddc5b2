package keyset_test

import (
	"crypto"
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// This file tests what a policy makes of a set, by dates. The policy is the one of
// keysettest: a new key each 90 days, announced for a day, and retained for ten here, so
// that a retired key loses its private half (after 7 days) before its trust ends.

func policy() *keyset.Policy {
	p := keysettest.Policy()
	p.Algorithm, p.Retain = "EdDSA", 10*keysettest.Day
	return p
}

// show describes the keys of a set at a time, newest first: the one that signs, those
// "ahead", "trusted" and "gone", and which of them are there without a private half.
func show(s *keyset.Set, now time.Time, p *keyset.Policy) string {
	if s == nil {
		return ""
	}
	var keys []string
	for _, k := range s.Keys {
		text := name(k.ID)
		switch {
		case k == s.Signing(now):
			text += " signs"
		case !now.Before(s.TrustEnd(k, p.Retain)):
			text += " gone"
		case k.Cert.NotBefore.After(now):
			text += " ahead"
		default:
			text += " trusted"
		}
		if k.Private == nil {
			text += " (public)"
		}
		keys = append(keys, text)
	}
	return strings.Join(keys, ", ")
}

func TestPatience(t *testing.T) {
	for every, want := range map[time.Duration]time.Duration{
		0:                        7 * keysettest.Day, // no rotation
		time.Second:              2 * time.Minute,    // 2 ClockSkew at least
		20 * keysettest.Day:      5 * keysettest.Day, // a quarter of Every
		28 * keysettest.Day:      7 * keysettest.Day,
		28*keysettest.Day + 4:    7 * keysettest.Day,
		365 * 2 * keysettest.Day: 7 * keysettest.Day,
	} {
		p := policy()
		p.Every = every
		require.Equal(t, want, p.Patience(), every)
	}
}

func TestRotationDue(t *testing.T) {
	for line, want := range map[string]string{
		"a: 2026-01-01": "2026-03-31", // 90 days, less Announce
		// The last token needs an hour of the certificate; the clocks and two
		// refreshes another 14 minutes.
		"a: 2026-01-01 to 2026-04-01 01:14:00": "2026-03-31",
		"a: 2026-01-01 to 2026-04-01 01:13:59": "2026-03-30 23:59:59",
		"a: 2026-01-01 to 2026-02-01":          "2026-01-30 22:46:00",
	} {
		require.Equal(t, day(t, want), policy().RotationDue(schedule(t, line).Keys[0]), line)
	}
}

func TestDue(t *testing.T) {
	const announced, dropped, halved = "announced key", "dropped what is no longer trusted", "dropped the private half of what no longer signs"
	rotation := []string{"a: 2026-01-01", "b: 2026-04-01"}
	for _, tc := range []struct {
		keys      []string
		now       string
		want, why string // empty: nothing is due
	}{
		{[]string{"a: 2026-01-01"}, "2026-03-30 23:59:59", "", ""},
		{[]string{"a: 2026-01-01"}, "2026-03-31", "new ahead, a signs", announced},
		{[]string{"a: 2026-01-01"}, "2035-12-31", "new ahead, a signs", announced}, // late
		// Nobody signs: the clock may be wrong, and an operator should look.
		{[]string{"a: 2026-01-01"}, "2025-12-31 23:59:59", "", ""},
		{[]string{"a: 2026-01-01", "x: 2025-01-01 to 2025-02-01 (public)"}, "2036-01-01", "", ""},
		{[]string{"x: 2026-01-01 (public)"}, "2026-12-31", "", ""},
		// One announced is enough, up to two Announce ahead: further ahead lies what a
		// wrong clock made, or an operator for a later date.
		{rotation, "2026-03-31 12:00:00", "", ""},
		{[]string{"a: 2026-01-01", "b: 2026-04-02"}, "2026-03-31", "", ""},
		{[]string{"a: 2026-01-01", "b: 2026-04-02 00:00:01"}, "2026-03-31", "b ahead, new ahead, a signs", announced},
		{[]string{"a: 2026-01-01", "x: 2026-04-01 (public)"}, "2026-03-31", "new ahead, x ahead (public), a signs", announced},
		// What has retired loses its private half after 7 days, and goes 7 days after
		// its trust of ten days has ended.
		{rotation, "2026-04-07 23:59:59", "", ""},
		{rotation, "2026-04-08", "b signs, a trusted (public)", halved},
		{rotation, "2026-04-10 23:59:59", "b signs, a trusted (public)", halved},
		{rotation, "2026-04-11", "", ""}, // nobody was quick enough
		{rotation, "2026-04-17 23:59:59", "", ""},
		{rotation, "2026-04-18", "b signs", dropped},
		{[]string{"a: 2026-01-01", "x: 2025-01-01 to 2026-02-01 (public)"}, "2026-02-07 23:59:59", "", ""},
		{[]string{"a: 2026-01-01", "x: 2025-01-01 to 2026-02-01 (public)"}, "2026-02-08", "a signs", dropped},
		{[]string{"a: 2026-01-01", "x: 2026-01-15 to 2026-02-01 (public)"}, "2026-02-08", "a signs", dropped},
		{[]string{"a: 2026-01-01", "x: 2025-01-01 (public)"}, "2026-02-08", "", ""}, // of another system, trusted still
		// Both at once.
		{rotation, "2026-06-29", "new ahead, b signs", announced},
	} {
		set, now := schedule(t, tc.keys...), day(t, tc.now)
		before := show(set, now, policy())
		next, why, err := set.Due(now, policy())
		require.NoError(t, err)
		require.Equal(t, tc.want, show(next, now, policy()), "%s at %s", tc.keys, tc.now)
		require.True(t, strings.HasPrefix(why, tc.why) && (why == "") == (tc.why == ""), "%s at %s: %s", tc.keys, tc.now, why)
		require.Equal(t, before, show(set, now, policy()), "a set never changes")
	}
}

// TestRetiredKeyKeepsItsTrust: the key without its private half is trusted for as long
// as it would have been with it.
func TestRetiredKeyKeepsItsTrust(t *testing.T) {
	for more, want := range map[time.Duration]string{0: "2026-04-11", time.Millisecond: "2026-04-11 00:00:01"} { // certificates end at whole seconds
		p := policy()
		p.Retain += more
		next, _, err := schedule(t, "a: 2026-01-01", "b: 2026-04-01").Due(day(t, "2026-04-08"), p)
		require.NoError(t, err)
		require.Equal(t, day(t, want), next.TrustEnd(find(next, "a"), p.Retain))
		require.True(t, find(next, "a").IsRetired())
		require.False(t, find(next, "b").IsRetired())
		require.Empty(t, next.Revoked())
	}
}

func TestAnnouncedKeyWaits(t *testing.T) {
	for _, fraction := range []time.Duration{0, time.Second - 1} {
		now := day(t, "2026-03-31").Add(fraction)
		next, _, err := schedule(t, "a: 2026-01-01").Due(now, policy())
		require.NoError(t, err)
		require.Equal(t, day(t, "2026-04-01 00:00:01"), next.Keys[0].Cert.NotBefore, "Announce at least, in whole seconds")
		require.Same(t, next.Keys[0], next.Announced(now, policy()))
	}
	set := schedule(t, "a: 2026-01-01", "b: 2026-03-31", "c: 2026-03-31 12:00:00")
	require.Same(t, find(set, "b"), set.Announced(day(t, "2026-03-30"), policy()), "the one that takes over first")
	require.Same(t, find(set, "c"), set.Announced(day(t, "2026-03-31"), policy()))
	require.Nil(t, set.Announced(day(t, "2026-03-31 12:00:00"), policy()))
}

func TestRotate(t *testing.T) {
	for _, tc := range []struct {
		keys      []string
		now, want string
	}{
		{[]string{"a: 2026-01-01"}, "2026-01-01", "new ahead, a signs"},
		{[]string{"a: 2026-01-01", "b: 2026-01-02"}, "2026-01-01", ""}, // announced already
		{[]string{"a: 2026-01-01", "b: 2026-04-01"}, "2026-04-08", "new ahead, b signs, a trusted (public)"},
		{[]string{"a: 2026-01-01", "b: 2026-04-01"}, "2026-04-18", "new ahead, b signs"},
		// No key signs: the new one does so at once.
		{nil, "2026-01-01", "new signs"},
		{[]string{"a: 2026-01-01", "x: 2020-01-01 to 2021-01-01 (public)"}, "2036-01-01", "new signs, a gone, x gone (public)"},
		{[]string{"a: 2026-01-01 12:00:00"}, "2026-01-01", "a ahead, new signs"},
	} {
		p := policy()
		set, now := schedule(t, tc.keys...), day(t, tc.now)
		next, err := set.Rotate(now, p)
		require.NoError(t, err)
		require.Equal(t, tc.want, show(next, now, p), "%s at %s", tc.keys, tc.now)
		if strings.Contains(tc.want, "new signs") { // this clock may be ahead, and another one behind
			require.Equal(t, "new", name(next.Signing(now.Add(-2*p.ClockSkew)).ID))
		}
	}
}

func TestRevoke(t *testing.T) {
	rotation := []string{"a: 2026-01-01", "b: 2026-04-01"}
	for _, tc := range []struct {
		keys            []string
		lost, now, want string
	}{
		{[]string{"a: 2026-01-01"}, "a", "2026-02-01", "new signs"},
		{[]string{"a: 2026-01-01", "x: 2026-01-02 (public)"}, "x", "2026-02-01", "a signs"},
		// The one announced is as good as any, but nobody may use it yet.
		{rotation, "a", "2026-03-31", "b ahead, new signs"},
		{rotation, "b", "2026-03-31 23:57:59", "a signs"},
		{rotation, "b", "2026-03-31 23:58:00", "new signs, a trusted"}, // a clock ahead has it sign
		{rotation, "b", "2026-04-01 00:00:00", "new signs, a trusted (public)"},
		{rotation, "a", "2026-04-01 00:01:59", "b signs, new trusted"}, // a clock behind has it sign
		{rotation, "a", "2026-04-01 00:02:00", "b signs"},
		// What was replaced neither signs again nor is trusted again.
		{rotation, "b", "2026-04-10 23:59:59", "new signs, a trusted (public)"},
		{rotation, "b", "2026-04-11", "new signs"},
		{append(rotation, "c: 2026-04-02"), "b", "2026-04-03", "c signs, a trusted (public)"},
		{append(rotation, "c: 2026-04-02"), "c", "2026-04-03", "new signs, b trusted (public), a trusted"},
		{[]string{"a: 2026-01-01 to 2026-02-01 (public)", "b: 2026-01-20"}, "b", "2026-01-30", "new signs, a trusted (public)"},
		// Nobody signs.
		{[]string{"a: 2026-01-01", "b: 2026-01-01 12:00:00"}, "b", "2025-12-01", "a ahead, new signs"},
	} {
		set, now := schedule(t, tc.keys...), day(t, tc.now)
		before := show(set, now, policy())
		next, err := set.Revoke(find(set, tc.lost), now, policy())
		require.NoError(t, err)
		require.Equal(t, tc.want, show(next, now, policy()), "%s without %s at %s", tc.keys, tc.lost, tc.now)
		require.Equal(t, []string{find(set, tc.lost).ID}, next.Revoked())
		require.Equal(t, before, show(set, now, policy()), "a set never changes")
		for _, clock := range []time.Duration{-2 * time.Minute, 0, 2 * time.Minute} {
			require.NotNil(t, next.Signing(now.Add(clock)), "%s without %s at %s, by a clock %v off", tc.keys, tc.lost, tc.now, clock)
		}
	}
}

// TestRevokedStaysRevoked: the key that said so is revoked itself, and the set goes
// through a store. One key under two kids is gone under both.
func TestRevokedStaysRevoked(t *testing.T) {
	now, set := day(t, "2026-02-01"), schedule(t, "a: 2026-01-28", "b: 2026-01-01", "x: 2025-01-01 (public)")
	other := *find(set, "x")
	other.ID = "legacy: 100 %/ü?#"
	set = keyset.New(append(set.Keys, &other)...)
	x, a, b := find(set, "x"), find(set, "a"), find(set, "b")
	set, err := set.Revoke(x, now, policy())
	require.NoError(t, err)
	require.Equal(t, "a signs, b trusted", show(set, now, policy()))
	require.ElementsMatch(t, []string{x.ID, other.ID}, set.Revoked())
	require.Equal(t, a.Cert.NotAfter, find(set, "a").Cert.NotAfter, "the mark changes no date")
	require.False(t, find(set, "a").IsRetired())

	set, err = set.Revoke(a, now, policy())
	require.NoError(t, err)
	set, err = keyset.Parse(encode(t, set.Keys...))
	require.NoError(t, err)
	require.Equal(t, "new signs, b trusted (public)", show(set, now, policy()))
	require.ElementsMatch(t, []string{x.ID, other.ID, a.ID}, set.Revoked())

	set, err = set.Revoke(find(set, "b"), now, policy())
	require.NoError(t, err)
	require.ElementsMatch(t, []string{x.ID, other.ID, a.ID, b.ID}, set.Revoked())
	require.False(t, set.Keys[0].IsRetired(), "b had retired, and that is not handed on")
}

// TestMarksOfOthers: other names in a certificate say nothing.
func TestMarksOfOthers(t *testing.T) {
	k := schedule(t, "a: 2026-01-01").Keys[0]
	k.Cert.URIs = []*url.URL{
		{Scheme: "https", Host: "op.example"}, {Scheme: "other", Opaque: "retired"}, {Scheme: "other", Opaque: "revokes:x"},
		{Scheme: "fleetkey", Opaque: "x"}, {Scheme: "fleetkey", Opaque: "revokes:%zz"},
	}
	require.Empty(t, keyset.New(k).Revoked())
	require.False(t, k.IsRetired())
}

var errMaker = errors.New("no luck today")

type failingMaker struct{}

func (failingMaker) New(string, time.Time, []*url.URL) (crypto.Signer, *x509.Certificate, error) {
	return nil, nil, errMaker
}

func (failingMaker) Again(*keyset.Key, time.Time, []*url.URL) (*x509.Certificate, error) {
	return nil, errMaker
}

func TestMakerFails(t *testing.T) {
	p, set := policy(), schedule(t, "a: 2026-01-01", "b: 2026-04-01")
	p.Maker = failingMaker{}
	due := func(now string) (*keyset.Set, error) {
		next, _, err := set.Due(day(t, now), p)
		return next, err
	}
	for title, f := range map[string]func() (*keyset.Set, error){
		"announce":          func() (*keyset.Set, error) { return due("2026-06-30") },
		"retire":            func() (*keyset.Set, error) { return due("2026-04-08") },
		"rotate":            func() (*keyset.Set, error) { return set.Rotate(day(t, "2026-04-02"), p) },
		"rotate and retire": func() (*keyset.Set, error) { return set.Rotate(day(t, "2026-04-08"), p) },
		"rotate at once":    func() (*keyset.Set, error) { return set.Rotate(day(t, "2025-04-08"), p) },
		"revoke b":          func() (*keyset.Set, error) { return set.Revoke(find(set, "b"), day(t, "2026-04-08"), p) },
		"revoke a":          func() (*keyset.Set, error) { return set.Revoke(find(set, "a"), day(t, "2026-04-08"), p) },
	} {
		next, err := f()
		require.ErrorIs(t, err, errMaker, title)
		require.Nil(t, next, title)
	}
}
