package trust_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// slowest is the time until every instance knows that a key is gone: two RefreshEvery and two
// ClockSkew.
const slowest = 12 * time.Minute

// keptUntil is when the last token of a key that was lost at noon expires.
var keptUntil = noon.Add(time.Hour + slowest)

func TestKeepVanished(t *testing.T) {
	foreign := setOf(key(t, time.Hour))
	older, lost, newer := key(t, 3*keysettest.Day), key(t, 2*keysettest.Day), key(t, keysettest.Day/2)
	brief := keysettest.KeyUntil(t, "ES256", noon.Add(-time.Hour), noon.Add(time.Minute))
	early := key(t, -45*keysettest.Day) // made with a clock that was ahead; signs early if it is the only key
	at, future := key(t, -slowest), key(t, -slowest-time.Second)
	gone := key(t, 2*month)
	with := func(k *keyset.Key, until time.Time) *keyset.Set {
		return keyset.New([]*keyset.Key{newer}, []keyset.Retired{retired(k, until)}, nil)
	}
	revoked := keyset.New([]*keyset.Key{newer}, nil, []string{lost.ID})
	for name, test := range map[string]struct {
		before, after *keyset.Set
		lost          *keyset.Key
		until         time.Time // zero: no longer trusted at once
	}{
		"the bundle was exchanged":         {setOf(lost), foreign, lost, keptUntil},
		"and the key ends earlier":         {setOf(brief), foreign, brief, noon.Add(time.Minute)},
		"and the key has ended":            {setOf(older, gone), foreign, gone, time.Time{}},
		"and the key may have signed":      {setOf(lost, at), foreign, at, keptUntil},
		"and the key was never used":       {setOf(lost, future), foreign, future, time.Time{}},
		"and the key has signed early":     {setOf(early), foreign, early, keptUntil},
		"and the key had retired":          {with(lost, noon.Add(month)), foreign, lost, keptUntil},
		"the bundle was rolled back":       {setOf(older, lost), setOf(older), lost, keptUntil},
		"and somebody has announced a key": {setOf(older, lost), setOf(older, key(t, -time.Hour)), lost, keptUntil},
		"the key was taken out":            {setOf(lost, newer), setOf(newer), lost, keptUntil},
		"the key is retired":               {setOf(lost), with(lost, noon.Add(time.Minute)), lost, noon.Add(time.Minute)},
		"the key was revoked":              {setOf(lost, newer), revoked, lost, time.Time{}},
		"a retired key was revoked":        {with(lost, noon.Add(month)), revoked, lost, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			before := view(t, test.before)
			after := viewAt(t, now, "2", before, test.after)
			k := after.ByName(test.lost.ID)
			if test.until.IsZero() {
				require.Nil(t, k)
				return
			}
			require.NotNil(t, k)
			require.Equal(t, !test.after.Mentions(k.ID), k.Kept)
			require.Equal(t, test.until, k.Until)
			require.Nil(t, k.Source, "must not sign again")
			require.Contains(t, kids(published(t, after)), k.ID)
			old := before.ByName(test.lost.ID)
			require.False(t, old.Kept, "the old view must not change")
			require.Equal(t, test.before.Find(k.ID), old.Source)
		})
	}
}

// TestOthersAreNotKept: configured keys are trusted only as long as they are configured.
func TestOthersAreNotKept(t *testing.T) {
	mine, other := key(t, month), key(t, month)
	others := append(trust.Adopted(setOf(mine), noon, noon.Add(month)), former(other, ""))
	v := viewAt(t, now, "2", view(t, setOf(key(t, month)), others...), setOf(key(t, month)), others...)
	require.False(t, v.ByName(mine.ID).Kept || v.ByName(other.ID).Kept)
	v = viewAt(t, now, "3", v, setOf(key(t, month)))
	require.True(t, v.ByName(mine.ID) == nil && v.ByName(other.ID) == nil)
}

// TestKeptAgain exchanges the bundle twice.
func TestKeptAgain(t *testing.T) {
	lost, second, third := key(t, month), key(t, time.Hour), key(t, time.Minute)
	v := viewAt(t, now, "2", view(t, setOf(lost)), setOf(second))
	later := trust.Moment{Wall: noon.Add(time.Hour), Monotonic: 2 * time.Hour}
	v = viewAt(t, later, "3", v, setOf(third))
	require.Equal(t, keptUntil, v.ByName(lost.ID).Until, "the second exchange must not extend the trust")
	require.Equal(t, later.Wall.Add(time.Hour+slowest), v.ByName(second.ID).Until)
	signing, _ := v.Signing(later.Wall)
	require.Equal(t, trust.RoleRetired, v.ByName(lost.ID).Role(later.Wall, signing))
	require.True(t, v.Outdated(keptUntil))
	ended := viewAt(t, trust.Moment{Wall: keptUntil}, "3", v, setOf(third))
	require.Nil(t, ended.ByName(lost.ID))
	back := viewAt(t, later, "4", v, setOf(third, lost))
	require.False(t, back.ByName(lost.ID).Kept, "the key is in the set again")
	revoked := viewAt(t, later, "4", v, keyset.New([]*keyset.Key{third}, nil, []string{lost.ID}))
	require.Nil(t, revoked.ByName(lost.ID))
}

// TestStaleReads: for a minute, a replica of the store may return the previous content.
func TestStaleReads(t *testing.T) {
	k := setOf(key(t, month))
	type load struct {
		seconds int
		version string
	}
	one, two, three := load{0, "1"}, load{10, "2"}, load{30, "3"}
	for _, tc := range []struct {
		loads   []load
		seconds int
		stale   string
	}{
		{[]load{one}, 0, ""},
		{[]load{one, two}, 10, "1"},
		{[]load{one, two}, 69, "1"},
		{[]load{one, two}, 70, ""}, // after a minute, it is a rollback by an operator
		{[]load{one, two, {20, "2"}}, 20, "1"},
		{[]load{one, two, three}, 30, "1 2"},
		{[]load{one, two, three}, 70, "2"},              // each version has its own minute
		{[]load{one, two, three, {40, "1"}}, 40, "2 3"}, // version 1 is in use again
		{[]load{{0, ""}, {1, "1"}}, 1, ""},
	} {
		var v *trust.View
		for _, l := range tc.loads { // the wall clock must not matter
			at := trust.Moment{Wall: noon.Add(-time.Duration(l.seconds) * time.Hour), Monotonic: time.Duration(l.seconds) * time.Second}
			v = viewAt(t, at, l.version, v, k)
		}
		for _, version := range []string{"", "1", "2", "3"} {
			want := version != "" && strings.Contains(tc.stale, version)
			require.Equal(t, want, v.IsStale(version, time.Duration(tc.seconds)*time.Second), "%q after %v at %d s", version, tc.loads, tc.seconds)
		}
	}
}
