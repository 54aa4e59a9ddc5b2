package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

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
	Config      string `json:"-" type:"path" predictor:"file" placeholder:"PATH" help:"JSON file with the servers' times, with the names of the flags below: {\"max-token-ttl\": \"2h\"}."`
	Every       days   `json:"rotate-every" name:"rotate-every" group:"policy" placeholder:"TIME" help:"Rotation.Every, such as 90d; default: rotation is off."`
	Announce    days   `json:"announce" group:"policy" placeholder:"TIME" help:"Rotation.Announce; default: 24h."`
	Retain      days   `json:"retain" group:"policy" placeholder:"TIME" help:"Rotation.Retain; default: 24h, or more if --max-token-ttl requires it."`
	MaxTokenTTL days   `json:"max-token-ttl" name:"max-token-ttl" group:"policy" placeholder:"TIME" help:"MaxTokenTTL; default: 1h."`
	Refresh     days   `json:"refresh-every" name:"refresh-every" group:"policy" placeholder:"TIME" help:"RefreshEvery; default: 5m."`
	MaxAge      days   `json:"jwks-max-age" name:"jwks-max-age" group:"policy" placeholder:"TIME" help:"JWKSMaxAge; default: 15m."`
	Skew        days   `json:"clock-skew" name:"clock-skew" group:"policy" placeholder:"TIME" help:"ClockSkew; default: 1m."`
}

// AfterApply is called by kong. The command line takes precedence over the file.
func (p *policyFlags) AfterApply(a *app) error {
	if p.Config == "" {
		return nil
	}
	text, err := a.readInput(p.Config, maxConfig)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	var file policyFlags
	if err := json.Unmarshal(text, &file, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("--config: %q is not a JSON object of the servers' times, such as {\"announce\": \"7d\"}: %w", p.Config, err)
	}
	p.Every, p.Announce, p.Retain = cmp.Or(p.Every, file.Every), cmp.Or(p.Announce, file.Announce), cmp.Or(p.Retain, file.Retain)
	p.MaxTokenTTL, p.Refresh = cmp.Or(p.MaxTokenTTL, file.MaxTokenTTL), cmp.Or(p.Refresh, file.Refresh)
	p.MaxAge, p.Skew = cmp.Or(p.MaxAge, file.MaxAge), cmp.Or(p.Skew, file.Skew)
	return nil
}

// unlike returns notes if the bundle shows that the servers' times differ from p. It can only
// detect longer announcements.
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

// changeFlags are the flags of commands that change keys in use.
type changeFlags struct {
	storeFlags
	policyFlags
	Algorithm  string `enum:",RS256,PS256,ES256,ES384,EdDSA" default:"" placeholder:"ALG" help:"RS256, PS256, ES256, ES384 or EdDSA; default: that of the current signing key; RS256 for a first key."`
	CommonName string `placeholder:"NAME" help:"Subject of a new certificate; default: that of the current signing key."`
	consent
}

// change opens a Signer that writes to the store from which l was read. It never creates a
// store. A new key gets the common name of its predecessor unless the flags set one.
func (c changeFlags) change(a *app, l *loaded, do func(context.Context, *fleetkey.Signer) error) error {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	store, err := c.open(ctx, newSecretFlags{})
	if err != nil {
		return err
	}
	cfg := c.config(a)
	cfg.MustExist, cfg.Algorithm, cfg.CommonName = true, c.Algorithm, cmp.Or(c.CommonName, "fleetkey")
	if now, _ := l.set.Signing(time.Now()); now != nil && c.CommonName == "" {
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
