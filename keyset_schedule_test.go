package fleetkey

import (
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This file tests the schedule that certificates make, who signs and who is
// trusted until when, as tables of dates written by hand.

func day(t testing.TB, text string) time.Time {
	t.Helper()
	layout := time.DateTime
	if len(text) == len(time.DateOnly) {
		layout = time.DateOnly
	}
	at, err := time.Parse(layout, text)
	require.NoError(t, err)
	return at
}

// schedule reads "name: begin to end" lines; "(public)" at the end of one marks a
// certificate without its private key.
func schedule(t testing.TB, lines ...string) *keySet {
	t.Helper()
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	var keys []*key
	for _, line := range lines {
		name, dates, _ := strings.Cut(line, ": ")
		dates, public := strings.CutSuffix(dates, " (public)")
		begin, end, ok := strings.Cut(dates, " to ")
		require.True(t, ok, line)
		k := &key{id: name, cert: &x509.Certificate{NotBefore: day(t, begin), NotAfter: day(t, end)}}
		if !public {
			k.private = private
		}
		keys = append(keys, k)
	}
	return newKeySet(keys...)
}

// at describes a moment of a schedule: who signs, and who is trusted.
func at(s *keySet, now time.Time, retain time.Duration) string {
	signs, trusted := "nobody", []string{}
	if k := s.signing(now); k != nil {
		signs = k.id
	}
	for _, k := range s.keys {
		if now.Before(s.trustEnd(k, retain)) {
			trusted = append(trusted, k.id)
		}
	}
	return fmt.Sprintf("%s signs, trusted: %s", signs, strings.Join(trusted, " "))
}

func TestSchedule(t *testing.T) {
	const retain = 24 * time.Hour
	for name, tc := range map[string]struct {
		keys []string
		want map[string]string // by time
	}{
		"one key": {
			[]string{"a: 2026-01-01 to 2036-01-01"},
			map[string]string{
				"2025-12-31 23:59:59": "nobody signs, trusted: a", // announced
				"2026-01-01":          "a signs, trusted: a",
				"2035-12-31 23:59:59": "a signs, trusted: a",
				"2036-01-01":          "nobody signs, trusted: ",
			}},
		"a rotation": {
			[]string{"a: 2026-01-01 to 2036-01-01", "b: 2026-04-01 to 2036-04-01"},
			map[string]string{
				"2026-03-31 23:59:59": "a signs, trusted: b a",
				"2026-04-01":          "b signs, trusted: b a", // a is retired
				"2026-04-01 23:59:59": "b signs, trusted: b a",
				"2026-04-02":          "b signs, trusted: b",
			}},
		"the retired key has lost its private half": { // and got a certificate that ends with its trust
			[]string{"a: 2026-01-01 to 2026-04-02 (public)", "b: 2026-04-01 to 2036-04-01"},
			map[string]string{
				"2026-03-31 23:59:59": "nobody signs, trusted: b a",
				"2026-04-01":          "b signs, trusted: b a",
				"2026-04-02":          "b signs, trusted: b",
			}},
		"a foreign certificate, older than the fleet's own": { // is trusted to its end all the same
			[]string{"a: 2026-01-01 to 2036-01-01", "x: 2020-01-01 to 2026-08-01 (public)"},
			map[string]string{
				"2026-07-31": "a signs, trusted: a x",
				"2026-08-01": "a signs, trusted: a",
			}},
		"a certificate ends before its key is replaced": {
			[]string{"a: 2026-01-01 to 2026-03-01", "b: 2026-04-01 to 2036-04-01"},
			map[string]string{
				"2026-02-28 23:59:59": "a signs, trusted: b a",
				"2026-03-01":          "nobody signs, trusted: b",
				"2026-04-01":          "b signs, trusted: b",
			}},
		"a certificate ends within the retention": {
			[]string{"a: 2026-01-01 to 2026-04-01 12:00:00", "b: 2026-04-01 to 2036-04-01"},
			map[string]string{
				"2026-04-01 11:59:59": "b signs, trusted: b a",
				"2026-04-01 12:00:00": "b signs, trusted: b",
			}},
		"the newer key ends first": {
			[]string{"a: 2026-01-01 to 2036-01-01", "b: 2026-04-01 to 2026-05-01"},
			map[string]string{
				"2026-04-30": "b signs, trusted: b",
				// An old key that is still in its dates signs again, but nobody
				// trusts it: Issue then says ErrKeyExpired.
				"2026-05-01": "a signs, trusted: ",
			}},
		"a foreign certificate for verification": {
			[]string{"a: 2026-01-01 to 2036-01-01", "x: 2026-02-01 to 2026-08-01 (public)"},
			map[string]string{
				"2026-01-15": "a signs, trusted: x a",
				"2026-07-31": "a signs, trusted: x a",
				"2026-08-01": "a signs, trusted: a",
			}},
		"nothing but a certificate": {
			[]string{"x: 2026-02-01 to 2026-08-01 (public)"},
			map[string]string{"2026-03-01": "nobody signs, trusted: x"}},
		"two announced": {
			[]string{"a: 2026-01-01 to 2036-01-01", "b: 2026-04-01 to 2036-04-01", "c: 2026-04-01 12:00:00 to 2036-04-01"},
			map[string]string{
				"2026-03-31":          "a signs, trusted: c b a",
				"2026-04-01 12:00:00": "c signs, trusted: c b a",
				"2026-04-02":          "c signs, trusted: c b",
				"2026-04-02 12:00:00": "c signs, trusted: c",
			}},
		"two that begin together": { // the first of the bundle signs, and both are trusted
			[]string{"a: 2026-01-01 to 2036-01-01", "b: 2026-01-01 to 2036-01-01"},
			map[string]string{"2026-01-01": "a signs, trusted: a b"}},
	} {
		t.Run(name, func(t *testing.T) {
			set := schedule(t, tc.keys...)
			for when, want := range tc.want {
				assert.Equal(t, want, at(set, day(t, when), retain), when)
			}
		})
	}
}

func TestSuccessor(t *testing.T) {
	set := schedule(t,
		"a: 2026-01-01 to 2036-01-01", "p: 2026-02-01 to 2036-01-01 (public)",
		"b: 2026-03-01 to 2036-01-01", "b2: 2026-03-01 to 2036-01-01",
		"c: 2026-04-01 to 2036-01-01", "q: 2026-05-01 to 2036-01-01 (public)")
	for id, want := range map[string]string{"a": "b2", "p": "b2", "b": "c", "b2": "b", "c": "", "q": ""} {
		got := ""
		if next := set.successor(set.find(id)); next != nil {
			got = next.id
		}
		assert.Equal(t, want, got, "successor of %s", id)
	}
}

func TestNextChange(t *testing.T) {
	set := schedule(t, "a: 2026-01-01 to 2036-01-01", "b: 2026-04-01 to 2036-04-01", "x: 2026-02-01 to 2026-03-01 (public)")
	changes := []string{
		"2026-01-01", // a begins
		"2026-02-01", // x begins
		"2026-03-01", // x ends
		"2026-04-01", // b begins
		"2026-04-03", // a is retained for two days
		"2036-04-01", // b ends
	}
	now := day(t, "2025-01-01")
	for _, want := range changes {
		now = set.nextChange(now, 48*time.Hour)
		require.Equal(t, day(t, want), now)
	}
	require.Zero(t, set.nextChange(now, 48*time.Hour), "nothing changes any more")
}

// TestRoles looks at the same schedule as Status reports it.
func TestRoles(t *testing.T) {
	set := schedule(t, "old: 2026-01-01 to 2036-01-01", "now: 2026-04-01 to 2036-01-01",
		"next: 2026-07-01 to 2036-01-01", "x: 2026-05-01 to 2026-08-01 (public)")
	for when, want := range map[string]string{
		"2026-03-01": "next announced, x former, now announced, old signing",
		"2026-04-01": "next announced, x former, now signing, old retired",
		"2026-04-02": "next announced, x former, now signing, old gone",
		"2026-07-01": "next signing, x former, now retired, old gone",
		"2026-08-01": "next signing, x gone, now gone, old gone",
	} {
		var got []string
		for _, k := range set.keys {
			signs := set.signing(day(t, when))
			current := &trustedKey{key: k, until: set.trustEnd(k, 24*time.Hour), foreign: k.id == "x"}
			signing := &trustedKey{key: signs}
			if k == signs {
				signing = current
			}
			got = append(got, k.id+" "+string(current.role(day(t, when), signing)))
		}
		assert.Equal(t, want, strings.Join(got, ", "), when)
	}
}
