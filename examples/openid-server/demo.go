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

	"github.com/fleetkey/fleetkey"
)

// This file is the demonstration. A client gets a token from one instance and uses it at
// the others, over HTTP. The demonstration stops at the first wrong answer.

// A demo is a client of the fleet that prints what it does.
type demo struct {
	out        io.Writer
	id, secret string
}

// run shows that all instances accept a token from one of them, and that none accepts a token
// from a stranger: a server that differs only in its store. Instances that do not share a key
// reject each other's tokens in the same way.
func (d demo) run(ctx context.Context, f *fleet, strangersStore fleetkey.KeyStore) (err error) {
	d.printf("%d OpenID servers share one signing key, in %s.\n", fleetSize, f.instances[0].signer.Status().Store)
	d.printf("  proxy       %s\n", f.issuer)
	for _, i := range f.instances {
		d.printf("  instance %s  %s  key %s\n", i.name, i.url, i.kid())
	}

	first := f.instances[0]
	token, err := d.token(ctx, first.url)
	if err != nil {
		return err
	}
	d.printf("\nInstance %s issues a token, signed with key %s.\n", first.name, first.kid())
	for _, base := range []string{f.instances[1].url, f.instances[2].url, f.issuer, f.issuer, f.issuer} {
		answer, body, err := d.hello(ctx, base, token)
		switch {
		case err != nil:
			return err
		case answer.StatusCode != http.StatusOK:
			return fmt.Errorf("%s refused the token: %s", base, answer.Header.Get("WWW-Authenticate"))
		case body.KeyID != first.kid():
			return fmt.Errorf("%s verified the token with key %s", base, body.KeyID)
		}
		through := "  instance"
		if base == f.issuer {
			through = "  through the proxy, instance"
		}
		d.printf("%s %s accepts it: %s, %s\n", through, answer.Header.Get(instanceHeader), answer.Status, body.Message)
	}

	stranger, err := startInstance(ctx, "stranger", strangersStore, f.issuer, f.client)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stranger.close()) }()
	if token, err = d.token(ctx, stranger.url); err != nil {
		return err
	}
	d.printf("\nA server with another key issues a token, signed with key %s.\n", stranger.kid())
	for _, i := range f.instances {
		answer, _, err := d.hello(ctx, i.url, token)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("instance %s answered a token of the stranger with %s", i.name, answer.Status)
		}
		d.printf("  instance %s refuses it: %s, %s\n", i.name, answer.Status, answer.Header.Get("WWW-Authenticate"))
	}
	return nil
}

// token asks a server for a token for its API.
func (d demo) token(ctx context.Context, base string) (string, error) {
	form := url.Values{"grant_type": {clientCredentials}, "scope": {scope}}
	var t tokenResponse
	answer, err := call(ctx, http.MethodPost, base+tokenPath, form, func(r *http.Request) { r.SetBasicAuth(d.id, d.secret) }, &t)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the token endpoint of %s answered %s", base, answer.Status)
	}
	return t.AccessToken, err
}

// hello calls the API with a token.
func (d demo) hello(ctx context.Context, base, token string) (answer *http.Response, body greeting, err error) {
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	answer, err = call(ctx, http.MethodGet, base+helloPath, nil, bearer, &body)
	return answer, body, err
}

// call sends a request and reads the JSON of a good answer into v.
func call(ctx context.Context, method, to string, form url.Values, authorize func(*http.Request), v any) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	authorize(req)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		err = json.NewDecoder(answer.Body).Decode(v)
	}
	return answer, err
}

// printCommands prints commands that work unchanged in any POSIX shell.
func (d demo) printCommands(f *fleet) {
	d.printf("\nServing until Ctrl-C. Watch the fleet, and break it, in a browser:\n  %s\n", f.issuer)
	d.printf("Or try it from another shell:\n")
	d.printf("  TOKEN=$(curl -s -u %s:%s -d grant_type=%s -d scope=%s %s%s | cut -d'\"' -f4)\n",
		d.id, d.secret, clientCredentials, scope, f.issuer, tokenPath)
	d.printf("  curl -i -H \"Authorization: Bearer $TOKEN\" %s%s\n", f.issuer, helloPath)
	d.printf("  curl %s%s\n", f.issuer, fleetkey.DiscoveryPath)
	d.printf("  curl %s%s\n", f.issuer, fleetkey.JWKSPath)
	d.printf("  curl %s%s\n", f.instances[0].url, healthPath)
}

func (d demo) printf(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }
