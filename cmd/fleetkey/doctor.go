package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
)

// doctorCmd checks everything that a server needs from its store. It changes nothing.
type doctorCmd struct {
	storeFlags
	Rotation bool `xor:"write" help:"The servers rotate keys, so they require write permission."`
	ReadOnly bool `xor:"write" help:"The servers read a mounted file (FileOptions.ReadOnly), so they require no write permission."`
}

// A verdict is the result of a check.
type verdict string

const (
	fine    verdict = "ok"
	minor   verdict = "note"
	wrong   verdict = "WRONG"
	skipped verdict = "skip"
)

// testKeys are the keys of package fleetkeytest, whose private keys are public.
var testKeys = []string{
	"FuRXvfQv9bRY63nzA_QNpQ_EW_muRk8LOvBVufucIkY", // ES256
	"r46iKKtkYnPyaXfCKoKBUuqSJICDsRKHz6ml6evmCtA", // ES384
	"MDhdJ-4jMd7dZJX6ks7DG9qWqtuy9Whk1PUy7G1250o", // EdDSA
	"Jo8H1r59_pkinxTecOSOwRENAm9i4i48EK7swrx15KM", // PS256
	"9V3ncWM4c_n3dtpEeo9yj8JNLaxYFxB6ldIQWuxerUE", // RS256
}

// maxSkew is the library's default Config.ClockSkew.
const maxSkew = time.Minute

// An examination collects findings and prints them as they come.
type examination struct {
	a        *app
	store    string // the flags that select the store, for commands
	rotation bool
	readOnly bool
	sick     bool
	findings []findingJSON // for --json
}

type findingJSON struct {
	Verdict verdict `json:"verdict"`
	Check   string  `json:"check"`
	Detail  string  `json:"detail"`
	Fix     string  `json:"fix,omitempty"`
}

// found prints a finding. fix is the command that fixes it, or "".
func (x *examination) found(v verdict, check, detail, fix string) {
	x.sick = x.sick || v == wrong
	if x.a.json {
		x.findings = append(x.findings, findingJSON{v, check, oneLine(detail), fix})
		return
	}
	x.a.printf("%-6s%-42s%s\n", v, check, oneLine(detail))
	if fix != "" && v != fine {
		x.a.printf("%-48srun: %s\n", "", oneLine(fix))
	}
}

func (c *doctorCmd) Run(a *app) error {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	x := &examination{a: a, store: c.args(), rotation: c.Rotation, readOnly: c.ReadOnly}
	defer func() {
		if len(x.findings) > 0 {
			a.lost = a.printJSON(x.findings)
		}
	}()
	store, err := c.open(ctx, newSecretFlags{})
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return err
	case err != nil:
		x.found(wrong, "store", trimPrefix(err), "")
		return errWrong
	}
	x.found(fine, "store", name(store), "")
	switch s := store.(type) {
	case *fleetkey.AWSStore:
		if c.ReadOnly {
			return usageError("--read-only requires a file")
		}
		err = x.aws(ctx, s)
	case *fleetkey.FileStore:
		x.file(ctx, s)
	}
	if err == nil && x.sick {
		return errWrong
	}
	return err
}

// args returns the flags that select the store, quoted for a shell.
func (f storeFlags) args() string {
	var args []string
	for _, flag := range []struct{ name, value string }{
		{"file", f.File}, {"secret", f.Secret}, {"settings", f.Settings}, {"region", f.Region},
	} {
		if flag.value != "" {
			args = append(args, "--"+flag.name+" "+quote(flag.value))
		}
	}
	return strings.Join(args, " ")
}

// quote quotes a word for a shell if necessary.
func quote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_+=.@:-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// absent reports that there are no keys yet.
func (x *examination) absent(check string) {
	x.found(minor, check, "there are no keys yet; the first server, or init, creates them", "fleetkey init "+x.store+" --issuer https://YOUR-ISSUER")
}

// keys examines the bundle as a server would.
func (x *examination) keys(store fleetkey.KeyStore, bundle []byte, version fleetkey.Version) {
	var status fleetkey.Status
	l, err := newLoaded(store, bundle, version)
	if err == nil {
		status, err = l.status(x.a, policyFlags{}.config(x.a))
	}
	if err != nil {
		x.found(wrong, "keys", trimPrefix(err), "")
		return
	}
	for _, k := range status.Keys {
		if k.Role != fleetkey.RoleRevoked && k.Role != fleetkey.RoleGone && slices.Contains(testKeys, k.KeyID) {
			x.found(wrong, "keys", k.KeyID+" is a published test key (fleetkeytest): anyone can sign with it", "fleetkey revoke "+k.KeyID+" "+x.store)
		}
	}
	if status.Err != nil {
		x.found(wrong, "keys", trimPrefix(status.Err), "fleetkey rotate "+x.store)
		return
	}
	x.found(fine, "keys", fmt.Sprintf("%s; %s signs since %s", count(l.set), status.SigningKeyID, stamp(status.SigningSince)), "")
	for _, w := range status.Warnings() {
		if slices.Contains(pressing(status), w) {
			x.found(wrong, "keys", w, "fleetkey rotate "+x.store)
		} else {
			x.found(minor, "keys", w, "")
		}
	}
}

// cannotWrite reports that servers cannot write, which is a problem if they rotate.
func (x *examination) cannotWrite(check, why, fix string) {
	if x.rotation {
		x.found(wrong, check, why+" (no server can rotate the key)", fix)
	} else {
		x.found(minor, check, why+"; harmless while rotation is off", fix)
	}
}

// clock compares this machine's clock with another.
func (x *examination) clock(whose string, ahead time.Duration) {
	off, direction := ahead.Abs(), "behind"
	if ahead > 0 {
		direction = "ahead of"
	}
	if off <= maxSkew {
		x.found(fine, "clock", "within a minute of "+whose, "")
		return
	}
	x.found(wrong, "clock", fmt.Sprintf("this machine is %s %s %s; at most %s is tolerated", off.Round(time.Second), direction, whose, maxSkew), setClock)
}
