package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file is the demonstration: a client gets a token at one instance and
// uses it at the others, over HTTP as any client would. It prints what happened
// and stops at the first thing that is not as it should be.

// A demo is a client of the fleet that tells what it does.
type demo struct {
	out              io.Writer
	clientID, secret string
}

// run shows that all instances accept a token of one, and that none accepts a
// token of a server with another key, which it keeps in the file strangerKey.
func (d demo) run(ctx context.Context, f *fleet, strangerKey string) error {
	d.introduce(f)

	first := f.instances[0]
	token, err := d.token(ctx, first.url)
	if err != nil {
		return fmt.Errorf("instance %s: %w", first.name, err)
	}
	d.printf("\nInstance %s issues a token, signed with key %s.\n", first.name, first.kid())
	for _, i := range f.instances[1:] {
		if err := d.accepted(ctx, i.url, token, first.kid(), "instance"); err != nil {
			return fmt.Errorf("instance %s: %w", i.name, err)
		}
	}
	for range f.instances {
		if err := d.accepted(ctx, f.proxy.url, token, first.kid(), "through the proxy, instance"); err != nil {
			return fmt.Errorf("through the proxy: %w", err)
		}
	}
	return d.meetStranger(ctx, f, strangerKey)
}

func (d demo) introduce(f *fleet) {
	d.printf("%d OpenID servers share one signing key, in %s.\n", len(f.instances), f.instances[0].signer.Status().Store)
	d.printf("  proxy       %s\n", f.proxy.url)
	for _, i := range f.instances {
		d.printf("  instance %s  %s  key %s\n", i.name, i.url, i.kid())
	}
}

// meetStranger starts a server that is the same in everything but its store.
// That is how a fleet fails whose instances make keys of their own.
func (d demo) meetStranger(ctx context.Context, f *fleet, key string) (err error) {
	stranger, err := startInstance(ctx, "stranger", fleetkey.NewFileStore(key), f.issuer, f.clients)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stranger.close()) }()
	token, err := d.token(ctx, stranger.url)
	if err != nil {
		return fmt.Errorf("instance %s: %w", stranger.name, err)
	}
	d.printf("\nA server with a key of its own issues a token, signed with key %s.\n", stranger.kid())
	for _, i := range f.instances {
		a, err := d.hello(ctx, i.url, token)
		if err == nil && a.code != http.StatusUnauthorized {
			err = fmt.Errorf("answered a token of the stranger with status %d, not 401", a.code)
		}
		if err != nil {
			return fmt.Errorf("instance %s: %w", i.name, err)
		}
		d.printf("  instance %s refuses it: %d %s\n", a.instance, a.code, a.challenge)
	}
	return nil
}

// accepted calls the API with a token and requires that it is let in, and that
// the server knows the token by the same key.
func (d demo) accepted(ctx context.Context, base, token, kid, where string) error {
	a, err := d.hello(ctx, base, token)
	switch {
	case err != nil:
		return err
	case a.code != http.StatusOK:
		return fmt.Errorf("refused the token: %d %s", a.code, a.challenge)
	case a.KeyID != kid:
		return fmt.Errorf("verified the token with key %q, not %q", a.KeyID, kid)
	}
	d.printf("  %s %s accepts it: %d %s\n", where, a.instance, a.code, a.Message)
	return nil
}

// token asks a server for a token for its API.
func (d demo) token(ctx context.Context, base string) (string, error) {
	form := url.Values{"grant_type": {clientCredentials}, "scope": {scopeRead}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+tokenPath, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(d.clientID), url.QueryEscape(d.secret))
	var t tokenResponse
	code, _, err := do(req, &t)
	if err != nil {
		return "", err
	}
	if code != http.StatusOK || t.AccessToken == "" {
		return "", fmt.Errorf("the token endpoint answered with status %d", code)
	}
	return t.AccessToken, nil
}

// An answer is what the API said. A refusal has a challenge and no greeting.
type answer struct {
	greeting
	code      int
	instance  string // that answered
	challenge string
}

func (d demo) hello(ctx context.Context, base, token string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+helloPath, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	var a answer
	code, header, err := do(req, &a.greeting)
	if err != nil {
		return answer{}, err
	}
	a.code, a.instance, a.challenge = code, header.Get(instanceHeader), header.Get("WWW-Authenticate")
	return a, nil
}

// do sends a request and reads the JSON of a good answer into v. The client
// takes no proxy from the environment, since all servers are near, and keeps no
// connection that would delay their end.
func do(req *http.Request, v any) (code int, header http.Header, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(v)
	}
	return resp.StatusCode, resp.Header, err
}

// printCommands prints commands that work as they stand, in any POSIX shell.
func (d demo) printCommands(f *fleet) {
	d.printf("\nServing until Ctrl-C. Try it from another shell:\n")
	d.printf("  TOKEN=$(curl -s -u %s:%s -d grant_type=%s -d scope=%s %s%s | cut -d'\"' -f4)\n",
		d.clientID, d.secret, clientCredentials, scopeRead, f.issuer, tokenPath)
	d.printf("  curl -i -H \"Authorization: Bearer $TOKEN\" %s%s\n", f.issuer, helloPath)
	d.printf("  curl %s%s\n", f.issuer, fleetkey.DiscoveryPath)
	d.printf("  curl %s%s\n", f.issuer, fleetkey.JWKSPath)
	d.printf("  curl %s%s\n", f.instances[0].url, healthPath)
}

func (d demo) printf(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }
