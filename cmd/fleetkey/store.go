package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// This file finds the store that the command line names, and reads it. Only
// init, import and copy can ever create what is in it.

// storeFlags name one store.
type storeFlags struct {
	File     string `placeholder:"PATH" type:"path" xor:"store" required:"" predictor:"file" help:"The keys are in this file."`
	Secret   string `placeholder:"NAME" xor:"store" required:"" help:"The keys are in this secret of AWS Secrets Manager: a name or an ARN."`
	Settings string `placeholder:"PATH" type:"path" xor:"store" required:"" predictor:"file" help:"The keys are where this appsettings.json says."`
	Region   string `help:"AWS region of the secret, if the ARN, the environment or the instance do not tell."`
}

// newSecretFlags are for commands that may create a secret.
type newSecretFlags struct {
	KMSKey string `name:"kms-key" placeholder:"KEY" help:"Customer managed KMS key (id, ARN or alias) for a new secret; default: aws/secretsmanager."`
}

// open opens the store, which need not exist.
func (f storeFlags) open(ctx context.Context, create newSecretFlags) (fleetkey.KeyStore, error) {
	if f.Secret == "" && (f.Region != "" || create.KMSKey != "") {
		return nil, usageError("--region and --kms-key go with --secret")
	}
	switch {
	case f.File != "":
		return fleetkey.NewFileStore(f.File), nil
	case f.Settings != "":
		return fleetkey.OpenStore(ctx, f.Settings)
	}
	store, err := fleetkey.NewAWSStore(ctx, f.Secret, func(o *fleetkey.AWSOptions) {
		o.Region, o.KMSKeyID = f.Region, create.KMSKey
	})
	if err != nil { // a nil *AWSStore in the interface would not be nil
		return nil, err
	}
	return store, nil
}

// name returns what a store calls itself, such as "file /var/lib/app/keys.pem".
func name(store fleetkey.KeyStore) string {
	if s, ok := store.(fmt.Stringer); ok {
		return oneLine(s.String())
	}
	return fmt.Sprintf("%T", store)
}

// A loaded store is what a store held when it was read. Nothing can be written
// to it, so that a Signer on it looks and does not touch.
type loaded struct {
	name    string
	bundle  []byte
	version fleetkey.Version
	set     *keyset.Set
}

func (l *loaded) String() string { return l.name }

func (l *loaded) Load(context.Context) ([]byte, fleetkey.Version, error) {
	return bytes.Clone(l.bundle), l.version, nil
}

func (l *loaded) Save(context.Context, []byte, fleetkey.Version) (fleetkey.Version, error) {
	return "", errors.New("this command changes nothing")
}

// load opens and reads a store that must hold keys.
func (f storeFlags) load(a *app) (*loaded, error) {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	store, err := f.open(ctx, newSecretFlags{})
	if err != nil {
		return nil, err
	}
	return read(ctx, store)
}

func read(ctx context.Context, store fleetkey.KeyStore) (*loaded, error) {
	bundle, version, err := store.Load(ctx)
	if errors.Is(err, fleetkey.ErrNotExist) {
		err = fmt.Errorf("%w (fleetkey init or fleetkey import creates the first key)", err)
	}
	if err != nil {
		return nil, err
	}
	return newLoaded(store, bundle, version)
}

func newLoaded(store fleetkey.KeyStore, bundle []byte, version fleetkey.Version) (*loaded, error) {
	set, err := keyset.Parse(bundle)
	if err != nil {
		return nil, fmt.Errorf("version %s in %s is not a key bundle: %w", version, name(store), err)
	}
	return &loaded{name(store), bundle, version, set}, nil
}

// oneLine escapes what could fool a terminal or begin a line: errors and names may quote
// what others have written.
func oneLine(text string) string {
	var out strings.Builder
	for _, r := range text {
		switch {
		case r == '\n':
			out.WriteString("; ")
		case !unicode.IsPrint(r):
			out.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// trimPrefix returns an error's text in one line, without the library's own prefix, which
// is the program's too.
func trimPrefix(err error) string { return oneLine(strings.TrimPrefix(err.Error(), "fleetkey: ")) }
