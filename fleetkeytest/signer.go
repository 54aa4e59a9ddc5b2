package fleetkeytest

import (
	"embed"
	"log/slog"
	"testing"

	"github.com/fleetkey/fleetkey"
)

const defaultIssuer = "https://issuer.example"

// testKeys holds a bundle for each algorithm, made by testdata/generate.go. The
// keys are published and protect nothing.
//
//go:embed testdata/*.pem
var testKeys embed.FS

// NewSigner returns a signer that is ready for a unit test, on a store in
// memory. It ends with the test, and what it logs goes to the test's output.
//
// The zero Config will do: the issuer is then https://issuer.example. The key
// is a fixed one for each algorithm, and valid from 1970 to 2120, also at the
// time that a testing/synctest bubble starts with. So two signers made with the
// same Config take each other's tokens, as two instances of a fleet do. The
// keys are part of fleetkey's source, and anybody can sign with them: never
// make a program outside tests trust them.
//
// A test that wants the store to fail, or more instances on one store, uses
// [NewStore] and [fleetkey.NewSigner].
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
