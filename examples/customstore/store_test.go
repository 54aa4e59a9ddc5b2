package customstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/examples/customstore"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

func open(t testing.TB, file string) *sql.DB {
	db, err := sql.Open("sqlite", file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)")
	if err == nil {
		_, err = db.Exec(customstore.Schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestStore is the only test that an implementation needs.
func TestStore(t *testing.T) {
	fleetkeytest.TestKeyStore(t, func(t *testing.T) func() fleetkey.KeyStore {
		file := filepath.Join(t.TempDir(), "keys.db")
		return func() fleetkey.KeyStore { return customstore.New(open(t, file), "openid-server") }
	})
}

func Example() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		panic(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // each connection to :memory: has its own database
	if _, err := db.Exec(customstore.Schema); err != nil {
		panic(err)
	}
	signer, err := fleetkey.NewSigner(ctx, customstore.New(db, "openid-server"), fleetkey.Config{Issuer: "https://id.example.com"})
	if err != nil {
		panic(err)
	}
	defer signer.Close()
	fmt.Println(signer.SigningKey().Algorithm)
	// Output: RS256
}
