package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A nodeIssuer is an OpenID server built with oidc-provider, in a separate process.
type nodeIssuer struct {
	URL      string `json:"issuer"`
	Version  string `json:"version"`
	commands *json.Encoder
	answers  *json.Decoder
}

// A nodeKey is a key of the server.
type nodeKey struct {
	KeyID     string `json:"kid"`
	Algorithm string `json:"alg"`
}

// startNodeIssuer starts a server that ends with the test.
func startNodeIssuer(t *testing.T) *nodeIssuer {
	require.NoError(t, install(t.Context(), node))
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout) // longer than the test, see Cleanup
	cmd := exec.CommandContext(ctx, "node", "oidc-provider.mjs")
	cmd.Dir = "node"
	stdin, err := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	require.NoError(t, errors.Join(err, err2, cmd.Start()))
	t.Cleanup(func() {
		_ = stdin.Close()
		assert.NoError(t, cmd.Wait())
		cancel()
	})
	i := &nodeIssuer{commands: json.NewEncoder(stdin), answers: json.NewDecoder(stdout)}
	require.NoError(t, i.answers.Decode(i))
	t.Log("oidc-provider", i.Version)
	return i
}

// serve replaces the server's keys.
func (i *nodeIssuer) serve(t *testing.T, sign nodeKey, others ...nodeKey) {
	t.Helper()
	require.NoError(t, i.commands.Encode(map[string]any{"keys": append([]nodeKey{sign}, others...), "sign": sign, "audience": audience}))
	var answer struct{ Error string }
	require.NoError(t, i.answers.Decode(&answer))
	require.Empty(t, answer.Error)
}

func (i *nodeIssuer) token(t *testing.T) string {
	t.Helper()
	config := clientcredentials.Config{ClientID: "batch", ClientSecret: "secret", TokenURL: i.URL + "/token", Scopes: []string{"api.read"},
		EndpointParams: url.Values{"resource": {audience}}}
	token, err := config.Token(t.Context())
	require.NoError(t, err)
	return token.AccessToken
}

// TestNodeIssuer checks that a Verifier follows a third-party server. Its access tokens are
// those of RFC 9068, so the Verifier needs only the issuer and the audience.
func TestNodeIssuer(t *testing.T) {
	if !testkit.Long(false, true) {
		t.Skip("skipped: it installs oidc-provider from npm (make interop)")
	}
	issuer := startNodeIssuer(t)
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"} {
		t.Run(alg, func(t *testing.T) {
			old, next, last := nodeKey{alg + " 1", alg}, nodeKey{alg + " 2", alg}, nodeKey{alg + " 3", alg}
			issuer.serve(t, old, nodeKey{"of another kind", "ES384"})
			v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer.URL, Audience: []string{audience}, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			defer func() { assert.NoError(t, v.Close()) }()
			accepts := func(token string, by nodeKey) {
				t.Helper()
				got, err := v.Verify(t.Context(), token)
				require.NoError(t, err)
				require.Equal(t, []string{by.KeyID, "batch", "batch", "api.read"}, []string{got.KeyID(), got.Subject(), got.ClientID(), got.Scope()})
			}
			first := issuer.token(t)
			accepts(first, old)

			issuer.serve(t, old, next) // announced
			require.NoError(t, v.Refresh(t.Context()))
			issuer.serve(t, next, old)
			second := issuer.token(t)
			accepts(second, next)
			accepts(first, old)

			issuer.serve(t, next)
			require.NoError(t, v.Refresh(t.Context()))
			accepts(second, next)
			_, err = v.Verify(t.Context(), breakSignature(second))
			require.ErrorIs(t, err, fleetkey.ErrBadSignature)

			_, err = v.Verify(t.Context(), first)
			require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
			if alg != "Ed25519" { // this takes seconds, so once is enough
				return
			}
			issuer.serve(t, last) // unannounced
			third := issuer.token(t)
			require.Eventually(t, func() bool {
				_, err := v.Verify(t.Context(), third)
				return err == nil
			}, clientTimeout/2, 50*time.Millisecond, "a Verifier looks for an unknown key once in 10 seconds")
			accepts(third, last)
			_, err = v.Verify(t.Context(), second)
			require.ErrorIs(t, err, fleetkey.ErrUnknownKey)
		})
	}
}
