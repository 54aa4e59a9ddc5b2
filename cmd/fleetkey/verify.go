package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
)

// verifyCmd checks a token as a server would, and says more about a rejection than a server
// may.
type verifyCmd struct {
	Token      string `arg:"" help:"The token, or - to read it from standard input, where other users cannot see it in the process list."`
	storeFlags        // optional
	policyFlags
	Issuer       string   `placeholder:"URL" help:"The issuer, whose published keys are used if no store is given. With a store: Config.Issuer of the servers; default: the issuer is not checked."`
	Audience     []string `sep:"none" placeholder:"NAME" help:"Config.Audience of the servers; default: the audience is not checked."`
	JWKSURL      string   `name:"jwks-url" placeholder:"URL" help:"Without a store: address of the issuer's keys, if its discovery document does not give it."`
	Legacy       bool     `help:"Without a store: the issuer does not follow RFC 9068, such as Keycloak, Entra ID, Cognito and Okta."`
	InsecureHTTP bool     `name:"insecure-http" help:"Without a store: allow http addresses other than loopback."`
	Former       []string `type:"existingfile" predictor:"file" sep:"none" placeholder:"PATH" help:"A certificate of Config.Former of the servers; may be repeated."`
	FormerIssuer string   `placeholder:"URL" help:"Former.Issuer of these certificates, if it is not --issuer."`
}

// A tokenCheck is a check of Verify and its error.
type tokenCheck struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	failed error
}

// checks are in the order of Verify: all checks before a failed one have succeeded.
var checks = []tokenCheck{
	{"form", "ok", fleetkey.ErrMalformed},
	{"key", "ok", fleetkey.ErrUnknownKey},
	{"type", "ok", fleetkey.ErrWrongType},
	{"algorithm", "ok", fleetkey.ErrWrongAlgorithm},
	{"signature", "ok", fleetkey.ErrBadSignature},
	{"claims present", "ok", fleetkey.ErrMissingClaim},
	{"not expired", "ok", fleetkey.ErrExpired},
	{"begun", "ok", fleetkey.ErrNotYetValid},
	{"issuer", "ok", fleetkey.ErrWrongIssuer},
	{"audience", "ok", fleetkey.ErrWrongAudience},
}

func (c *verifyCmd) Run(a *app) error {
	hasStore := c.File+c.Secret+c.Settings != ""
	switch {
	case !hasStore && c.Issuer == "":
		return usageError("no keys: give --file, --secret or --settings for a store, or --issuer for an issuer's published keys")
	case hasStore && (c.JWKSURL != "" || c.Legacy || c.InsecureHTTP):
		return usageError("--jwks-url, --legacy and --insecure-http require --issuer without a store")
	case !hasStore && (len(c.Former) > 0 || c.FormerIssuer != "" || c.Region != ""):
		return usageError("--former, --former-issuer and --region require a store")
	case !hasStore && c.Config == "" && c.Every+c.Announce+c.Retain+c.Refresh+c.MaxAge != 0: // a file may say more than is needed
		return usageError("--rotate-every, --announce, --retain, --refresh-every and --jwks-max-age require a store")
	}
	token, err := c.read(a)
	if err != nil {
		return err
	}
	if hasStore {
		return c.byStore(a, token)
	}
	return c.byIssuer(a, token)
}

// byStore checks a token as a server of the fleet would.
func (c *verifyCmd) byStore(a *app, token string) error {
	l, err := c.load(a, false)
	if err != nil {
		return err
	}
	said := peek(token)
	cfg := c.config(a)
	former, err := readCertificates(a, c.Former...)
	if err != nil {
		return err
	}
	for _, cert := range former {
		cfg.Former = append(cfg.Former, fleetkey.Former{Certificate: cert, Issuer: c.FormerIssuer})
	}
	cfg.Issuer, cfg.Audience = c.Issuer, c.Audience
	if c.Issuer == "" {
		cfg.Issuer = said.Issuer
	}
	if len(c.Audience) == 0 {
		cfg.Audience = said.Audience
	}
	signer, err := fleetkey.NewSigner(a.ctx, l, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = signer.Close() }()
	verified, failure := signer.Verify(a.ctx, token)
	why := ""
	if errors.Is(failure, fleetkey.ErrUnknownKey) || errors.Is(failure, fleetkey.ErrBadSignature) {
		why = whyUnknown(l.set, signer.Status(), said)
	}
	return c.print(a, l.name, verified, failure, why)
}

