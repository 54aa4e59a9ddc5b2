package main

import (
	"cmp"
	"strings"

	"github.com/fleetkey/fleetkey/internal/secretid"
)

// policyCmd prints the permissions that the servers' role requires.
type policyCmd struct {
	Region   string `placeholder:"REGION" help:"AWS region of the secret, such as eu-west-1."`
	Account  string `placeholder:"ID" help:"AWS account ID (12 digits)."`
	Secret   string `required:"" placeholder:"NAME" help:"Name of the secret, or its ARN, which contains region and account."`
	Exact    bool   `help:"Grant only this secret, not all secrets that share its name up to the last hyphen."`
	Rotation bool   `help:"Also allow replacing the value, for servers that rotate and for fleetkey rotate, revoke and import."`
	KMSKey   string `name:"kms-key" placeholder:"ARN" help:"Also allow using the secret's customer managed key."`
}

// Run prints the policy alone to standard output, for
// `aws iam put-role-policy --policy-document`.
func (c *policyCmd) Run(a *app) error {
	resource, err := c.resource()
	if err != nil {
		return err
	}
	actions := []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret"}
	if c.Rotation {
		actions = append(actions, "secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage")
	}
	p := iamPolicy{Version: "2012-10-17", Statement: []iamStatement{{"Allow", actions, resource}}}
	if c.KMSKey != "" {
		p.Statement = append(p.Statement, iamStatement{"Allow", []string{"kms:Decrypt", "kms:GenerateDataKey"}, c.KMSKey})
	}
	if err := a.printJSON(p); err != nil {
		return err
	}
	a.note("%s", c.explain())
	return nil
}

type iamPolicy struct {
	Version   string
	Statement []iamStatement
}

type iamStatement struct {
	Effect   string
	Action   []string
	Resource any // a string or several
}

// resource returns one or two patterns. Each matches the secret's ARN after it exists and,
// with or without made-up characters, before.
func (c *policyCmd) resource() (any, error) {
	id, err := secretid.Parse(c.Secret)
	if err != nil {
		return nil, usageError("--secret: " + err.Error())
	}
	region := cmp.Or(id.Region, c.Region)
	if id.Region == "" && (!secretid.IsRegion(region) || len(c.Account) != 12 || strings.Trim(c.Account, "0123456789") != "") {
		return nil, usageError("--region and --account (12 digits) are required, unless --secret is an ARN")
	}
	arn := strings.Replace(id.Resource(region), "<account-id>", c.Account, 1) // a name leaves it open
	arn = strings.TrimSuffix(strings.TrimSuffix(arn, "*"), id.Suffix)
	c.Secret = id.Name // for explain
	if c.Exact {
		return []string{arn, arn + "-??????"}, nil
	}
	// A hyphen of a folder would grant far too much.
	if i := strings.LastIndexByte(arn, '-'); i > strings.LastIndexAny(arn, "/:")+1 {
		return arn[:i] + "-*", nil
	}
	return arn + "*", nil
}

func (c *policyCmd) explain() string {
	text := "\nAWS adds a hyphen and six random characters to the name of a secret, and IAM judges the\n" +
		"name with them; before the secret exists, perhaps without. The pattern above\nmatches both, unlike  " + c.Secret + " or " + c.Secret + "-??????."
	if c.Exact {
		text += "\nIt consists of two lines, and grants only this secret."
	} else {
		text += "\nIt also matches other secrets with the same beginning, such as those of another stage (test,\n" +
			"production) in the same account; use --exact to avoid that."
	}
	if !c.Rotation {
		text += "\nThis is enough while rotation is off. With --rotation, servers may also replace the keys."
	}
	return text
}
