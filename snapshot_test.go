package fleetkey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BundleEnding is a bundle of one key whose certificate began an hour ago.
func BundleEnding(t testing.TB, end time.Time) []byte {
	t.Helper()
	alg, err := algorithmNamed("ES256")
	require.NoError(t, err)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	subject := []byte{0x30, 0x00}
	cert, err := selfSigned(alg, private, subject, time.Now().Add(-time.Hour), end, nil)
	require.NoError(t, err)
	k, err := makeKey(cert, private)
	require.NoError(t, err)
	bundle, err := newKeySet(k).encode()
	require.NoError(t, err)
	return bundle
}

// A rollback is told by private keys; a certificate that Trust added later than
// the lost key began hides it.
func TestRollBackBesideAYoungForeignCertificate(t *testing.T) {
	now := time.Now()
	cfg, err := Config{Issuer: "https://op.example"}.withDefaults()
	require.NoError(t, err)
	mk := func(begin time.Time) *key {
		k, err := newKey("ES256", "x", begin)
		require.NoError(t, err)
		return k
	}
	old, lost, foreign := mk(now.AddDate(0, 0, -90)), mk(now.AddDate(0, 0, -2)), mk(now.AddDate(0, 0, -1))
	foreign.private = nil
	before, err := newSnapshot(newKeySet(old, lost, foreign), "2", nil, now, &cfg)
	require.NoError(t, err)
	after, err := newSnapshot(newKeySet(old, foreign), "1", before, now, &cfg)
	require.NoError(t, err)
	require.Contains(t, after.byKID, lost.id)
}

// A clock that is set back shows in its wall reading only.
func TestSnapshotIsMadeByTheWallClock(t *testing.T) {
	cfg, err := Config{Issuer: "https://op.example"}.withDefaults()
	require.NoError(t, err)
	k, err := newKey("ES256", "x", time.Now())
	require.NoError(t, err)
	s, err := newSnapshot(newKeySet(k), "1", nil, time.Now(), &cfg)
	require.NoError(t, err)
	require.NotContains(t, s.made.String(), " m=", "the monotonic reading")
	require.True(t, s.outdated(s.made.Add(-time.Second)))
}