// byIssuer checks a token as a service would that only has the issuer's address.
func (c *verifyCmd) byIssuer(a *app, token string) error {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	cfg := fleetkey.VerifierConfig{
		Issuer: c.Issuer, JWKSURL: c.JWKSURL, Audience: c.Audience, Legacy: c.Legacy, InsecureHTTP: c.InsecureHTTP,
		MaxTokenTTL: time.Duration(c.MaxTokenTTL), ClockSkew: time.Duration(c.Skew), Logger: a.log,
	}
	if len(cfg.Audience) == 0 {
		cfg.Audience = peek(token).Audience
	}
	if len(cfg.Audience) == 0 { // invalid, except in a token of Cognito
		cfg.Audience = []string{cmp.Or(peek(token).ClientID, c.Issuer)}
	}
	verifier, err := fleetkey.NewVerifier(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = verifier.Close() }()
	if err := verifier.Status().LoadErr; err != nil {
		return err
	}
	verified, failure := verifier.Verify(ctx, token)
	if errors.Is(failure, fleetkey.ErrUnavailable) {
		return failure
	}
	why := ""
	switch {
	case errors.Is(failure, fleetkey.ErrUnknownKey):
		why = published(verifier.Status())
	case errors.Is(failure, fleetkey.ErrWrongType) && !c.Legacy:
		why = "If the issuer does not follow RFC 9068 (such as Keycloak, Entra ID, Cognito and Okta), give --legacy."
	}
	return c.print(a, "issuer "+oneLine(c.Issuer), verified, failure, why)
}

// published returns which keys an issuer publishes.
func published(s fleetkey.Status) string {
	kids := make([]string, len(s.Keys))
	for i, k := range s.Keys {
		kids[i] = k.KeyID
	}
	text := fmt.Sprintf("The usable keys that the issuer publishes are %q.", kids)
	for _, reason := range slices.Sorted(maps.Keys(s.SkippedKeys)) {
		text += fmt.Sprintf(" Skipped (%s): %d.", reason, s.SkippedKeys[reason])
	}
	return text
}

func (c *verifyCmd) read(a *app) (string, error) {
	token := c.Token
	if token == "-" {
		text, err := a.readInput("-", fleetkey.MaxTokenSize+100)
		if err != nil {
			return "", err
		}
		token = string(text)
	}
	token = strings.TrimSpace(token)
	return strings.TrimPrefix(strings.TrimPrefix(token, "Authorization: "), "Bearer "), nil
}

// verdictJSON is the result of the checks of a token.
type verdictJSON struct {
	Against   string       `json:"against"`
	Valid     bool         `json:"valid"`
	Checks    []tokenCheck `json:"checks"`
	Error     string       `json:"error,omitempty"`
	Why       string       `json:"why,omitempty"`
	KeyID     string       `json:"kid,omitempty"`
	Subject   string       `json:"sub,omitempty"`
	ClientID  string       `json:"client_id,omitempty"`
	Scope     string       `json:"scope,omitempty"`
	ExpiresAt time.Time    `json:"expires_at,omitzero"`
}

// print lists the checks, and returns errWrong if one has failed. Invalid claims in general
// have no separate line: some are found before the times are checked, some after.
func (c *verifyCmd) print(a *app, against string, token *fleetkey.Token, failure error, why string) error {
	v := verdictJSON{Against: against, Valid: failure == nil, Checks: slices.Clone(checks), Why: why}
	failed, how := len(checks), "FAILED"
	if failure != nil {
		v.Error = trimPrefix(failure)
		failed = slices.IndexFunc(checks, func(c tokenCheck) bool { return errors.Is(failure, c.failed) })
	} else {
		v.KeyID, v.Subject, v.ClientID, v.Scope, v.ExpiresAt = token.KeyID(), token.Subject(), token.ClientID(), token.Scope(), token.ExpiresAt().UTC()
	}
	if failed < 0 {
		failed = slices.IndexFunc(checks, func(c tokenCheck) bool { return c.Name == "claims present" })
		how = "FAILED (the claims)"
	}
	for i := range v.Checks {
		switch name := v.Checks[i].Name; {
		case i == failed:
			v.Checks[i].Result = how
		case i > failed:
			v.Checks[i].Result = "not reached"
		case name == "issuer" && c.Issuer == "", name == "audience" && len(c.Audience) == 0:
			v.Checks[i].Result = "not checked (give --" + name + ")"
		}
	}
	err := a.show(v, func() {
		a.printf("against %s\n", against)
		for _, check := range v.Checks {
			a.printf("%-16s %s\n", check.Name, check.Result)
		}
		if v.Valid {
			a.printf("\nVALID until %s: subject %q, client %q, scope %q, key %s\n", stamp(v.ExpiresAt), v.Subject, v.ClientID, v.Scope, oneLine(v.KeyID))
		} else {
			a.printf("\nNOT VALID: %s\n", v.Error)
		}
		if why != "" {
			a.printf("%s\n", why)
		}
	})
	if err == nil && !v.Valid {
		return errWrong
	}
	return err
}

// A claimed is what a token says about itself, unverified.
type claimed struct {
	keyID    string
	ClientID string `json:"client_id"`
	jwt.RegisteredClaims
}

// peek reads what it can; Verify reports the errors.
func peek(token string) (c claimed) {
	if parsed, _, _ := jwt.NewParser().ParseUnverified(token, &c); parsed != nil {
		c.keyID, _ = parsed.Header["kid"].(string)
	}
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || strings.ContainsAny(c.Issuer, "?#") {
		c.Issuer = noIssuer
	}
	if slices.Contains(c.Audience, "") {
		c.Audience = nil
	}
	return c
}
