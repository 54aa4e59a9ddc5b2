package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/fleetkey/fleetkey"
)

// This file opens the library's Signer on a store, with the servers' policy.

// maxConfig is the maximum size of a --config file, in bytes.
const maxConfig = 4 << 10

// noIssuer is the issuer when no token is issued or checked.
const noIssuer = "https://issuer.invalid"

// policyFlags are the fields of the servers' fleetkey.Config that determine when a key
// signs and how long it is trusted. Their defaults are the library's.
type policyFlags struct {
	Config      configFile `type:"path" predictor:"file" placeholder:"PATH" help:"JSON file with the servers' times, with the names of the flags below: {\"max-token-ttl\": \"2h\"}."`
	Every       days       `name:"rotate-every" group:"policy" placeholder:"TIME" help:"Rotation.Every, such as 90d; default: rotation is off."`
	Announce    days       `group:"policy" placeholder:"TIME" help:"Rotation.Announce; default: 24h."`
	Retain      days       `group:"policy" placeholder:"TIME" help:"Rotation.Retain; default: 24h, or more if --max-token-ttl requires it."`
	MaxTokenTTL days       `name:"max-token-ttl" group:"policy" placeholder:"TIME" help:"MaxTokenTTL; default: 1h."`
	Refresh     days       `name:"refresh-every" group:"policy" placeholder:"TIME" help:"RefreshEvery; default: 5m."`
	MaxAge      days       `name:"jwks-max-age" group:"policy" placeholder:"TIME" help:"JWKSMaxAge; default: 15m."`
	Skew        days       `name:"clock-skew" group:"policy" placeholder:"TIME" help:"ClockSkew; default: 1m."`
}

// configFile is a file with flags of the group policy. The command line takes precedence.
type configFile string

// BeforeResolve is called by kong.
func (configFile) BeforeResolve(a *app, ctx *kong.Context, trace *kong.Path) error {
	path, times := string(ctx.FlagValue(trace.Flag).(configFile)), map[string]string{}
	for _, flag := range ctx.Flags() { // kong has not set it yet
		if flag.Name == "timeout" {
			a.timeout = ctx.FlagValue(flag).(time.Duration)
		}
	}
	text, err := a.readInput(path, maxConfig)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	if err := json.Unmarshal(text, &times); err != nil {
		return fmt.Errorf("--config: %q is not a JSON object of strings, such as {\"announce\": \"7d\"}: %w", path, err)
	}
	for name := range times {
		if !slices.ContainsFunc(ctx.Selected().Flags, func(f *kong.Flag) bool { return f.Name == name && f.Group != nil && f.Group.Key == "policy" }) {
			return fmt.Errorf("--config: %q in %q is not one of the servers' times, such as \"max-token-ttl\"", name, path)
		}
	}
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if value, ok := times[flag.Name]; ok {
			return value, nil
		}
		return nil, nil
	}))
	return nil
}

// unlike returns how the bundle shows that the servers' times differ. Only longer
// announcements can be seen.
func (p policyFlags) unlike(s fleetkey.Status) (notes []string) {
	announce := cmp.Or(time.Duration(p.Announce), 24*time.Hour)
	for _, k := range s.Keys {
		if ahead := k.NotBefore.Sub(s.Time); ahead > announce+time.Minute {
			notes = append(notes, fmt.Sprintf("key %s begins to sign only in %s, but --announce is %s: if the servers' Rotation.Announce is longer, set --announce to it", k.KeyID, ahead.Round(time.Minute), announce))
		}
	}
	return notes
}

func (p policyFlags) config(a *app) fleetkey.Config {
	return fleetkey.Config{
		Issuer: noIssuer, Logger: a.log, MaxTokenTTL: time.Duration(p.MaxTokenTTL), ClockSkew: time.Duration(p.Skew),
		RefreshEvery: time.Duration(p.Refresh), JWKSMaxAge: time.Duration(p.MaxAge),
		Rotation: fleetkey.Rotation{Every: time.Duration(p.Every), Announce: time.Duration(p.Announce), Retain: time.Duration(p.Retain)},
	}
}

// days is a duration that can be given in days, such as 90d.
type days time.Duration

// UnmarshalText is called by kong.
func (d *days) UnmarshalText(text []byte) error {
	if n, ok := strings.CutSuffix(string(text), "d"); ok {
		if whole, err := strconv.Atoi(n); err == nil && whole >= 0 && whole <= 3650 {
			*d = days(time.Duration(whole) * 24 * time.Hour)
			return nil
		}
	}
	parsed, err := time.ParseDuration(string(text))
	*d = days(parsed)
	return err
}

// keyFlags are the properties of a new key.
type keyFlags struct {
	Algorithm  string `enum:",RS256,PS256,ES256,ES384,EdDSA" default:"" placeholder:"ALG" help:"RS256, PS256, ES256, ES384 or EdDSA; default: that of the current signing key; RS256 for a first key."`
	CommonName string `placeholder:"NAME" help:"Subject of a new certificate; default: that of the current signing key."`
}

// change opens a Signer that writes to the store from which l was read. It never creates a
// store. A new key gets the common name of its predecessor unless the flags set one.
func (a *app) change(l *loaded, f storeFlags, cfg fleetkey.Config, k keyFlags, do func(context.Context, *fleetkey.Signer) error) error {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	store, err := f.open(ctx, newSecretFlags{})
	if err != nil {
		return err
	}
	cfg.MustExist, cfg.Algorithm, cfg.CommonName = true, k.Algorithm, cmp.Or(k.CommonName, "fleetkey")
	if now, _ := l.set.Signing(time.Now()); now != nil && k.CommonName == "" {
		if subject := now.Cert.Subject.CommonName; len(subject) <= 64 && utf8.ValidString(subject) {
			cfg.CommonName = cmp.Or(subject, cfg.CommonName)
		}
	}
	signer, err := fleetkey.NewSigner(ctx, store, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = signer.Close() }()
	return do(ctx, signer)
}
