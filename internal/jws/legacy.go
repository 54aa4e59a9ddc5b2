package jws

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// This file distinguishes access tokens of systems older than RFC 9068 from other tokens.
// Since the header does not say, the claims must.

// hints say what the claims indicate about the kind of a token.
type hints uint8

const (
	usedForAccess hints = 1 << iota // token_use is access (Cognito)
	isBearer                        // typ, as a claim, is Bearer (Keycloak)
	hasRoles                        // has roles (Entra), which an ID token can have too
	isOther                         // token_use or typ has another value, or there is a claim of ID or logout tokens
)

// read records what a claim indicates. None of these claims is ours, so any value is fine.
func (h *hints) read(r reader, name string) error {
	value, err := r.ReadValue()
	if err != nil {
		return err
	}
	var text string
	_ = json.Unmarshal(value, &text)
	if value.Kind() == 'n' { // null counts as absent
		return nil
	}
	hint := isOther
	if name == "token_use" && text == "access" {
		hint = usedForAccess
	}
	if name == "typ" && strings.EqualFold(text, "Bearer") {
		hint = isBearer
	}
	if name == "roles" {
		var roles []string
		if read := json.Unmarshal(value, &roles) == nil; !read || len(roles) == 0 {
			return nil
		}
		hint = hasRoles
	}
	*h |= hint
	return nil
}

func (c *Claims) readClient(r reader, wins bool) error {
	value, err := r.ReadValue()
	if err != nil {
		return err
	}
	var client string
	if json.Unmarshal(value, &client) == nil && (wins || c.FormerClient == "") {
		c.FormerClient = client
	}
	return nil
}

// checkFormer rejects a former system's token that is not an access token for the audience.
// The audience of an ID token is a client. So if the audience could be the name of a client,
// the token must have a claim that no ID token has.
func (r *Rules) checkFormer(c *Claims) error {
	const access = usedForAccess | isBearer
	if c.hints&isOther != 0 {
		return fmt.Errorf("%w: its claims are those of another type of token", ErrWrongType)
	}
	if len(c.Audience) == 0 { // Cognito puts the client in its place
		if !slices.Contains(r.Audience, c.ClientID) {
			return fmt.Errorf("%w: it has no aud and its client_id is %s", ErrWrongAudience, Quote(c.ClientID))
		}
		return nil
	}
	hasClient := c.ClientID != "" || c.FormerClient != ""
	if c.hints&access != 0 || c.hints&hasRoles != 0 && hasClient || strings.TrimSpace(c.Scope+c.FormerScope) != "" {
		return nil
	}
	for _, a := range c.Audience {
		client := a == c.ClientID || a == c.FormerClient || !strings.Contains(a, ":")
		if slices.Contains(r.Audience, a) && !client {
			return nil
		}
	}
	return fmt.Errorf("%w: it has no scope, scp, or roles with azp or appid, and its audience may be a client, as in an ID token", ErrWrongType)
}
