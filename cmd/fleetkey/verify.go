package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
)

// verifyCmd checks a token as a server would, and says more about a refusal
// than a server may.
type verifyCmd struct {
	Token string `arg:"" help:"The token, or - to read it from standard input, which keeps it out of the list of processes."`
	storeFlags
	policyFlags
	Issuer       string   `placeholder:"URL" help:"Config.Issuer of the servers; without it the issuer is not checked."`
	Audience     []string `sep:"none" placeholder:"NAME" help:"Config.Audience of the servers; without it the audience is not checked."`
	Former       []string `type:"existingfile" predictor:"file" sep:"none" placeholder:"PATH" help:"A certificate of Config.Former of the servers; may be repeated."`
	FormerIssuer string   `placeholder:"URL" help:"Former.Issuer of these certificates, if it is not --issuer."`
}

type step struct {
	name   string
	failed error
}

// checks are what Verify looks at, in its order, each with the error that
// says that it failed. Every check before the one that failed has succeeded.
var checks = []step{
	{"form", fleetkey.ErrMalformed},
	{"key", fleetkey.ErrUnknownKey},
	{"type", fleetkey.ErrWrongType},
	{"algorithm", fleetkey.ErrWrongAlgorithm},
	{"signature", fleetkey.ErrBadSignature},
	{"claims present", fleetkey.ErrMissingClaim},
	{"not expired", fleetkey.ErrExpired},
	{"begun", fleetkey.ErrNotYetValid},
	{"issuer", fleetkey.ErrWrongIssuer},
	{"audience", fleetkey.ErrWrongAudience},
}

// Run is called by kong.
func (c *verifyCmd) Run(a *app) error {
	token, err := c.read(a)
	if err != nil {
		return err
	}
	l, err := c.load(a)
	if err != nil {
		return err
	}
	said := peek(token)
	cfg := c.config(a)
	former, err := readCertificates(c.Former...)
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
	a.printf("against %s\n", l.name)
	c.print(a, failure)
	if failure == nil {
		a.printf("\nVALID until %s: subject %q, client %q, scope %q, key %s\n", stamp(verified.ExpiresAt()), verified.Subject(),
			verified.ClientID(), verified.Scope(), verified.KeyID())
		return nil
	}
	a.printf("\nNOT VALID: %s\n", trimPrefix(failure))
	if errors.Is(failure, fleetkey.ErrUnknownKey) || errors.Is(failure, fleetkey.ErrBadSignature) {
		a.printf("%s\n", whyUnknown(l.set, signer.Status(), said))
	}
	return errWrong
}

func (c *verifyCmd) read(a *app) (string, error) {
	token := c.Token
	if token == "-" {
		text, err := io.ReadAll(io.LimitReader(a.stdin, fleetkey.MaxTokenSize+100))
		if err != nil {
			return "", fmt.Errorf("read the token from standard input: %w", err)
		}
		token = string(text)
	}
	token = strings.TrimSpace(token)
	return strings.TrimPrefix(strings.TrimPrefix(token, "Authorization: "), "Bearer "), nil
}

// print lists the checks. What Verify finds wrong with claims in general has no
// separate line: some of it comes before the times, some after.
func (c *verifyCmd) print(a *app, failure error) {
	failed, how := len(checks), "FAILED"
	if failure != nil {
		failed = slices.IndexFunc(checks, func(s step) bool { return errors.Is(failure, s.failed) })
	}
	if failed < 0 {
		failed, how = slices.Index(checks, step{"claims present", fleetkey.ErrMissingClaim}), "FAILED (the claims)"
	}
	for i, check := range checks {
		result := "ok"
		switch {
		case i == failed:
			result = how
		case i > failed:
			result = "not reached"
		case check.name == "issuer" && c.Issuer == "", check.name == "audience" && len(c.Audience) == 0:
			result = "not checked (give --" + check.name + ")"
		}
		a.printf("%-16s %s\n", check.name, result)
	}
}

// A claimed is what a token says of itself. Nothing of it is proved.
type claimed struct {
	keyID string
	jwt.RegisteredClaims
}

// peek reads what it can: Verify says what is wrong with the rest.
func peek(token string) (c claimed) {
	if parsed, _, _ := jwt.NewParser().ParseUnverified(token, &c.RegisteredClaims); parsed != nil {
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
