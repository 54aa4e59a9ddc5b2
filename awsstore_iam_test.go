package fleetkey_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// Least privilege (fault matrix A6): what works under the literal two-action
// policy, and what the error says when it does not. awsfake judges resources as
// AWS does; moto cannot (AWS.md row 17).

const awsARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"

func twoActions(resources ...string) *awsfake.Policy {
	return &awsfake.Policy{
		Actions:   []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret"},
		Resources: resources,
	}
}

// eachReading runs a test under both readings of a secret that does not exist.
func eachReading(t *testing.T, p *awsfake.Policy, test func(t *testing.T, fake *awsfake.Server)) {
	for name, bare := range map[string]bool{"made-up ARN": false, "bare name": true} {
		t.Run(name, func(t *testing.T) {
			fake, policy := awsfake.New(), *p
			policy.BareNames = bare
			fake.Enforce(&policy)
			test(t, fake)
		})
	}
}

func TestAWSStoreA6TwoActionPolicy(t *testing.T) {
	eachReading(t, twoActions("arn:aws:secretsmanager:eu-west-1:123456789012:secret:indicium/openid-server-*"), func(t *testing.T, fake *awsfake.Server) {
		s := openAWS(t, fake, awsName)
		_, _, err := s.Load(t.Context())
		requireError(t, err, fleetkey.ErrNotExist)
		v := mustSave(t, s, pemBundle("a"), "")
		requireHolds(t, s, pemBundle("a"), v)

		_, err = s.Save(t.Context(), pemBundle("b"), v)
		requireError(t, err, fleetkey.ErrAccessDenied,
			"allow secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage on "+
				"arn:aws:secretsmanager:eu-west-1:<account-id>:secret:"+awsName+"*",
			"is not authorized to perform: secretsmanager:PutSecretValue")
		require.ErrorIs(t, err, fs.ErrPermission)
		requireHolds(t, s, pemBundle("a"), v)
	})
	t.Run("another name", func(t *testing.T) {
		fake := awsfake.New()
		fake.Enforce(twoActions(awsARN + "indicium/openid-server-*"))
		_, _, err := openAWS(t, fake, "indicium/other").Load(t.Context())
		requireError(t, err, fleetkey.ErrAccessDenied)
	})
}

// TestAWSStoreA6Hint : whatever is missing, granting what the error asks for is
// enough. The account is not in a name.
func TestAWSStoreA6Hint(t *testing.T) {
	eachReading(t, &awsfake.Policy{}, func(t *testing.T, fake *awsfake.Server) {
		s := openAWS(t, fake, awsName)
		policy := awsfake.Policy{BareNames: strings.HasSuffix(t.Name(), "bare_name")}
		grant := func(err error) {
			t.Helper()
			requireError(t, err, fleetkey.ErrAccessDenied)
			_, rest, ok := strings.Cut(err.Error(), "allow ")
			require.True(t, ok)
			actions, rest, ok := strings.Cut(rest, " on ")
			require.True(t, ok)
			resource, _, _ := strings.Cut(rest, ": operation")
			policy.Actions = append(policy.Actions, strings.Split(actions, " and ")...)
			policy.Resources = []string{strings.ReplaceAll(resource, "<account-id>", awsfake.Account)}
			p := policy
			fake.Enforce(&p)
		}
		_, _, err := s.Load(t.Context())
		grant(err)
		_, _, err = s.Load(t.Context())
		requireError(t, err, fleetkey.ErrNotExist)
		_, err = s.Save(t.Context(), pemBundle("a"), "")
		grant(err)
		v := mustSave(t, s, pemBundle("a"), "")
		_, err = s.Save(t.Context(), pemBundle("b"), v)
		grant(err)
		requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v))
		require.Len(t, policy.Actions, 4)
	})
}

// TestAWSStoreA6SuffixTrap : patterns that people write, and what becomes of
// them on a secret that does not exist yet, by reading of IAM.
func TestAWSStoreA6SuffixTrap(t *testing.T) {
	for _, c := range []struct {
		resource            string
		madeUpARN, bareName error
	}{
		{"arn:aws:secretsmanager:*:*:secret:" + awsName + "*", fleetkey.ErrNotExist, fleetkey.ErrNotExist},
		{"arn:aws:secretsmanager:*:*:secret:" + awsName + "-??????", fleetkey.ErrNotExist, fleetkey.ErrAccessDenied},
		{"arn:aws:secretsmanager:*:*:secret:" + awsName + "-*", fleetkey.ErrNotExist, fleetkey.ErrAccessDenied},
		{"arn:aws:secretsmanager:*:*:secret:" + awsName, fleetkey.ErrAccessDenied, fleetkey.ErrNotExist},
		{"*", fleetkey.ErrNotExist, fleetkey.ErrNotExist},
	} {
		t.Run(c.resource, func(t *testing.T) {
			eachReading(t, twoActions(c.resource), func(t *testing.T, fake *awsfake.Server) {
				want := c.madeUpARN
				if strings.HasSuffix(t.Name(), "bare_name") {
					want = c.bareName
				}
				_, _, err := openAWS(t, fake, awsName).Load(t.Context())
				requireError(t, err, want)
			})
		})
	}
}

