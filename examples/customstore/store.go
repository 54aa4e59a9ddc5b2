// Package customstore keeps the keys of a fleet in a table of an SQL database. The statements
// work in SQLite and PostgreSQL. Other databases have another syntax for an INSERT that does
// nothing on a conflict.
package customstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

	"github.com/fleetkey/fleetkey"
)

// Schema creates the table. Only the servers of the fleet should be able to read it.
const Schema = `CREATE TABLE IF NOT EXISTS key_bundles (name TEXT PRIMARY KEY, version TEXT NOT NULL, bundle TEXT NOT NULL)`

// A Store is a fleetkey.KeyStore in one row of the table.
type Store struct {
	db   *sql.DB
	name string
}

// New returns the Store that uses the row of a name.
func New(db *sql.DB, name string) *Store { return &Store{db, name} }

// String names the store in errors and logs.
func (s *Store) String() string { return fmt.Sprintf("key bundle %q in the database", s.name) }

// Load returns the bundle. The error is fleetkey.ErrNotExist only if the database has no such
// row, because that error makes a server create the fleet's first key.
func (s *Store) Load(ctx context.Context) (bundle []byte, v fleetkey.Version, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT bundle, version FROM key_bundles WHERE name = $1`, s.name).Scan(&bundle, &v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, "", fmt.Errorf("load %s: %w", s, fleetkey.ErrNotExist)
	}
	if err != nil {
		return nil, "", s.unavailable("load", err)
	}
	return bundle, v, nil
}

// Save stores a bundle if the row still has the version prev. The database decides in one
// statement, so no transaction is needed.
func (s *Store) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	if len(bundle) > fleetkey.MaxBundleSize {
		return "", fmt.Errorf("save %s: %d bytes are over the limit of %d", s, len(bundle), fleetkey.MaxBundleSize)
	}
	next := rand.Text() // a counter would repeat itself after the row was deleted
	statement, args := `INSERT INTO key_bundles (name, version, bundle) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, []any{s.name, next, string(bundle)}
	if prev != "" {
		statement, args = `UPDATE key_bundles SET version = $2, bundle = $3 WHERE name = $1 AND version = $4`, append(args, string(prev))
	}
	result, err := s.db.ExecContext(ctx, statement, args...)
	if err != nil {
		return "", s.unavailable("save", err)
	}
	if changed, err := result.RowsAffected(); err != nil || changed == 0 {
		return "", errors.Join(err, fmt.Errorf("save %s: %w", s, fleetkey.ErrConflict))
	}
	return fleetkey.Version(next), nil
}

// unavailable wraps an error so that the server retries. A driver's own errors could say more.
func (s *Store) unavailable(operation string, err error) error {
	return fmt.Errorf("%s %s: %w: %w", operation, s, fleetkey.ErrUnavailable, err)
}
