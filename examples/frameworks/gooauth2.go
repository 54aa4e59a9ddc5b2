package frameworks

import (
	"context"
	"crypto/rand"

	"github.com/go-oauth2/oauth2/v4"

	"github.com/fleetkey/fleetkey"
)

// AccessTokens makes the access tokens of a go-oauth2 server:
//
//	manager.MapAccessGenerate(AccessTokens{signer})
type AccessTokens struct{ Signer *fleetkey.Signer }

// Token implements oauth2.AccessGenerate.
func (a AccessTokens) Token(ctx context.Context, data *oauth2.GenerateBasic, withRefresh bool) (access, refresh string, err error) {
	access, err = a.Signer.Issue(ctx, fleetkey.Claims{
		Subject:   data.UserID, // empty for a client's own token
		ClientID:  data.Client.GetID(),
		Scope:     data.TokenInfo.GetScope(),
		ExpiresAt: data.TokenInfo.GetAccessCreateAt().Add(data.TokenInfo.GetAccessExpiresIn()),
	})
	if err == nil && withRefresh {
		refresh = rand.Text()
	}
	return access, refresh, err
}
