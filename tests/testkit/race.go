package testkit

import (
	"runtime/debug"
	"slices"
)

// Race reports whether the race detector is on. It makes code about ten times slower.
func Race() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