// TestAWSStoreA6EachAction : one action missing at a time.
func TestAWSStoreA6EachAction(t *testing.T) {
	denied := func(action string) awsfake.Fault {
		return awsfake.Fault{Action: action, Error: &awsfake.Error{Code: "AccessDeniedException",
			Message: "User is not authorized to perform: secretsmanager:" + action}}
	}
	for _, c := range []struct {
		action string
		fault  awsfake.Fault
		want   error
		says   string
	}{
		{"CreateSecret", denied("CreateSecret"), fleetkey.ErrAccessDenied, "allow secretsmanager:CreateSecret on arn:"},
		{"PutSecretValue", denied("PutSecretValue"), fleetkey.ErrAccessDenied, "PutSecretValue and secretsmanager:UpdateSecretVersionStage on arn:"},
		{"UpdateSecretVersionStage", denied("UpdateSecretVersionStage"), fleetkey.ErrAccessDenied, "PutSecretValue and secretsmanager:UpdateSecretVersionStage on arn:"},
		{"CreateSecret", awsfake.KMSDenied("CreateSecret"), fs.ErrPermission, "allow kms:Decrypt and kms:GenerateDataKey on the secret's KMS key"},
		{"PutSecretValue", awsfake.KMSDenied("PutSecretValue"), fs.ErrPermission, "allow kms:Decrypt and kms:GenerateDataKey on the secret's KMS key"},
		{"CreateSecret", awsfake.Fault{Action: "CreateSecret", Error: &awsfake.Error{Code: "EncryptionFailure", Message: "no"}}, nil, "KMS key: is it enabled"},
		{"CreateSecret", awsfake.Fault{Action: "CreateSecret", Error: &awsfake.Error{Code: "ResourceNotFoundException", Message: "no such key"}}, nil, "does the KMS key exist"},
		{"CreateSecret", awsfake.Fault{Action: "CreateSecret", Error: &awsfake.Error{Code: "LimitExceededException", Message: "too many secrets"}}, nil, "quota"},
	} {
		t.Run(c.action+" "+c.fault.Error.Code, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName)
			var v fleetkey.Version
			if c.action != "CreateSecret" {
				v = mustSave(t, s, pemBundle("a"), "")
			}
			fake.Inject(c.fault)
			_, err := s.Save(t.Context(), pemBundle("b"), v)
			requireError(t, err, c.want, c.says, "save AWS secret")
		})
	}
	t.Run("replicas need one more", func(t *testing.T) {
		fake := awsfake.New()
		fake.Enforce(twoActions("*"))
		s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) { o.ReplicaRegions = []string{"eu-central-1"} })
		_, err := s.Save(t.Context(), pemBundle("a"), "")
		requireError(t, err, fleetkey.ErrAccessDenied, "secretsmanager:CreateSecret and secretsmanager:ReplicateSecretToRegions")
	})
}

// TestAWSStoreA6Partitions : the ARN to grant, by what is known of it.
func TestAWSStoreA6Partitions(t *testing.T) {
	for _, c := range []struct{ secret, region, says string }{
		{"indicium/keys", "eu-west-1", "arn:aws:secretsmanager:eu-west-1:<account-id>:secret:indicium/keys*"},
		{"indicium/keys", "cn-north-1", "arn:aws-cn:secretsmanager:cn-north-1:<account-id>:secret:indicium/keys*"},
		{"indicium/keys", "us-gov-west-1", "arn:aws-us-gov:secretsmanager:us-gov-west-1:<account-id>:secret:indicium/keys*"},
		{"indicium/keys", "eusc-de-east-1", "arn:aws-eusc:secretsmanager:eusc-de-east-1:<account-id>:secret:indicium/keys*"},
		{awsARN + "indicium/keys-a1B2c3", "", awsARN + "indicium/keys-a1B2c3: "},
		{awsARN + "indicium/keys", "", awsARN + "indicium/keys*: "},
	} {
		t.Run(c.secret+" "+c.region, func(t *testing.T) {
			fake := awsfake.New()
			fake.Inject(awsfake.Fault{Error: &awsfake.Error{Code: "AccessDeniedException"}})
			s := openAWS(t, fake, c.secret, func(o *fleetkey.AWSOptions) { o.Region = c.region })
			_, _, err := s.Load(t.Context())
			require.ErrorIs(t, err, fleetkey.ErrAccessDenied)
			require.ErrorContains(t, err, "allow secretsmanager:GetSecretValue on "+c.says)
		})
	}
}
