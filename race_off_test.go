//go:build !race

package fleetkey_test

const raceDetector = false
