package main

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	clientID    = "web"
	redirectURI = "http://127.0.0.1/callback" // never called: the demonstration reads the code from the redirect
	user        = "alice"
	scope       = "api.read" // of a service that takes the access tokens

	// tokenTTL is at most Config.MaxTokenTTL, since zitadel/oidc signs by itself
	// and a replaced key is trusted for no longer.
	tokenTTL = 10 * time.Minute
)

// A database is what the instances share beside the key: logins under way, each an
// authRequest by its ID and also by its code. A real one is a database.
type database struct{ logins sync.Map }

// storage is the op.Storage of one instance.
type storage struct {
	keys
	unused
	*database
}

func (s *storage) Health(context.Context) error { return nil }

func (s *storage) CreateAuthRequest(_ context.Context, r *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	a := authRequest{AuthRequest: r, id: rand.Text()}
	s.logins.Store(a.id, a)
	return a, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	return s.find(id)
}

func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	return s.find(code)
}

func (d *database) find(idOrCode string) (authRequest, error) {
	if a, ok := d.logins.Load(idOrCode); ok {
		return a.(authRequest), nil
	}
	return authRequest{}, errors.New("no such login is under way")
}

// login notes who has logged in.
func (d *database) login(id, subject string) {
	if a, err := d.find(id); err == nil {
		a.subject, a.time = subject, time.Now()
		d.logins.Store(id, a)
	}
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	a, err := s.find(id)
	s.logins.Store(code, a)
	return err
}

// DeleteAuthRequest ends a login when its code has been used.
func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.logins.Range(func(key, a any) bool {
		if a.(authRequest).id == id {
			s.logins.Delete(key)
		}
		return true
	})
	return nil
}

func (s *storage) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return rand.Text(), time.Now().Add(tokenTTL), nil
}

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != clientID {
		return nil, errors.New("no such client")
	}
	return client{}, nil
}

func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, _, subject, _ string) error {
	info.Subject = subject
	return nil
}

// GetPrivateClaimsFromScopes fills in an access token's scope, which zitadel/oidc leaves
// out, although a service cannot tell it from an ID token otherwise.
func (s *storage) GetPrivateClaimsFromScopes(_ context.Context, _, _ string, scopes []string) (map[string]any, error) {
	return map[string]any{"scope": strings.Join(scopes, " ")}, nil
}

// SetUserinfoFromScopes fills in an ID token's claims about the user.
func (s *storage) SetUserinfoFromScopes(_ context.Context, info *oidc.UserInfo, subject, _ string, _ []string) error {
	info.Subject = subject
	return nil
}

// An authRequest is a login under way.
type authRequest struct {
	*oidc.AuthRequest
	id, subject string
	time        time.Time
}

func (a authRequest) GetID() string                      { return a.id }
func (a authRequest) GetACR() string                     { return "" }
func (a authRequest) GetAMR() []string                   { return nil }
func (a authRequest) GetAudience() []string              { return []string{a.ClientID} }
func (a authRequest) GetAuthTime() time.Time             { return a.time }
func (a authRequest) GetClientID() string                { return a.ClientID }
func (a authRequest) GetNonce() string                   { return a.Nonce }
func (a authRequest) GetRedirectURI() string             { return a.RedirectURI }
func (a authRequest) GetScopes() []string                { return a.Scopes }
func (a authRequest) GetState() string                   { return a.State }
func (a authRequest) GetSubject() string                 { return a.subject }
func (a authRequest) Done() bool                         { return a.subject != "" }
func (a authRequest) GetResponseType() oidc.ResponseType { return a.ResponseType }
func (a authRequest) GetResponseMode() oidc.ResponseMode { return a.ResponseMode }
func (a authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: a.CodeChallenge, Method: a.CodeChallengeMethod}
}

// client is the only one: a public client, which has to use PKCE.
type client struct{}

func (client) GetID() string                       { return clientID }
func (client) RedirectURIs() []string              { return []string{redirectURI} }
func (client) PostLogoutRedirectURIs() []string    { return nil }
func (client) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }
func (client) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodNone }
func (client) ResponseTypes() []oidc.ResponseType  { return []oidc.ResponseType{oidc.ResponseTypeCode} }
func (client) GrantTypes() []oidc.GrantType        { return []oidc.GrantType{oidc.GrantTypeCode} }
func (client) LoginURL(id string) string           { return loginPath + "?id=" + id }
func (client) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }
func (client) IDTokenLifetime() time.Duration      { return tokenTTL }
func (client) DevMode() bool                       { return false }
func (client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}
func (client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}
func (client) IsScopeAllowed(s string) bool         { return s == scope }
func (client) IDTokenUserinfoClaimsAssertion() bool { return false }
func (client) ClockSkew() time.Duration             { return 0 }

var errUnused = errors.New("this example does not offer that")

// unused are the parts of op.Storage for flows that this example does not have.
type unused struct{}

func (unused) CreateAccessAndRefreshTokens(context.Context, op.TokenRequest, string) (string, string, time.Time, error) {
	return "", "", time.Time{}, errUnused
}

func (unused) TokenRequestByRefreshToken(context.Context, string) (op.RefreshTokenRequest, error) {
	return nil, errUnused
}
func (unused) TerminateSession(context.Context, string, string) error { return errUnused }
func (unused) RevokeToken(context.Context, string, string, string) *oidc.Error {
	return oidc.ErrServerError()
}

func (unused) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}
func (unused) AuthorizeClientIDSecret(context.Context, string, string) error { return errUnused }
func (unused) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errUnused
}

func (unused) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errUnused
}

func (unused) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errUnused
}
