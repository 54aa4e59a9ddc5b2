package fleetkeytest

import (
	"embed"
	"log/slog"
	"testing"

	"github.com/fleetkey/fleetkey"
)

const defaultIssuer = "https://issuer.example"

// testKeys holds a bundle for each algorithm. The keys are published and protect nothing.
//
//go:embed testdata/*.pem
var testKeys embed.FS

// NewSigner returns a signer for unit tests, with an in-memory store. It is closed at the
// end of the test and logs to the test's output.
//
// The zero Config is enough: the issuer is then https://issuer.example. Each algorithm has
// a fixed key, valid from 1970 to 2120, which includes the start time of a testing/synctest
// bubble. Two signers with the same Config therefore accept each other's tokens, like two
// instances of a fleet. The keys are public, and anyone can sign with them: never trust
// them outside tests.
//
// To make the store fail, or to test several instances, use [NewStore] and
// [fleetkey.NewSigner].
func NewSigner(t testing.TB, cfg fleetkey.Config) *fleetkey.Signer {
	t.Helper()
	if cfg.Issuer == "" {
		cfg.Issuer = defaultIssuer
	}
	if cfg.Algorithm == "" {
		cfg.Algorithm = "RS256"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	bundle, err := testKeys.ReadFile("testdata/" + cfg.Algorithm + ".pem")
	if err != nil {
		t.Fatalf("fleetkeytest: no test key for algorithm %q: %v", cfg.Algorithm, err)
	}
	store := NewStore()
	store.Set(bundle)
	s, err := fleetkey.NewSigner(t.Context(), store, cfg)
	if err != nil {
		t.Fatalf("fleetkeytest: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("fleetkeytest: close the signer: %v", err)
		}
	})
	return s
}
