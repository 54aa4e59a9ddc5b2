package fleetkey

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// A KeyStore keeps one bundle of keys where every instance of a fleet can reach it. It
// treats the bundle as opaque bytes. Save is a compare-and-swap: it succeeds only if the
// store still holds the version it was given.
//
// fleetkey provides [FileStore] and [AWSStore]; a store on S3, etcd or a Kubernetes Secret
// takes about a page of code. An implementation must guarantee the following, which
// fleetkeytest.TestKeyStore checks:
//
//   - All methods are safe for concurrent use by goroutines and by processes.
//   - A bundle of up to 64 KiB is stored and returned whole and unchanged, or not at all,
//     even if a writer dies midway.
//   - Of any number of Saves of different bundles given the same prev, at most one
//     succeeds.
//   - A method returns soon after its context ends, with an error that matches the
//     context's.
//   - An error names the operation and the store. It never contains the bundle, which holds
//     private keys.
//
// A read-only store may also have a method ReadOnly() bool. While it returns true, a
// [Signer] never calls Save, and [Signer.Rotate], [Signer.Revoke] and [Signer.RevokeAll]
// return [ErrReadOnly]: the keys are rotated and revoked elsewhere.
type KeyStore interface {
	// Load returns the current bundle and its version, which is never zero. The caller owns
	// the slice. Equal versions mean equal content; the version changes whenever the
	// content does.
	//
	// If nothing was ever saved, the error matches [ErrNotExist]. A [Signer] then creates a
	// first key, so no other failure (timeout, refusal, corruption) may match it. A store
	// that cannot tell a missing bundle from a refusal returns [ErrAccessDenied].
	Load(ctx context.Context) (bundle []byte, v Version, err error)

	// Save stores a bundle if the store still holds version prev, and returns the new
	// version. A zero prev means that the store must be empty. If the store holds another
	// version, or is empty although prev is not zero, Save changes nothing and the error
	// matches [ErrConflict].
	//
	// After any other error the bundle may or may not have been stored; the caller calls
	// Load to find out.
	Save(ctx context.Context, bundle []byte, prev Version) (Version, error)
}

// A Version identifies the content of a [KeyStore]. It is opaque: it can only be compared
// for equality and passed back to its store. The zero Version means that nothing is saved
// yet.
type Version string

// MaxBundleSize is the largest bundle, in bytes, that a [KeyStore] must accept and a
// [Signer] reads. It is the limit of AWS Secrets Manager, and enough for more than twenty
// RSA-2048 keys.
const MaxBundleSize = keyset.MaxBundleSize

// Errors of a [KeyStore], for use with [errors.Is].
var (
	// ErrNotExist means that the store is empty. It matches [fs.ErrNotExist].
	ErrNotExist = fmt.Errorf("no key bundle exists: %w", fs.ErrNotExist)

	// ErrConflict means that another writer has saved first.
	ErrConflict = errors.New("another writer saved first")

	// ErrUnavailable means that the store, or the issuer whose keys a [Verifier] fetches,
	// cannot be reached or is overloaded, and that the same call may succeed later.
	// [NewSigner] retries until its context ends; it returns any other error at once.
	ErrUnavailable = errors.New("the keys are unavailable")

	// ErrAccessDenied means that the store denies access. It matches [fs.ErrPermission]. It
	// can hide a missing bundle, because AWS evaluates IAM policies before it looks for the
	// secret. If the first Load returns it, [NewSigner] therefore tries once to create a
	// bundle, which cannot overwrite anything. FileStore never returns it, because it knows
	// that a file exists even if it is not allowed to read it.
	ErrAccessDenied = fmt.Errorf("the store denies access: %w", fs.ErrPermission)

	// ErrReadOnly means that the store is never written: its ReadOnly method returns true.
	ErrReadOnly = errors.New("the store is read-only")
)

// isReadOnly reports whether this process never writes to a store.
func isReadOnly(store KeyStore) bool {
	s, ok := store.(interface{ ReadOnly() bool })
	return ok && s.ReadOnly()
}

// storeName returns the name of a store for errors and logs.
func storeName(store KeyStore) string {
	if named, ok := store.(fmt.Stringer); ok {
		return named.String()
	}
	return fmt.Sprintf("%T", store)
}
