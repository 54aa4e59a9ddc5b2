package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// This file opens and reads the store given on the command line. Only init, import and copy
// can create its content.

// storeFlags select a store. Their help is for a source; copy changes it for its target.
type storeFlags struct {
	File     string `placeholder:"PATH" type:"path" xor:"store" required:"" predictor:"file" help:"${of} this file."`
	Secret   string `placeholder:"NAME" xor:"store" required:"" help:"${of} this secret of AWS Secrets Manager: a name or an ARN."`
	Settings string `placeholder:"PATH" type:"path" xor:"store" required:"" predictor:"file" help:"${of} the one in this appsettings.json."`
	Region   string `help:"AWS region of the secret; default: that of the ARN, the environment or the instance."`
}

// variable returns the environment variable of a flag, or "".
func variable(flag *kong.Flag) string {
	if slices.Contains(flag.Xor, "store") {
		return "FLEETKEY_" + strings.ToUpper(flag.Name)
	}
	return ""
}

// fromEnvironment sets a flag from its variable. It does not use kong's env tag, with which
// FLEETKEY_FILE would contradict --secret. The command line takes precedence, and so does
// the issuer given to verify instead of a store.
func fromEnvironment(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value := os.Getenv(variable(flag))
	if value == "" {
		return nil, nil
	}
	for _, given := range ctx.Path {
		if given.Flag != nil && (variable(given.Flag) != "" || given.Flag.Name == "issuer" && ctx.Selected().Name == "verify") {
			return nil, nil
		}
	}
	for _, other := range ctx.Selected().Flags {
		if other != flag && os.Getenv(variable(other)) != "" {
			return nil, fmt.Errorf("%s and %s are both set: unset one of them, or use a flag", variable(flag), variable(other))
		}
	}
	return value, nil
}

// newSecretFlags are for commands that may create a secret.
type newSecretFlags struct {
	KMSKey string `name:"kms-key" placeholder:"KEY" help:"Customer managed KMS key (ID, ARN or alias) for a new secret; default: aws/secretsmanager."`
}

// open opens the store, which need not exist.
func (f storeFlags) open(ctx context.Context, create newSecretFlags) (fleetkey.KeyStore, error) {
	if f.Secret == "" && (f.Region != "" || create.KMSKey != "") {
		return nil, usageError("--region and --kms-key require --secret")
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

// name returns the name of a store, such as "file /var/lib/app/keys.pem".
func name(store fleetkey.KeyStore) string { return oneLine(fmt.Sprint(store)) }

// A loaded store is the content of a store when it was read. It is read-only, so that a
// Signer cannot change it.
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

// load opens and reads a store that must contain keys. If nothing will be written, any file
// mode is accepted, since the file may be a mounted secret.
func (f storeFlags) load(a *app, write bool) (*loaded, error) {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	store, err := f.open(ctx, newSecretFlags{})
	if err != nil {
		return nil, err
	}
	if file, ok := store.(*fleetkey.FileStore); ok && !write {
		store = fleetkey.NewFileStore(strings.TrimPrefix(file.String(), "file "), func(o *fleetkey.FileOptions) { o.ReadOnly = true })
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

// oneLine escapes characters that could fool a terminal or begin a line: errors and names
// may quote foreign text.
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

// trimPrefix returns the text of an error in one line, without the prefix of the library,
// which is also the program's.
func trimPrefix(err error) string { return oneLine(strings.TrimPrefix(err.Error(), "fleetkey: ")) }
