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
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// TestTerraform checks the configuration in docs/aws.md: it parses, refers to nothing that it
// does not declare, grants what examples/beanstalk/policy-rotation.json does, and makes no
// secret. It is here because users of the library should not get HCL.
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
	for _, body := range declared {
		for _, reference := range references(body) {
			assert.Contains(t, declared, reference)
		}
	}

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
	assert.Equal(t, policy.Statement[0].Action, list(t, statement["actions"]))
	assert.Equal(t, []string{policy.Statement[0].Resource}, list(t, statement["resources"]))
}

// references returns what a block's expressions refer to, such as aws_iam_role.server.
func references(body *hclsyntax.Body) (names []string) {
	for _, b := range body.Blocks {
		names = append(names, references(b.Body)...)
	}
	for _, a := range body.Attributes {
		for _, v := range a.Expr.Variables() {
			name := []string{v.RootName()}
			for _, step := range v[1:] {
				if len(name) < 2 || len(name) < 3 && name[0] == "data" {
					name = append(name, step.(hcl.TraverseAttr).Name)
				}
			}
			names = append(names, strings.Join(name, "."))
		}
	}
	return names
}

// list evaluates a list of strings as Terraform would in the account and region of policy.json.
func list(t *testing.T, a *hclsyntax.Attribute) (values []string) {
	t.Helper()
	object := func(name string, v cty.Value) cty.Value { return cty.ObjectVal(map[string]cty.Value{name: v}) }
	got, diagnostics := a.Expr.Value(&hcl.EvalContext{
		Functions: map[string]function.Function{"format": stdlib.FormatFunc},
		Variables: map[string]cty.Value{"data": cty.ObjectVal(map[string]cty.Value{
			"aws_region":          object("this", object("region", cty.StringVal("<region>"))),
			"aws_caller_identity": object("this", object("account_id", cty.StringVal("<account-id>"))),
		})},
	})
	require.False(t, diagnostics.HasErrors(), diagnostics.Error())
	for _, v := range got.AsValueSlice() {
		values = append(values, v.AsString())
	}
	return values
}
