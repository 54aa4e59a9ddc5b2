package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// TestPolicies puts a server under the policies of this directory, as they
// stand. Whether IAM judges a secret that does not exist yet by its bare name or
// by a made-up ARN is not documented, so both have to do.
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
}

// TestTemplatePolicy : the CloudFormation template grants what the files do.
func TestTemplatePolicy(t *testing.T) {
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
