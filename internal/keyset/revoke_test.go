package keyset_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

func TestRevoke(t *testing.T) {
	one, rotation := []string{"a: 2026-01-01"}, []string{"a: 2026-01-01", "b: 2026-04-01"}
	quick := append([]string{"c: 2026-04-02"}, rotation...)
	for _, tc := range []struct {
		keys            []string
		lost, now, want string
	}{
		{one, "a", "2026-02-01", "new signs, a revoked"},
		{one, "x", "2026-02-01", "a signs, x revoked"}, // not in the set, for example after a rollback
		{append([]string{"x: retired until 2026-05-01"}, one...), "x", "2026-02-01", "a signs, x revoked"},
		// The announced key cannot take over, since others may not know it yet.
		{rotation, "a", "2026-03-31", "b ahead, new signs, a revoked"},
		{rotation, "a b", "2026-03-31", "new signs, a revoked, b revoked"},
		{rotation, "b", "2026-03-31 23:59:59", "a signs, b revoked"},
		{rotation, "b", "2026-04-01", "new signs, a until 2026-04-11, b revoked"},
		{rotation, "a", "2026-04-01", "b signs, a revoked"}, // signs early on a machine whose clock is behind
		// A leaked bundle.
		{append([]string{"c: 2025-06-01", "x: retired until 2026-05-01", "y: revoked"}, rotation...), "a b c", "2026-03-31",
			"new signs, x until 2026-05-01, a revoked, b revoked, c revoked, y revoked"},
		// A replaced key neither signs again nor is trusted again. It stays in the set
		// until it is next tidied.
		{rotation, "b", "2026-04-18", "new signs, a until 2026-04-11, b revoked"},
		{rotation, "a b", "2026-04-02", "new signs, a revoked, b revoked"},
		{quick, "b", "2026-04-03", "c signs, a until 2026-04-11, b revoked"},
		{quick, "c", "2026-04-03", "new signs, b until 2026-04-12, a until 2026-04-11, c revoked"},
		{quick, "c b", "2026-04-03", "new signs, a until 2026-04-11, b revoked, c revoked"},
		{quick, "c", "2026-04-01 12:00:00", "b signs, a trusted, c revoked"},
		{[]string{"a: 2026-01-01 to 2026-02-01", "b: 2026-01-25"}, "b", "2026-01-30", "new signs, a until 2026-02-01, b revoked"},
		// No key signs, at least by this clock.
		{[]string{"a: 2026-01-01", "b: 2026-01-01 12:00:00"}, "b", "2025-12-01", "a ahead, new signs, b revoked"},
		{[]string{"x: retired until 2026-05-01"}, "y", "2026-02-01", "new signs, x until 2026-05-01, y revoked"},
	} {
		set, now := schedule(t, tc.keys...), day(t, tc.now)
		before := show(set, now, policy())
		var ids []string
		for _, letter := range strings.Fields(tc.lost) {
			ids = append(ids, kid(letter))
		}
		next, err := set.Revoke(now, policy(), ids...)
		require.NoError(t, err)
		require.Equal(t, tc.want, show(next, now, policy()), "%s without %s at %s", tc.keys, tc.lost, tc.now)
		require.Equal(t, before, show(set, now, policy()), "a set must not change")
		require.True(t, next.Mentions(ids[0]) && next.Mentions(next.Keys[0].ID))
		require.False(t, next.Mentions(kid("z")))
		for _, clock := range []time.Duration{-2 * time.Minute, 0, 2 * time.Minute} {
			k, _ := next.Signing(now.Add(clock))
			require.NotNil(t, k, "%s without %s at %s, by a clock %v off", tc.keys, tc.lost, tc.now, clock)
		}
		again, err := keyset.Parse(encode(t, next))
		require.NoError(t, err)
		require.True(t, same(next, again), "writing and reading must not change the set")
	}
}

// TestRevokeMakesRoom: if there is no room for a revocation, the retired keys whose trust ends
// first are dropped.
func TestRevokeMakesRoom(t *testing.T) {
	crowd := func(n int) (ids []string) {
		for i := range n {
			ids = append(ids, base64.RawURLEncoding.EncodeToString(append(make([]byte, 30), byte(i>>8), byte(i))))
		}
		return ids
	}
	set, now := schedule(t, "a: 2026-01-01"), day(t, "2026-02-01")
	for i := 0; ; i++ {
		seed := append(make([]byte, ed25519.SeedSize-2), byte(i>>8), byte(i))
		r := retiredKey(t, ed25519.NewKeyFromSeed(seed).Public(), false, now.Add(time.Duration(i%7+1)*time.Hour))
		more := keyset.New(set.Keys, append(slices.Clone(set.Retired), r), nil)
		if _, err := more.Encode(); err != nil {
			require.ErrorContains(t, err, fmt.Sprintf("a bundle of 1 keys, %d retired keys and 0 revoked keys has ", i+1))
			break
		}
		set = more
	}
	next, err := set.Revoke(now, policy(), crowd(5)...)
	require.NoError(t, err)
	require.Equal(t, crowd(5), next.Revoked)
	encode(t, next)
	kept := len(next.Retired)
	require.Equal(t, set.Retired[:kept], next.Retired, "the keys trusted longest must stay")
	_, err = keyset.New(next.Keys, set.Retired[:kept+1], next.Revoked).Encode()
	require.ErrorContains(t, err, "at most 65536 are allowed", "must not drop more keys than necessary")

	next, err = keyset.New(set.Keys, set.Retired[:3], nil).Revoke(now, policy(), crowd(600)...) // too few retired keys to make room
	require.NoError(t, err)
	require.Len(t, next.Revoked, 600, "must not silently drop a revocation")
	require.Empty(t, next.Retired)
	_, err = next.Encode()
	require.ErrorContains(t, err, "at most 65536 are allowed")
}
