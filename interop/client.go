package main

import (
	"context"
	"fmt"
	"slices"
)

// A client is a library that checks tokens, written by others and used as its
// own documentation says.
type client interface {
	// about says what the client is.
	about() about
	// verify shows a token to one of the client's verifiers, and returns the
	// sub claim that the client found. An error is the client's own.
	verify(ctx context.Context, r request) (subject string, err error)
	close()
}

// about is what the table says of a client.
type about struct {
	name, version, language string
	// lacks names the algorithms that the client does not know, so that the
	// table can say so. That it really refuses them is checked.
	lacks []string
}

func (a about) supports(algorithm string) bool { return !slices.Contains(a.lacks, algorithm) }

// A request is a token to be checked. It is also the line of JSON that a
// client's process gets.
type request struct {
	// Verifier names the verifier; one is made when its name comes first. Each
	// finds the issuer's keys by itself, through discovery, and caches them as
	// the library pleases.
	Verifier  string `json:"verifier"`
	Issuer    string `json:"issuer"`
	Audience  string `json:"audience"`
	Algorithm string `json:"algorithm"` // the only one to accept
	Token     string `json:"token"`
}

// An answer is the line of JSON that comes back.
type answer struct {
	Subject string `json:"subject"`
	Error   string `json:"error"`
}

// A checker checks one token, and returns its sub claim.
type checker func(ctx context.Context, token string) (subject string, err error)

// A goClient is a client that runs in this process.
type goClient struct {
	what about
	// create makes a verifier. Its background work ends with ctx.
	create    func(ctx context.Context, r request) (checker, error)
	checkers  map[string]checker
	lifetime  context.Context
	endOfLife context.CancelFunc
}

func newGoClient(ctx context.Context, a about, create func(ctx context.Context, r request) (checker, error)) *goClient {
	a.language = "Go"
	c := &goClient{what: a, create: create, checkers: make(map[string]checker)}
	c.lifetime, c.endOfLife = context.WithCancel(ctx)
	return c
}

func (c *goClient) about() about { return c.what }

func (c *goClient) close() { c.endOfLife() }

func (c *goClient) verify(ctx context.Context, r request) (string, error) {
	id := r.Issuer + " " + r.Verifier
	check := c.checkers[id]
	if check == nil {
		var err error
		if check, err = c.create(c.lifetime, r); err != nil {
			return "", fmt.Errorf("cannot make a verifier: %w", err)
		}
		c.checkers[id] = check
	}
	return check(ctx, r.Token)
}
