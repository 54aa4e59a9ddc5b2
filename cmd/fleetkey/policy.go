package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/fleetkey/fleetkey"
)

// policyCmd prints what the servers' role has to be allowed.
type policyCmd struct {
	Region   string `placeholder:"REGION" help:"AWS region of the secret, such as eu-west-1."`
	Account  string `placeholder:"ID" help:"The account's 12 digits."`
	Secret   string `required:"" placeholder:"NAME" help:"The secret's name; or its ARN, which tells region and account."`
	Prefix   string `placeholder:"PREFIX" help:"Grant PREFIX-*; default: the name up to its last hyphen."`
	Exact    bool   `help:"Grant this secret alone, and not all that begin alike."`
	Rotation bool   `help:"Also allow replacing the value: servers that rotate, and fleetkey rotate, revoke and import."`
	KMSKey   string `name:"kms-key" placeholder:"ARN" help:"Also allow the use of the secret's customer managed key."`
}

// Run is called by kong. The policy alone goes to standard output, for
// `aws iam put-role-policy --policy-document`.
func (c *policyCmd) Run(a *app) error {
	if err := c.complete(); err != nil {
		return err
	}
	resources, err := c.resources()
	if err != nil {
		return err
	}
	if err := c.check(resources); err != nil {
		return err
	}
	actions := []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret"}
	if c.Rotation {
		actions = append(actions, "secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage")
	}
	p := iamPolicy{Version: "2012-10-17", Statement: []iamStatement{{"Allow", actions, oneOrMany(resources)}}}
	if c.KMSKey != "" {
		p.Statement = append(p.Statement, iamStatement{"Allow", []string{"kms:Decrypt", "kms:GenerateDataKey"}, c.KMSKey})
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(p); err != nil {
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

// oneOrMany writes a single string as such, as people do in policies.
func oneOrMany(list []string) any {
	if len(list) == 1 {
		return list[0]
	}
	return list
}

// complete takes an ARN apart, and has the library check the name.
func (c *policyCmd) complete() error {
	secret := c.Secret
	if parsed, err := arn.Parse(secret); err == nil {
		c.Region, c.Account = parsed.Region, parsed.AccountID
		c.Secret = strings.TrimPrefix(parsed.Resource, "secret:")
		if n := len(c.Secret) - 7; n > 0 && c.Secret[n] == '-' {
			c.Secret = c.Secret[:n] // less what AWS has added
		}
	}
	if c.Region == "" || len(c.Account) != 12 || strings.Trim(c.Account, "0123456789") != "" {
		return usageError("--region and --account (12 digits) are needed, unless --secret is an ARN")
	}
	client := secretsmanager.New(secretsmanager.Options{Region: c.Region}) // asks nothing of AWS
	_, err := fleetkey.NewAWSStore(context.Background(), secret, func(o *fleetkey.AWSOptions) { o.Client = client })
	if err != nil {
		return usageError(err.Error())
	}
	return nil
}

func (c *policyCmd) resources() ([]string, error) {
	base := "arn:" + partition(c.Region) + ":secretsmanager:" + c.Region + ":" + c.Account + ":secret:"
	switch {
	case c.Exact && c.Prefix != "":
		return nil, usageError("--exact and --prefix exclude each other")
	case c.Exact:
		return []string{base + c.Secret, base + c.Secret + "-??????"}, nil
	case c.Prefix != "":
		return []string{base + strings.TrimSuffix(c.Prefix, "-") + "-*"}, nil
	}
	// A hyphen of a folder would grant far too much.
	if i := strings.LastIndexByte(c.Secret, '-'); i > strings.LastIndexByte(c.Secret, '/')+1 {
		return []string{base + c.Secret[:i] + "-*"}, nil
	}
	return []string{base + c.Secret + "*"}, nil
}

func partition(region string) string {
	for prefix, partition := range map[string]string{"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc"} {
		if strings.HasPrefix(region, prefix) {
			return partition
		}
	}
	return "aws"
}

// check makes sure that the patterns fit the secret's ARN as AWS may judge it
// before the secret exists (with or without a made-up ending) and after.
func (c *policyCmd) check(patterns []string) error {
	base := "arn:" + partition(c.Region) + ":secretsmanager:" + c.Region + ":" + c.Account + ":secret:" + c.Secret
	for _, judged := range []string{base, base + "-Ab3xYz"} {
		fits := false
		for _, p := range patterns {
			fits = fits || matches(p, judged)
		}
		if !fits {
			return fmt.Errorf("the pattern %s does not match %s: give a --prefix that the name begins with, up to one of its hyphens",
				strings.Join(patterns, ", "), judged)
		}
	}
	return nil
}

// matches is IAM's: * stands for anything, slashes included, ? for one character.
func matches(pattern, s string) bool {
	flat := strings.NewReplacer("/", "\x00", "[", "\x01", "\\", "\x02")
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(s))
	return err == nil && ok
}

func (c *policyCmd) explain() string {
	text := `
AWS adds a hyphen and six random characters to the name of a secret, and IAM
judges the name with them. Before the secret exists it may be judged without.
So a Resource that ends in
  :secret:` + c.Secret + `
lets nobody read, and one that ends in
  :secret:` + c.Secret + `-??????
may not let the first server create it. What is granted above matches both;
that was checked.`
	switch {
	case c.Exact:
		text += `
It takes two lines, and grants this secret alone.`
	default:
		text += `
It also matches every other secret that begins alike, such as those of another
stage (test, production) in the same account: with --exact it would not.`
	}
	if !c.Rotation {
		text += `
This is all that servers need while rotation is off. With --rotation they may
also replace the keys.`
	}
	return text
}
