package frameworks

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/store"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

const scope = "orders.read"

var audience = []string{"https://api.example.com"}

// TestWhoGetsIn sends the same tokens to each framework.
func TestWhoGetsIn(t *testing.T) {
	issuer := fleetkeytest.NewIssuer(t)
	start := func(jwksURL string) *fleetkey.Verifier {
		verifier, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer.URL, JWKSURL: jwksURL,
			Audience: audience, HTTPClient: issuer.HTTPClient, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { _ = verifier.Close() })
		return verifier
	}
	online, offline := start(""), start(issuer.URL+"/nothing")
	bearer := func(scope string) []string {
		return []string{"Bearer " + issuer.Token(fleetkey.Claims{Subject: "alice", ClientID: "shop", Scope: scope, Audience: audience})}
	}
	gin.SetMode(gin.ReleaseMode)
	for name, tc := range map[string]struct {
		verifier      *fleetkey.Verifier
		authorization []string
		http          int
		grpc          codes.Code
	}{
		"good":           {online, bearer(scope), http.StatusOK, codes.OK},
		"no scope":       {online, bearer("profile"), http.StatusForbidden, codes.PermissionDenied},
		"no token":       {online, nil, http.StatusUnauthorized, codes.Unauthenticated},
		"no valid token": {online, []string{bearer(scope)[0] + "x"}, http.StatusUnauthorized, codes.Unauthenticated},
		"no bearer":      {online, []string{"Basic " + bearer(scope)[0][len("Bearer "):]}, http.StatusUnauthorized, codes.Unauthenticated},
		"no keys":        {offline, bearer(scope), http.StatusServiceUnavailable, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			router := gin.New()
			router.GET("/orders", Require(tc.verifier, scope), func(c *gin.Context) {
				token, _ := fleetkey.FromContext(c.Request.Context())
				c.String(http.StatusOK, token.Subject())
			})
			r := httptest.NewRequest(http.MethodGet, "/orders", nil)
			r.Header["Authorization"] = tc.authorization
			w := httptest.NewRecorder()
			router.ServeHTTP(w, r)
			assert.Equal(t, tc.http, w.Code)

			ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"authorization": tc.authorization})
			subject, err := Authenticate(tc.verifier, scope)(ctx, nil, nil, func(ctx context.Context, _ any) (any, error) {
				token, _ := fleetkey.FromContext(ctx)
				return token.Subject(), nil
			})
			assert.Equal(t, tc.grpc, status.Code(err))
			in := tc.http == http.StatusOK
			assert.Equal(t, in, w.Body.String() == "alice")
			assert.Equal(t, in, subject == "alice")
		})
	}
}

func TestGoOAuth2(t *testing.T) {
	signer := fleetkeytest.NewSigner(t, fleetkey.Config{Audience: audience})
	clients := store.NewClientStore()
	require.NoError(t, clients.Set("shop", &models.Client{ID: "shop", Secret: "s"}))
	manager := manage.NewDefaultManager()
	manager.MapClientStorage(clients)
	manager.MustTokenStorage(store.NewMemoryTokenStore())
	manager.SetPasswordTokenCfg(&manage.Config{AccessTokenExp: 10 * time.Minute, RefreshTokenExp: time.Hour, IsGenerateRefresh: true})
	manager.MapAccessGenerate(AccessTokens{signer})

	for user, subject := range map[string]string{"alice": "alice", "": "shop"} {
		issued, err := manager.GenerateAccessToken(t.Context(), oauth2.PasswordCredentials, &oauth2.TokenGenerateRequest{
			ClientID: "shop", ClientSecret: "s", UserID: user, Scope: scope,
		})
		require.NoError(t, err)
		token, err := signer.Verify(t.Context(), issued.GetAccess())
		require.NoError(t, err)
		assert.Equal(t, []any{subject, "shop", scope}, []any{token.Subject(), token.ClientID(), token.Scope()})
		assert.WithinDuration(t, time.Now().Add(issued.GetAccessExpiresIn()), token.ExpiresAt(), time.Minute)
		assert.NotEmpty(t, issued.GetRefresh())
	}
}
