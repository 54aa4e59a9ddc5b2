package testkit

import (
	"crypto/rand"
	"runtime/debug"
	"slices"
)

// In FIPS 140 mode Go's random bytes start from a clock's jitter, and the clock of a
// testing/synctest bubble has none. So they start before any bubble.
func init() { rand.Text() }

// Race reports whether the race detector is on. It makes code about ten times slower.
func Race() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
