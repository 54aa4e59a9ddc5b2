package verifying

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

type object = map[string]any

// An issuer describes how a well-known issuer publishes its keys and writes its tokens. Keys
// and values are made up; the members are documented by the issuer.
type issuer struct {
	issuer, jwks string // addresses
	discovery    object // besides issuer and jwks_uri
	alg          string
	jwk          object // changes to the JWK; nil drops a member
	more         []string
	headers      []string // of the answer
	header       object   // of a token, besides alg and kid
	audience     []string // of the Verifier
	claims       object   // of every token, besides iss, iat and exp
	access       []object // claims of tokens that are accepted
	others       map[string]object
	client       string // of the first access token
	scope        string
}

const (
	guid  = "11111111-2222-3333-4444-555555555555"
	guid2 = "99999999-2222-3333-4444-555555555555"
)

var jwtTyp = object{"typ": "JWT"}

var issuers = map[string]issuer{
	"Entra ID v2": {
		issuer: "https://login.microsoftonline.com/" + guid + "/v2.0", jwks: "https://login.microsoftonline.com/" + guid + "/discovery/v2.0/keys",
		discovery: object{"tenant_region_scope": "EU", "response_modes_supported": []string{"query"}},
		alg:       "RS256", jwk: object{"alg": nil, "x5t": "AAAA", "x5c": []string{"AAAA"}, "cloud_instance_name": "microsoftonline.com", "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
		header: object{"typ": "JWT", "x5t": "AAAA"}, audience: []string{guid}, claims: object{"aud": guid, "tid": guid, "oid": guid2, "ver": "2.0", "nbf": 0, "rh": "x", "uti": "x"},
		access: []object{{"azp": guid2, "azpacr": "1", "scp": "read write", "sub": "x"}, {"azp": guid2, "roles": []string{"Task.Read"}, "sub": "x"}},
		others: map[string]object{"ID token": {"sub": "x", "nonce": "n", "name": "A"}, "ID token without nonce": {"sub": "x", "name": "A"}, "for another API": {"aud": guid2, "scp": "read", "sub": "x"}},
		client: guid2, scope: "read write",
	},
	"Entra ID v1": {
		issuer: "https://sts.windows.net/" + guid + "/", jwks: "https://login.windows.net/common/discovery/keys",
		alg: "RS256", jwk: object{"alg": nil, "x5t": "AAAA", "issuer": "https://sts.windows.net/{tenantid}/"},
		header: object{"typ": "JWT", "x5t": "AAAA"}, audience: []string{"api://" + guid}, claims: object{"aud": "api://" + guid, "ver": "1.0", "sub": "x"},
		access: []object{{"appid": guid2, "scp": "user_impersonation"}, {"appid": guid2, "exp": 28 * time.Hour}},
		others: map[string]object{"of v2": {"iss": "https://login.microsoftonline.com/" + guid + "/v2.0", "scp": "a"}, "at_hash": {"at_hash": "x"}},
		client: guid2, scope: "user_impersonation",
	},
	"Google": { // has ID tokens only
		issuer: "https://accounts.google.com", jwks: "https://www.googleapis.com/oauth2/v3/certs", headers: []string{"Cache-Control", "public, max-age=21000, must-revalidate"},
		alg: "RS256", header: jwtTyp, audience: []string{"1.apps.googleusercontent.com"}, claims: object{"aud": "1.apps.googleusercontent.com", "azp": "1.apps.googleusercontent.com", "sub": "1"},
		others: map[string]object{"ID token": {"at_hash": "x", "email": "a@example.com"}, "of a service account": {"email": "a@example.com"}, "with the short issuer": {"iss": "accounts.google.com", "scope": "a"}},
	},
	"Auth0": {
		issuer: "https://tenant.eu.auth0.com/", jwks: "https://tenant.eu.auth0.com/.well-known/jwks.json", headers: []string{"Cache-Control", "public, max-age=15, stale-while-revalidate=15"},
		alg: "RS256", jwk: object{"x5t": "AAAA", "x5c": []string{"AAAA"}}, header: jwtTyp, audience: []string{"https://orders.example"}, claims: object{"sub": "auth0|1"},
		access: []object{{"aud": []string{"https://orders.example", "https://tenant.eu.auth0.com/userinfo"}, "azp": "c1", "scope": "openid read"}, {"aud": "https://orders.example", "azp": "c1", "gty": "client-credentials"}},
		others: map[string]object{"ID token": {"aud": "c1", "nonce": "n"}, "without the slash": {"iss": "https://tenant.eu.auth0.com", "aud": "https://orders.example"}},
		client: "c1", scope: "openid read",
	},
	"Okta": {
		issuer: "https://dev.okta.com/oauth2/default", jwks: "https://dev.okta.com/oauth2/default/v1/keys", alg: "RS256", header: object{},
		audience: []string{"api://default", "0oa1"}, claims: object{"ver": 1, "sub": "a@example.com"},
		access: []object{{"aud": "api://default", "cid": "0oa1", "uid": "u", "scp": []string{"openid", "read"}, "jti": "AT.x"}},
		others: map[string]object{"ID token": {"aud": "0oa1", "idp": "x", "amr": []string{"pwd"}, "jti": "ID.x"}, "of the organization": {"iss": "https://dev.okta.com", "aud": "https://dev.okta.com", "scp": []string{"openid"}}},
		scope:  "openid read",
	},
	"Cognito": {
		issuer: "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x", jwks: "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x/.well-known/jwks.json", alg: "RS256", header: object{},
		audience: []string{"7abc"}, claims: object{"sub": guid, "event_id": guid, "auth_time": 1},
		access: []object{{"client_id": "7abc", "token_use": "access", "scope": "aws.cognito.signin.user.admin", "version": 2}},
		others: map[string]object{"ID token": {"aud": "7abc", "token_use": "id", "at_hash": "x"}, "another client": {"client_id": "8abc", "token_use": "access", "scope": "x"}, "no token_use": {"client_id": "7abc", "scope": "x"}},
		client: "7abc", scope: "aws.cognito.signin.user.admin",
	},
	"Keycloak": {
		issuer: "https://sso.example/realms/main", jwks: "https://sso.example/realms/main/protocol/openid-connect/certs", headers: []string{"Cache-Control", "no-cache"},
		alg: "RS256", jwk: object{"x5c": []string{"AAAA"}, "x5t": "AAAA", "x5t#S256": "AAAA"}, more: []string{`{"kid":"enc","kty":"RSA","alg":"RSA-OAEP","use":"enc","n":"AQAB","e":"AQAB"}`},
		header: jwtTyp, audience: []string{"orders"}, claims: object{"sub": guid, "azp": "web", "session_state": guid, "acr": "1"},
		access: []object{{"typ": "Bearer", "aud": []string{"orders", "account"}, "scope": "email profile", "realm_access": object{"roles": []string{"user"}}}, {"typ": "Bearer", "aud": "orders"}},
		others: map[string]object{"ID token": {"typ": "ID", "aud": "orders", "at_hash": "x"}, "refresh token": {"typ": "Refresh", "aud": "orders", "scope": "email"}, "offline token": {"typ": "Offline", "aud": "orders", "scope": "email"},
			"logout token": {"typ": "Logout", "aud": "orders", "events": object{}}, "for the account console": {"typ": "Bearer", "aud": "account"}},
		client: "web", scope: "email profile",
	},
	"EKS": {
		issuer: "https://oidc.eks.eu-west-1.amazonaws.com/id/0123", jwks: "https://oidc.eks.eu-west-1.amazonaws.com/id/0123/keys", alg: "RS256", jwk: object{"use": "sig"},
		header: object{}, audience: []string{"https://orders.example", "sts.amazonaws.com"}, claims: object{"sub": "system:serviceaccount:default:web", "kubernetes.io": object{"namespace": "default"}, "nbf": 0},
		access: []object{{"aud": []string{"https://orders.example"}}},
		others: map[string]object{"for AWS, which may be a client": {"aud": []string{"sts.amazonaws.com"}}},
	},
	"Kubernetes": {
		issuer: "https://kubernetes.default.svc.cluster.local", jwks: "https://10.0.0.1:6443/openid/v1/jwks", headers: []string{"Content-Type", "application/jwk-set+json", "Cache-Control", "public, max-age=3600"},
		alg: "RS256", header: object{}, audience: []string{"https://orders.example"}, claims: object{"sub": "system:serviceaccount:default:web", "kubernetes.io": object{"namespace": "default"}, "jti": guid},
		access: []object{{"aud": []string{"https://orders.example"}}},
		others: map[string]object{"for the API server": {"aud": []string{"https://kubernetes.default.svc.cluster.local"}}, "of before 1.22": {"aud": nil, "iss": "kubernetes/serviceaccount"}},
	},
	"GitHub Actions": {
		issuer: "https://token.actions.githubusercontent.com", jwks: "https://token.actions.githubusercontent.com/.well-known/jwks", alg: "RS256", jwk: object{"x5t": "AAAA", "x5c": []string{"AAAA"}},
		header: object{"typ": "JWT", "x5t": "AAAA"}, audience: []string{"https://deploy.example"}, claims: object{"sub": "repo:o/r:ref:refs/heads/main", "repository": "o/r", "jti": guid},
		access: []object{{"aud": "https://deploy.example"}},
		others: map[string]object{"by default for the owner": {"aud": "https://github.com/o"}},
	},
	"GitLab": {
		issuer: "https://gitlab.com", jwks: "https://gitlab.com/oauth/discovery/keys", alg: "RS256", header: jwtTyp, audience: []string{"https://deploy.example"},
		claims: object{"sub": "project_path:g/p:ref_type:branch:ref:main", "user_login": "a", "jti": guid},
		access: []object{{"aud": "https://deploy.example"}},
		others: map[string]object{"by default for itself": {"aud": "https://gitlab.com"}, "ID token of a login": {"aud": "https://deploy.example", "nonce": "n"}},
	},
	"Apple": { // has ID tokens only
		issuer: "https://appleid.apple.com", jwks: "https://appleid.apple.com/auth/keys", alg: "RS256", header: object{}, audience: []string{"com.example.app"},
		claims: object{"aud": "com.example.app", "sub": "1"},
		others: map[string]object{"ID token": {"nonce": "n", "at_hash": "x", "email_verified": "true"}, "without nonce": {"email": "a@example.com"}, "a notification": {"events": `{"type":"email-disabled"}`}},
	},
	"RFC 9068": {
		issuer: "https://op.example", jwks: "https://op.example/jwks", alg: "ES256", header: object{"typ": "at+jwt"}, audience: []string{"https://orders.example"},
		claims: object{"sub": "1", "client_id": "c", "jti": "j", "aud": "https://orders.example"}, access: []object{{"scope": "read"}, {}}, client: "c", scope: "read",
		others: map[string]object{"expired": {"exp": -2 * time.Minute}},
	},
}

// token returns a signed token with the claims of an issuer and more; nil drops one.
func (i *issuer) token(t *testing.T, f *jwstest.Forger, more object) string {
	now := time.Now()
	claims := object{"iss": i.issuer, "iat": now.Unix(), "exp": time.Hour}
	maps.Copy(claims, i.claims)
	maps.Copy(claims, more)
	if life, ok := claims["exp"].(time.Duration); ok {
		claims["exp"] = now.Add(life).Unix()
	}
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	header := object{"alg": f.Alg, "kid": f.KID}
	maps.Copy(header, i.header)
	return f.Forge(text(t, header), text(t, claims))
}

func text(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	require.NoError(t, err)
	return string(out)
}

// provider serves what the issuer publishes.
func (i *issuer) provider(t *testing.T, f *jwstest.Forger) *testkit.Provider {
	var changes []string
	for name, value := range i.jwk {
		changes = append(changes, name, "")
		if value != nil {
			changes[len(changes)-1] = text(t, value)
		}
	}
	discovery := object{"issuer": i.issuer, "jwks_uri": i.jwks, "id_token_signing_alg_values_supported": []string{"RS256"}, "authorization_endpoint": i.issuer + "/authorize"}
	maps.Copy(discovery, i.discovery)
	p := testkit.NewProvider()
	p.Serve(strings.TrimSuffix(i.issuer, "/")+fleetkey.DiscoveryPath, testkit.Page(text(t, discovery)))
	p.Serve(i.jwks, testkit.Page(testkit.JWKS(append(i.more, f.JWK(changes...))...), i.headers...))
	return p
}

// TestIssuers uses discovery, keys and tokens as the large issuers publish and write them.
// Access tokens are accepted, with Legacy if they predate RFC 9068; other tokens are
// rejected.
func TestIssuers(t *testing.T) {
	keys := map[string]*jwstest.Forger{"RS256": testkit.NewForger("RS256"), "ES256": testkit.NewForger("ES256")}
	for name, i := range issuers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := keys[i.alg]
				p := i.provider(t, f)
				config := func(legacy bool) func(*fleetkey.VerifierConfig) {
					return func(c *fleetkey.VerifierConfig) { c.Issuer, c.Audience, c.Legacy = i.issuer, i.audience, legacy }
				}
				legacy, strict := p.Verifier(t, config(true)), p.Verifier(t, config(false))
				require.NoError(t, legacy.Status().Err)
				require.Len(t, legacy.Status().Keys, 1)
				for n, claims := range i.access {
					token := i.token(t, f, claims)
					got, err := legacy.Verify(t.Context(), token)
					require.NoError(t, err, "%v", claims)
					if n == 0 {
						require.Equal(t, []string{i.client, i.scope}, []string{got.ClientID(), got.Scope()})
					}
					_, err = strict.Verify(t.Context(), token)
					require.Equal(t, i.header["typ"] == "at+jwt", err == nil, "%v", err)
				}
				for name, claims := range i.others {
					for _, v := range []*fleetkey.Verifier{legacy, strict} {
						_, err := v.Verify(t.Context(), i.token(t, f, claims))
						require.Error(t, err, name)
						require.NotErrorIs(t, err, fleetkey.ErrUnavailable)
						require.NotErrorIs(t, err, fleetkey.ErrMalformed, name)
						require.NotErrorIs(t, err, fleetkey.ErrUnknownKey, name)
					}
				}
			})
		})
	}
}
