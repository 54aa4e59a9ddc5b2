package trust_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// slowest is the time in which every instance has read that a key is gone, and noticed:
// two RefreshEvery and two ClockSkew.
const slowest = 12 * time.Minute

// keptUntil is when the last token of a key that was lost at noon has ended.
var keptUntil = noon.Add(time.Hour + slowest)

func TestKeepVanished(t *testing.T) {
	foreign := key(t, time.Hour)
	older, lost, newer := key(t, 3*keysettest.Day), key(t, 2*keysettest.Day), key(t, keysettest.Day/2)
	retired, err := keysettest.Policy().Retire(newer, noon.Add(month))
	require.NoError(t, err)
	brief := keysettest.KeyUntil(t, "ES256", noon.Add(-time.Hour), noon.Add(time.Minute))
	at, future := key(t, -slowest), key(t, -slowest-time.Second)
	other, third := former(t, month, "idp"), former(t, time.Minute, "")
	gone := key(t, 2*month)
	revoked := func(lost *keyset.Key, keys ...*keyset.Key) []*keyset.Key {
		set, err := keyset.New(keys...).Revoke(lost, noon, keysettest.Policy())
		require.NoError(t, err)
		return set.Keys
	}
	for name, test := range map[string]struct {
		before, after []*keyset.Key
		lost          *keyset.Key
		until         time.Time // zero: it is gone at once
	}{
		"the bundle was exchanged":             {[]*keyset.Key{lost}, []*keyset.Key{foreign}, lost, keptUntil},
		"with a key of another system":         {[]*keyset.Key{lost, other}, []*keyset.Key{foreign}, other, keptUntil},
		"and the key ends earlier":             {[]*keyset.Key{brief}, []*keyset.Key{foreign}, brief, noon.Add(time.Minute)},
		"and the key has ended":                {[]*keyset.Key{older, gone}, []*keyset.Key{foreign}, gone, time.Time{}},
		"and the key may have signed":          {[]*keyset.Key{lost, at}, []*keyset.Key{foreign}, at, keptUntil},
		"and the key was never used":           {[]*keyset.Key{lost, future}, []*keyset.Key{foreign}, future, time.Time{}},
		"the bundle was rolled back":           {[]*keyset.Key{older, lost}, []*keyset.Key{older}, lost, keptUntil},
		"and somebody has announced a key":     {[]*keyset.Key{older, lost}, []*keyset.Key{older, key(t, -time.Hour)}, lost, keptUntil},
		"beside a young key of another system": {[]*keyset.Key{older, lost, third}, []*keyset.Key{older, third}, lost, keptUntil},
		"the key was taken out":                {[]*keyset.Key{lost, newer}, []*keyset.Key{newer}, lost, time.Time{}},
		"beside a newer key that has retired":  {[]*keyset.Key{older, lost, newer}, []*keyset.Key{older, retired}, lost, time.Time{}},
		"another system's was taken out":       {[]*keyset.Key{newer, other}, []*keyset.Key{newer}, other, time.Time{}},
		"the only key was revoked":             {[]*keyset.Key{lost}, revoked(lost, lost), lost, time.Time{}},
		"the newest key was revoked":           {[]*keyset.Key{older, lost}, revoked(lost, older, lost), lost, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			before := view(t, test.before...)
			after := viewAt(t, now, "2", before, test.after...)
			k := after.ByName(test.lost.ID)
			if test.until.IsZero() {
				require.Nil(t, k)
				return
			}
			require.NotNil(t, k)
			require.True(t, k.Kept)
			require.Equal(t, test.until, k.Until)
			require.Nil(t, k.Source.Private, "it never signs again")
			require.Contains(t, kids(published(t, after)), k.ID)
			old := before.ByName(test.lost.ID)
			require.False(t, old.Kept, "the view before is as it was")
			require.Equal(t, test.lost.Private, old.Source.Private)
		})
	}
}

// TestKeptAgain exchanges the bundle twice.
func TestKeptAgain(t *testing.T) {
	lost, second, third := key(t, month), key(t, time.Hour), key(t, time.Minute)
	v := viewAt(t, now, "2", view(t, lost), second)
	later := trust.Moment{Wall: noon.Add(time.Hour), Monotonic: 2 * time.Hour}
	v = viewAt(t, later, "3", v, third)
	require.Equal(t, keptUntil, v.ByName(lost.ID).Until, "not longer than before")
	require.Equal(t, later.Wall.Add(time.Hour+slowest), v.ByName(second.ID).Until)
	require.Equal(t, trust.RoleRetired, v.ByName(lost.ID).Role(later.Wall, v.Signing(later.Wall)))
	require.True(t, v.Outdated(keptUntil))
	v = viewAt(t, trust.Moment{Wall: keptUntil}, "3", v, third)
	require.Nil(t, v.ByName(lost.ID))
	v = viewAt(t, later, "4", v, third, lost)
	require.False(t, v.ByName(lost.ID).Kept, "it has come back")
}

// TestStaleReads: a replica of the store may show for a minute what was before.
func TestStaleReads(t *testing.T) {
	k := key(t, month)
	at := func(seconds int) trust.Moment { // the wall clock does not matter
		return trust.Moment{Wall: noon.Add(-time.Duration(seconds) * time.Hour), Monotonic: time.Duration(seconds) * time.Second}
	}
	stale := func(v *trust.View, version string, seconds int) bool {
		return v.IsStale(version, at(seconds).Monotonic)
	}
	v := viewAt(t, at(0), "1", nil, k)
	require.False(t, stale(v, "1", 0))
	v = viewAt(t, at(10), "2", v, k)
	require.True(t, stale(v, "1", 10))
	require.True(t, stale(v, "1", 69))
	require.False(t, stale(v, "1", 70), "what an operator rolls back lasts longer")
	require.False(t, stale(v, "2", 10))
	require.False(t, stale(v, "x", 10))

	v = viewAt(t, at(20), "2", v, k)
	require.True(t, stale(v, "1", 20), "a view of the same version changes nothing")
	require.False(t, stale(v, "2", 20))

	v = viewAt(t, at(30), "3", v, k)
	require.True(t, stale(v, "1", 30))
	require.True(t, stale(v, "2", 30))
	require.False(t, stale(v, "1", 70), "each has its own minute")
	require.True(t, stale(v, "2", 70))

	rolledBack := viewAt(t, at(40), "1", v, k)
	require.False(t, stale(rolledBack, "1", 40), "it is the one in use")
	require.True(t, stale(rolledBack, "3", 40))

	unsaved := viewAt(t, at(0), "", nil, k)
	require.False(t, stale(viewAt(t, at(1), "1", unsaved, k), "", 1))
}
