package keyset_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// This file tests the changes of a set that a policy requires. It uses keysettest's policy: a
// new key every 90 days, announced for a day. Here Retain is ten days, so that a retired key
// loses its private half (after 7 days) before its trust ends.

func policy() *keyset.Policy {
	p := keysettest.Policy()
	p.Algorithm, p.Retain = "EdDSA", 10*keysettest.Day
	return p
}

// TestPatience: since another clock may be behind, keys stay in the set for a while after their
// trust has ended, and the first key is backdated.
func TestPatience(t *testing.T) {
	for every, want := range map[time.Duration]struct {
		patience time.Duration
		begin    string
	}{
		0:                        {7 * keysettest.Day, "2026-01-01"},       // no rotation
		time.Second:              {2 * time.Minute, "2026-01-01 23:58:00"}, // at least 2 ClockSkew
		2 * keysettest.Day:       {12 * time.Hour, "2026-01-01 12:00:00"},  // begin: half of Every - Announce
		20 * keysettest.Day:      {5 * keysettest.Day, "2026-01-01"},       // patience: a quarter of Every
		365 * 2 * keysettest.Day: {7 * keysettest.Day, "2026-01-01"},
	} {
		p := policy()
		p.Every = every
		require.Equal(t, want.patience, p.Patience(), every)
		set, err := p.First(day(t, "2026-01-02"))
		require.NoError(t, err)
		require.Len(t, set.Keys, 1)
		require.Equal(t, day(t, want.begin), set.Keys[0].Cert.NotBefore, every)
	}
}

func TestDue(t *testing.T) {
	const announced, dropped, halved = "announced key", "dropped keys that are no longer trusted", "dropped private keys that no longer sign"
	rotation := []string{"a: 2026-01-01", "b: 2026-04-01"}
	for _, tc := range []struct {
		keys      []string
		now       string
		want, why string // empty: nothing is due
	}{
		{[]string{"a: 2026-01-01"}, "2026-03-30 23:59:59", "", ""},
		{[]string{"a: 2026-01-01"}, "2026-03-31", "new ahead, a signs", announced},
		{[]string{"a: 2026-01-01"}, "2035-12-31", "new ahead, a signs", announced}, // late
		// If the certificate ends early, allow an hour for the last token, and 14 minutes for
		// clocks and two refreshes.
		{[]string{"a: 2026-01-01 to 2026-02-01"}, "2026-01-30 22:45:59", "", ""},
		{[]string{"a: 2026-01-01 to 2026-02-01"}, "2026-01-30 22:46:00", "new ahead, a signs", announced},
		// No key signs by its dates: the clock may be wrong, and an operator should check.
		{[]string{"a: 2026-01-01", "x: retired until 2024-01-01"}, "2025-12-31 23:59:59", "", ""},
		{[]string{"a: 2026-01-01", "x: retired until 2025-02-01"}, "2036-01-01", "", ""},
		{[]string{"x: retired until 2025-01-01"}, "2026-12-31", "", ""},
		// One announced key is enough, if it begins within two Announce. A later one was
		// made with a wrong clock, or by an operator for a later date.
		{rotation, "2026-03-31 12:00:00", "", ""},
		{[]string{"a: 2026-01-01", "b: 2026-04-02"}, "2026-03-31", "", ""},
		{[]string{"a: 2026-01-01", "b: 2026-04-02 00:00:01"}, "2026-03-31", "b ahead, new ahead, a signs", announced},
		{[]string{"a: 2026-01-01", "b: 2026-04-01", "b: revoked"}, "2026-03-31", "new ahead, a signs, b revoked", announced},
		// A replaced key loses its private half after 7 days, and is dropped 7 days after
		// its ten days of trust have ended.
		{rotation, "2026-04-07 23:59:59", "", ""},
		{rotation, "2026-04-08", "b signs, a until 2026-04-11", halved},
		{rotation, "2026-04-17 23:59:59", "b signs, a until 2026-04-11", halved}, // late
		{rotation, "2026-04-18", "b signs", dropped},
		{[]string{"b: 2026-04-01", "a: retired until 2026-04-11", "y: revoked"}, "2026-04-17 23:59:59", "", ""},
		{[]string{"b: 2026-04-01", "a: retired until 2026-04-11", "y: revoked"}, "2026-04-18", "b signs, y revoked", dropped},
		{[]string{"a: 2026-01-01 to 2026-04-05", "b: 2026-04-01"}, "2026-04-08", "b signs, a until 2026-04-05", halved},
		{[]string{"a: 2026-01-01 to 2026-01-20", "b: 2026-01-15"}, "2026-01-27", "b signs", dropped},
		{[]string{"a: 2026-01-01", "b: 2026-04-01 to 2026-05-01"}, "2026-05-01", "new signs early, b gone", announced},
		// A new key is due and an old one must be dropped.
		{rotation, "2026-06-29", "new ahead, b signs", announced},
	} {
		set, now := schedule(t, tc.keys...), day(t, tc.now)
		before := show(set, now, policy())
		next, why, err := set.Due(now, policy())
		require.NoError(t, err)
		require.Equal(t, tc.want, show(next, now, policy()), "%s at %s", tc.keys, tc.now)
		require.True(t, strings.HasPrefix(why, tc.why) && (why == "") == (tc.why == ""), "%s at %s: %s", tc.keys, tc.now, why)
		require.Equal(t, before, show(set, now, policy()), "a set must not change")
		if next != nil && tc.why != announced {
			again, _, err := next.Due(now, policy())
			require.NoError(t, err)
			require.Nil(t, again, "nothing more is due")
		}
	}
}

