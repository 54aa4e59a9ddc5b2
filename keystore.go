package fleetkey

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// A KeyStore keeps one bundle of keys in a place that every instance of a
// fleet can reach. It knows bytes and versions and nothing of keys, and it is a
// compare-and-swap cell: a Save takes effect only if nobody has saved since the
// version it was given.
//
// fleetkey brings [FileStore] and [AWSStore]; S3, etcd or a Kubernetes Secret
// are a page of code each. An implementation has to keep these promises, and
// fleetkeytest.TestKeyStore checks them:
//
//   - All methods may be called at the same time, from many goroutines and from
//     many processes.
//   - A bundle is stored and returned whole and unchanged, or not at all, also
//     when a writer dies half-way. It may be up to 64 KiB long.
//   - Of any number of Saves given the same prev, at most one succeeds.
//   - A method returns soon after its context ends, with an error that matches
//     the context's.
//   - An error names the operation and the store; it never holds the bundle,
//     which contains private keys.
//
// A store that something else fills may also have a method ReadOnly() bool. While it
// returns true, a [Signer] never calls Save: others rotate and revoke the keys, and
// [Signer.Rotate], [Signer.Revoke] and [Signer.RevokeAll] return [ErrReadOnly].
type KeyStore interface {
	// Load returns the present bundle and its version, which is never zero.
	// The caller owns the slice. The version changes whenever the content
	// does; an equal version means equal content.
	//
	// If the store knows that nothing was ever saved, the error matches
	// [ErrNotExist]. That answer makes a [Signer] create a first key, so no
	// other failure (time-out, refusal, damage) may match it. A store that
	// hides absence behind a refusal returns [ErrAccessDenied].
	Load(ctx context.Context) (bundle []byte, v Version, err error)

	// Save stores a bundle if the store still holds version prev, and returns
	// the new version. The zero prev means "must not exist yet". If the store
	// holds another version, or none when prev is not zero, Save changes
	// nothing and the error matches [ErrConflict].
	//
	// After any other error the bundle may or may not have been stored; the
	// caller finds out by Load.
	Save(ctx context.Context, bundle []byte, prev Version) (Version, error)
}

// A Version identifies one content of a [KeyStore]. It is opaque: it can be
// compared for equality and given back to the store that issued it. The zero
// Version stands for "nothing saved yet".
type Version string

// MaxBundleSize is the largest bundle, in bytes, that a [KeyStore] has to take
// and that a [Signer] reads. It is the limit of an AWS Secrets Manager value,
// and room for more than twenty RSA-2048 keys.
const MaxBundleSize = keyset.MaxBundleSize

// Errors of a [KeyStore], to be matched with [errors.Is].
var (
	// ErrNotExist says that the store holds nothing yet. It matches
	// [fs.ErrNotExist].
	ErrNotExist = fmt.Errorf("no key bundle exists: %w", fs.ErrNotExist)

	// ErrConflict says that someone else has saved first.
	ErrConflict = errors.New("another writer saved first")

	// ErrUnavailable says that the store, or the issuer whose keys a [Verifier]
	// fetches, cannot be reached or is overloaded just now, and that the same call may
	// succeed later. [NewSigner] tries again until its context ends; after any other
	// error it gives up at once.
	ErrUnavailable = errors.New("the keys are unavailable")

	// ErrAccessDenied says that the store refuses the caller. It matches
	// [fs.ErrPermission]. On the very first Load it may hide an absent bundle
	// (AWS evaluates IAM policies before it looks for the secret), so
	// [NewSigner] then tries once to create one, which cannot overwrite
	// anything. FileStore never returns it: an unreadable file exists.
	ErrAccessDenied = fmt.Errorf("the store denies access: %w", fs.ErrPermission)

	// ErrReadOnly says that the store never writes: its ReadOnly method returns true.
	ErrReadOnly = errors.New("the store is read-only")
)

// isReadOnly reports whether others fill a store, and this process never writes to it.
func isReadOnly(store KeyStore) bool {
	s, ok := store.(interface{ ReadOnly() bool })
	return ok && s.ReadOnly()
}

// storeName is how a store names itself in errors and logs.
func storeName(store KeyStore) string {
	if named, ok := store.(fmt.Stringer); ok {
		return named.String()
	}
	return fmt.Sprintf("%T", store)
}
