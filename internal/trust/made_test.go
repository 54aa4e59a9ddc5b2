package trust

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// A clock that is set back shows in its wall reading only.
func TestMadeByTheWallClock(t *testing.T) {
	v, err := New(Source{Set: &keyset.Set{}}, nil, Moment{Wall: time.Now()}, keysettest.Policy())
	require.NoError(t, err)
	require.NotContains(t, v.made.String(), " m=", "the monotonic reading")
}

// A view forgets the versions before it, or a fleet that saves often would remember all.
func TestForgetsOldVersions(t *testing.T) {
	var v *View
	for i := range 100 {
		var err error
		v, err = New(Source{Set: &keyset.Set{}, Version: time.Duration(i).String()}, v, Moment{Monotonic: time.Duration(i) * 20 * time.Second}, keysettest.Policy())
		require.NoError(t, err)
	}
	require.Len(t, v.replaced, 3)
}
