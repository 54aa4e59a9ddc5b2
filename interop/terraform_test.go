package main

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTerraform checks the configuration in docs/aws.md: it parses, refers only to what it
// declares, grants the same as examples/beanstalk/policy-rotation.json, and creates no
// secret. It is in this module because users of the library should not download HCL.
func TestTerraform(t *testing.T) {
	page, err := os.ReadFile("../docs/aws.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?ms)^```hcl\n(.*?)^```$").FindAllSubmatch(page, -1)
	require.Len(t, blocks, 1)
	file, diagnostics := hclsyntax.ParseConfig(blocks[0][1], "aws.md", hcl.InitialPos)
	require.False(t, diagnostics.HasErrors(), diagnostics.Error())
	declared := map[string]*hclsyntax.Body{}
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		declared[strings.TrimPrefix(b.Type+"."+strings.Join(b.Labels, "."), "resource.")] = b.Body
	}
	assert.NotContains(t, strings.Join(slices.Collect(maps.Keys(declared)), " "), "aws_secretsmanager_secret")
	diagnostics = hclsyntax.VisitAll(file.Body.(*hclsyntax.Body), func(n hclsyntax.Node) hcl.Diagnostics {
		if reference, ok := n.(*hclsyntax.ScopeTraversalExpr); ok {
			name, parts := reference.Traversal.RootName(), 2 // such as aws_iam_role.server
			if name == "data" {
				parts = 3
			}
			for _, step := range reference.Traversal[1:parts] {
				name += "." + step.(hcl.TraverseAttr).Name
			}
			assert.Contains(t, declared, name)
		}
		return nil
	})
	require.False(t, diagnostics.HasErrors())

	statement := declared["data.aws_iam_policy_document.fleetkey"].Blocks[0].Body.Attributes
	var policy struct {
		Statement []struct {
			Action   []string
			Resource string
		}
	}
	text, err := os.ReadFile("../examples/beanstalk/policy-rotation.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &policy))
	actions, diagnostics := statement["actions"].Expr.Value(nil)
	require.False(t, diagnostics.HasErrors(), diagnostics.Error())
	require.Len(t, policy.Statement[0].Action, actions.LengthInt())
	for i, action := range actions.AsValueSlice() {
		assert.Equal(t, policy.Statement[0].Action[i], action.AsString())
	}
	// The region and the account come from Terraform.
	resource := strings.NewReplacer("<region>", "%s", "<account-id>", "%s").Replace(policy.Statement[0].Resource)
	words := strings.Join(strings.Fields(string(blocks[0][1])), " ")
	assert.Contains(t, words, `resources = [format("`+resource+`", data.aws_region.this.region, data.aws_caller_identity.this.account_id)]`)
}