// TestRetiredKeyKeepsItsTrust: dropping the private half of a key does not change how long the
// key is trusted.
func TestRetiredKeyKeepsItsTrust(t *testing.T) {
	for more, want := range map[time.Duration]string{0: "2026-04-11", time.Millisecond: "2026-04-11 00:00:01"} { // rounded up to seconds, as in a bundle
		p := policy()
		p.Retain += more
		next, _, err := schedule(t, "a: 2026-01-01", "b: 2026-04-01").Due(day(t, "2026-04-08"), p)
		require.NoError(t, err)
		a := retiredKey(t, privateOf("a").Public(), false, day(t, want))
		require.Equal(t, []keyset.Retired{a}, next.Retired)
	}
}

func TestAnnouncedKeyWaits(t *testing.T) {
	for _, fraction := range []time.Duration{0, time.Second - 1} {
		now := day(t, "2026-03-31").Add(fraction)
		next, why, err := schedule(t, "a: 2026-01-01").Due(now, policy())
		require.NoError(t, err)
		require.Equal(t, day(t, "2026-04-01 00:00:01"), next.Keys[0].Cert.NotBefore, "at least Announce, in whole seconds")
		require.Same(t, next.Keys[0], next.Announced(now, policy()))
		require.Equal(t, "announced key "+next.Keys[0].ID, why)
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
		{[]string{"a: 2026-01-01", "b: 2026-04-01", "y: revoked"}, "2026-04-08", "new ahead, b signs, a until 2026-04-11, y revoked"},
		{[]string{"a: 2026-01-01", "b: 2026-04-01"}, "2026-04-18", "new ahead, b signs"},
		// No key signs by its dates, so the new one signs at once.
		{[]string{"y: revoked"}, "2026-01-01", "new signs, y revoked"},
		{[]string{"x: retired until 2026-01-01", "z: retired until 2025-12-25"}, "2026-01-01", "new signs, x until 2026-01-01, z until 2025-12-25"},
		{[]string{"a: 2026-01-01"}, "2036-01-07", "new signs, a gone"},
		{[]string{"a: 2026-01-01 12:00:00"}, "2026-01-01", "a ahead, new signs"},
		{[]string{"a: 2026-01-01 to 2026-02-01", "b: 2026-03-01"}, "2026-02-05", "b ahead, new signs, a gone"},
	} {
		p := policy()
		set, now := schedule(t, tc.keys...), day(t, tc.now)
		next, err := set.Rotate(now, p)
		require.NoError(t, err)
		require.Equal(t, tc.want, show(next, now, p), "%s at %s", tc.keys, tc.now)
		if strings.Contains(tc.want, "new signs") { // also on a machine whose clock is behind
			k, early := next.Signing(now.Add(-keysettest.Day))
			require.Equal(t, []any{"new", false}, []any{name(k.ID), early})
		}
	}
}

