package jws

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// This file holds how an access token of a system older than RFC 9068 is told from other
// tokens. Its header does not say what it is, so its claims have to.

// hints are what claims say about the kind of their token.
type hints uint8

const (
	usedForAccess hints = 1 << iota // token_use is access (Cognito)
	isBearer                        // typ, as a claim, is Bearer (Keycloak)
	hasRoles                        // there are roles (Entra), which an ID token can have as well
	isOther                         // token_use or typ says something else, or it has a claim of ID or logout tokens
)

// read notes what a claim says. None of these is a claim of ours, so any value is fine.
func (h *hints) read(r reader, name string) error {
	value, err := r.ReadValue()
	if err != nil {
		return err
	}
	var text string
	_ = json.Unmarshal(value, &text)
	if value.Kind() == 'n' { // as if it was not there
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

// checkFormer refuses tokens of a former system that are no access tokens for the audience.
// An ID token is for a client. So where the audience may be the name of a client, only what
// no ID token has shows that this is an access token.
func (r *Rules) checkFormer(c *Claims) error {
	const access = usedForAccess | isBearer
	if c.hints&isOther != 0 {
		return fmt.Errorf("%w: its claims are those of another kind of token", ErrWrongType)
	}
	if len(c.Audience) == 0 { // Cognito has the client in its place
		if !slices.Contains(r.Audience, c.ClientID) {
			return fmt.Errorf("%w: it has no aud, and its client_id is %s", ErrWrongAudience, Quote(c.ClientID))
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
