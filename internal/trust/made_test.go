package trust

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/keyset/keysettest"
)

// Only the wall clock shows that a clock was set back.
func TestMadeByTheWallClock(t *testing.T) {
	v, err := New(Source{Set: &keyset.Set{}}, nil, Moment{Wall: time.Now()}, keysettest.Policy())
	require.NoError(t, err)
	require.NotContains(t, v.made.String(), " m=", "must not have a monotonic reading")
}

// A view must forget old versions, or the list would grow with every save.
func TestForgetsOldVersions(t *testing.T) {
	var v *View
	for i := range 100 {
		var err error
		v, err = New(Source{Set: &keyset.Set{}, Version: time.Duration(i).String()}, v, Moment{Monotonic: time.Duration(i) * 20 * time.Second}, keysettest.Policy())
		require.NoError(t, err)
	}
	require.Len(t, v.replaced, 3)
}