// sized returns a set with one key: a made-up RSA public key of bits, unless bits is 0.
func sized(t testing.TB, alg string, bits uint) *keyset.Set {
	t.Helper()
	k := *keysettest.Key(t, alg, day(t, "2026-01-01"))
	if bits > 0 {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		k.Public = &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
		k.ID = jws.Thumbprint(k.Public)
	}
	return keyset.New([]*keyset.Key{&k}, nil, nil)
}

// changes makes each change of a set that requires a new key, and returns the errors.
func changes(t testing.TB, set *keyset.Set, p *keyset.Policy) (errs []error) {
	k, due, early := set.Keys[0], day(t, "2026-06-01"), day(t, "2025-06-01")
	retired := keyset.New(nil, []keyset.Retired{{ID: k.ID, Alg: k.Alg, Public: k.Public, Until: k.Cert.NotAfter}}, nil)
	for _, change := range []func() (*keyset.Set, error){
		func() (*keyset.Set, error) { next, _, err := set.Due(due, p); return next, err },
		func() (*keyset.Set, error) { return set.Rotate(due, p) },
		func() (*keyset.Set, error) { return set.Rotate(early, p) },
		func() (*keyset.Set, error) { return set.Revoke(due, p, k.ID) },
		func() (*keyset.Set, error) { return retired.Rotate(due, p) },
	} {
		next, err := change()
		require.Equal(t, err != nil, next == nil)
		errs = append(errs, err)
	}
	return errs
}

// TestSuccessorsMatch: the successor of a key has the same algorithm and size, unless the
// policy names another algorithm.
func TestSuccessorsMatch(t *testing.T) {
	for _, tc := range []struct {
		set       *keyset.Set
		algorithm string
		want      string
	}{
		{sized(t, "RS256", 3072), "", "RS256 3072"},
		{sized(t, "PS256", 4096), "", "PS256 4096"},
		{sized(t, "PS256", 8192), "", "PS256 4096"},
		{sized(t, "RS256", 4096), "ES256", "ES256 4096"}, // the bits have no meaning
		{sized(t, "ES384", 0), "", "ES384 2048"},
		{sized(t, "EdDSA", 0), "RS256", "RS256 2048"},
	} {
		p := policy()
		p.Algorithm = tc.algorithm
		p.Make = func(alg string, bits int, begin time.Time) (crypto.Signer, *x509.Certificate, error) {
			assert.Equal(t, tc.want, fmt.Sprint(alg, " ", bits))
			return keysettest.Make("EdDSA", bits, begin)
		}
		require.NoError(t, errors.Join(changes(t, tc.set, p)...))
		none := errors.New("no luck today")
		p.Make = func(string, int, time.Time) (crypto.Signer, *x509.Certificate, error) { return nil, nil, none }
		for _, err := range changes(t, tc.set, p) {
			require.ErrorIs(t, err, none)
		}
	}
	p, x := policy(), schedule(t, "x: 2026-01-01").Keys[0]
	p.Algorithm = ""
	set, err := p.First(day(t, "2026-01-01"))
	require.NoError(t, err)
	require.Equal(t, "RS256", set.Keys[0].Alg.Name)
	p.Make = func(string, int, time.Time) (crypto.Signer, *x509.Certificate, error) {
		return privateOf("y"), x.Cert, nil
	}
	_, err = p.First(day(t, "2026-01-01"))
	require.ErrorContains(t, err, "does not match it")
}
