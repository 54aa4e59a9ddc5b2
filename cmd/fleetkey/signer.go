package main

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fleetkey/fleetkey"
)

// This file puts the library's Signer on a store, with the servers' policy.

// noIssuer stands where no token is issued or checked.
const noIssuer = "https://issuer.invalid"

// policyFlags are the parts of the servers' fleetkey.Config that decide when a
// key signs and until when it is trusted. Their defaults are the library's.
type policyFlags struct {
	Every       days `name:"rotate-every" placeholder:"TIME" help:"Config.Rotation.Every of the servers, such as 90d; default: rotation is off."`
	Announce    days `placeholder:"TIME" help:"Config.Rotation.Announce of the servers; default: 24h."`
	Retain      days `placeholder:"TIME" help:"Config.Rotation.Retain of the servers; default: 24h, or more if --max-token-ttl asks for it."`
	MaxTokenTTL days `name:"max-token-ttl" placeholder:"TIME" help:"Config.MaxTokenTTL of the servers; default: 1h."`
	Refresh     days `name:"refresh-every" placeholder:"TIME" help:"Config.RefreshEvery of the servers; default: 5m."`
	MaxAge      days `name:"jwks-max-age" placeholder:"TIME" help:"Config.JWKSMaxAge of the servers; default: 15m."`
	Skew        days `name:"clock-skew" placeholder:"TIME" help:"Config.ClockSkew of the servers; default: 1m."`
}

func (p policyFlags) config(a *app) fleetkey.Config {
	return fleetkey.Config{
		Issuer: noIssuer, Logger: a.log, MaxTokenTTL: time.Duration(p.MaxTokenTTL), ClockSkew: time.Duration(p.Skew),
		RefreshEvery: time.Duration(p.Refresh), JWKSMaxAge: time.Duration(p.MaxAge),
		Rotation: fleetkey.Rotation{Every: time.Duration(p.Every), Announce: time.Duration(p.Announce), Retain: time.Duration(p.Retain)},
	}
}

// days is a duration that may be given in days: 90d.
type days time.Duration

// UnmarshalText is how kong reads a flag.
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

// keyFlags choose what a new key is like.
type keyFlags struct {
	Algorithm  string `enum:",RS256,PS256,ES256,ES384,EdDSA" default:"" placeholder:"ALG" help:"RS256, PS256, ES256, ES384 or EdDSA; default: that of the key that signs now, and RS256 for a first key."`
	CommonName string `placeholder:"NAME" help:"Subject of a new certificate; default: that of the key that signs now."`
}

// change opens the Signer that writes to the store from which l was read. It never
// creates a store. A new key has the common name of its predecessor unless the flags say
// otherwise.
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
