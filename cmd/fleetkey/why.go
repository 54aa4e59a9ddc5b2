package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// This file explains why a token's key is not trusted, as far as the bundle shows.

// whyUnknown returns an explanation of one or two sentences.
func whyUnknown(set *keyset.Set, s fleetkey.Status, said claimed) string {
	for _, k := range s.Keys {
		if k.KeyID != said.keyID {
			continue
		}
		next := successor(s, k)
		switch {
		case k.Role == fleetkey.RoleRevoked:
			return fmt.Sprintf("The key was REVOKED. %s signs now, since %s.", s.SigningKeyID, stamp(s.SigningSince))
		case k.Role != fleetkey.RoleGone:
			return "The key is known and trusted, so the token was altered, or signed with another key using its kid."
		case k.NotBefore.IsZero():
			return fmt.Sprintf("The key is retired and was trusted until %s.", stamp(k.TrustedUntil))
		case next.IsZero():
			return fmt.Sprintf("The key's certificate expired at %s.", stamp(k.NotAfter))
		}
		return fmt.Sprintf("The key was replaced at %s and was trusted until %s (replacement + --retain of the servers).", stamp(next), stamp(k.TrustedUntil))
	}
	for _, k := range set.Keys {
		if slices.Contains(trust.Former(k.Public, k.Alg, k.Cert, "").Names, said.keyID) {
			return fmt.Sprintf("The kid is the one that other systems derive from the certificate of key %s.  "+
				"Add that certificate to Config.Former of the servers to accept it (here: --former).", k.ID)
		}
	}
	return "No key in the store has this kid. " + guess(s, said)
}

// guess compares the claimed iat with the times of the store's keys.
func guess(s fleetkey.Status, said claimed) string {
	if said.IssuedAt == nil {
		return "The token does not say when it was issued."
	}
	text := fmt.Sprintf("The token says it was issued at %s", stamp(said.IssuedAt.Time))
	var oldest time.Time
	for _, k := range s.Keys { // newest first
		switch {
		case k.NotBefore.IsZero() || k.Role == fleetkey.RoleFormer:
			continue
		case !k.NotBefore.After(said.IssuedAt.Time):
			return text + fmt.Sprintf(", when %s was the signing key, so it comes from a server "+
				"with another store, or from another issuer, whose certificate belongs in Config.Former.", k.KeyID)
		}
		oldest = k.NotBefore
	}
	return text + fmt.Sprintf(". The oldest key in the store began at %s, so the token's key had already been "+
		"replaced and is gone, or the token comes from a server with another store.", stamp(oldest))
}
