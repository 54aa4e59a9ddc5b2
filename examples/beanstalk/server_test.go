package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const issuer = "https://id.example.com"

func hash(secret string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(secret))) }

func TestReadEnvironment(t *testing.T) {
	t.Setenv("CLIENT_SECRET_SHA256", hash("s"))
	t.Setenv("PORT", "")
	t.Setenv("CLIENT_ID", "web")
	t.Setenv("ROTATE_EVERY", "2160h")
	t.Setenv("ADOPT_FILE", "/keys.pem")
	env, err := readEnvironment()
	require.NoError(t, err)
	assert.Equal(t, []any{"5000", "web", 90 * 24 * time.Hour}, []any{env.port, env.clientID, env.config.Rotation.Every})
	assert.NotNil(t, env.config.Adopt)
	for _, wrong := range [][2]string{{"ROTATE_EVERY", "90d"}, {"CLIENT_SECRET_SHA256", ""}, {"CLIENT_SECRET_SHA256", hash("s")[2:]}} {
		t.Setenv(wrong[0], wrong[1])
		_, err := readEnvironment()
		assert.ErrorContains(t, err, "property "+wrong[0])
	}
}

func TestTokenEndpoint(t *testing.T) {
	t.Setenv("CLIENT_SECRET_SHA256", hash("s"))
	env, err := readEnvironment()
	require.NoError(t, err)
	h := newHandler(fleetkeytest.NewSigner(t, fleetkey.Config{}), env)
	const grant = "client_credentials"
	for _, c := range []struct {
		id, secret, grant, scope string
		code                     int
		says                     string
	}{
		{"demo", "s", grant, scope, 200, `"access_token":"ey`},
		{"demo", "x", grant, scope, 401, "invalid_client"},
		{"other", "s", grant, scope, 401, "invalid_client"},
		{"demo", "s", "password", scope, 400, "unsupported_grant_type"},
		{"demo", "s", grant, "api.write", 400, "invalid_scope"},
	} {
		form := url.Values{"grant_type": {c.grant}, "scope": {c.scope}}
		r := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(c.id, c.secret)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, c.code, w.Code, c)
		assert.Contains(t, w.Body.String(), c.says)
	}
}

// TestPolicies runs a server under the policies of this directory, unchanged. AWS does not
// document whether IAM matches a secret that does not exist yet by its bare name or by a
// made-up ARN, so the policies must work with both. The CloudFormation template must grant
// the same.
func TestPolicies(t *testing.T) {
	for file, rotate := range map[string]error{"policy.json": fleetkey.ErrAccessDenied, "policy-rotation.json": nil} {
		for _, bare := range []bool{false, true} {
			policy := readPolicy(t, file)
			policy.BareNames = bare
			fake := awsfake.New()
			fake.Enforce(policy)
			store, err := fleetkey.NewAWSStore(t.Context(), "indicium/openid-server-prod", func(o *fleetkey.AWSOptions) { o.Client = fake.Client() })
			require.NoError(t, err)
			signer := testkit.Start(t, store, testkit.Config())
			assert.ErrorIs(t, signer.Rotate(t.Context()), rotate, file)
		}
	}
	template, err := os.ReadFile("iam.yaml")
	require.NoError(t, err)
	actions := regexp.MustCompile(`secretsmanager:[A-Z]\w+`).FindAllString(string(template), -1)
	assert.ElementsMatch(t, readPolicy(t, "policy-rotation.json").Actions, actions)
}

func readPolicy(t *testing.T, file string) *awsfake.Policy {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var document struct {
		Statement []struct {
			Action   []string
			Resource string
		}
	}
	require.NoError(t, json.Unmarshal(text, &document))
	s := document.Statement[0]
	resource := strings.NewReplacer("<region>", "eu-west-1", "<account-id>", awsfake.Account).Replace(s.Resource)
	return &awsfake.Policy{Actions: s.Action, Resources: []string{resource}}
}
