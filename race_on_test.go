//go:build race

package fleetkey_test

// raceDetector makes everything several times slower.
const raceDetector = true
