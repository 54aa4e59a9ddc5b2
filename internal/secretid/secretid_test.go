package secretid_test

import (
	"cmp"
	"strings"
	"testing"

	"github.com/fleetkey/fleetkey/internal/secretid"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	const arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
	for _, c := range []struct{ name, text, fails string }{
		{"plain", "keys", ""},
		{"longest", strings.Repeat("k", 512), ""},
		{"too long", strings.Repeat("k", 513), "1 to 512"},
		{"empty", "", "1 to 512"},
		{"line end", "keys\n", "A-Z a-z"},
		{"ends like an ARN", "indicium/openid-server", "-server"},
		{"ARN", arn + "keys-a1B2c3", ""},
		{"ARN of another service", "arn:aws:ssm:eu-west-1:123456789012:parameter/keys", "not the ARN of a secret"},
		{"ARN without region", "arn:aws:secretsmanager::123456789012:secret:keys", "not the ARN of a secret"},
		{"ARN without account", "arn:aws:secretsmanager:eu-west-1::secret:keys", "not the ARN of a secret"},
		{"ARN without name", arn + "-a1B2c3", "1 to 512"},
	} {
		id, err := secretid.Parse(c.text)
		if c.fails != "" {
			require.ErrorContains(t, err, c.fails, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Equal(t, c.text, id.String())
	}
}

// TestAWSStoreA6Partitions tests the ARN that errors say to grant.
func TestAWSStoreA6Partitions(t *testing.T) {
	const arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
	for _, c := range []struct{ secret, region, want string }{
		{"a/keys", "eu-west-1", "arn:aws:secretsmanager:eu-west-1:<account-id>:secret:a/keys*"},
		{"a/keys", "cn-north-1", "arn:aws-cn:secretsmanager:cn-north-1:<account-id>:secret:a/keys*"},
		{"a/keys", "us-gov-west-1", "arn:aws-us-gov:secretsmanager:us-gov-west-1:<account-id>:secret:a/keys*"},
		{"a/keys", "eusc-de-east-1", "arn:aws-eusc:secretsmanager:eusc-de-east-1:<account-id>:secret:a/keys*"},
		{arn + "a/keys-a1B2c3", "eu-west-1", arn + "a/keys-a1B2c3"},
		{arn + "a/keys", "eu-west-1", arn + "a/keys*"},
	} {
		id, err := secretid.Parse(c.secret)
		require.NoError(t, err)
		require.Equal(t, c.want, id.Resource(c.region))
	}
}

// FuzzParse: an accepted ID has a valid name, and the policy that errors suggest matches the
// ARN before and after the secret exists.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"fleet/signing", "a+b=c@d.e_f", "x-abcdef", "é", "", strings.Repeat("n", 513),
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:fleet/signing-abcdef",
		"arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:a-b-cdefgh",
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:a*-abcdef",
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:a:b", "arn::::::", "arn:*:secretsmanager:*:123456789012:secret:a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := secretid.Parse(text)
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.Equal(t, text, id.String())
		require.Regexp(t, `^[A-Za-z0-9/_+=.@-]{1,512}$`, id.Name)
		require.Equal(t, strings.HasPrefix(text, "arn:"), id.Region != "", "only an ARN has a region")
		arn := strings.TrimSuffix(text, id.Suffix)
		if id.Region == "" {
			arn = "arn:aws:secretsmanager:eu-west-1:<account-id>:secret:" + text
		}
		resource := id.Resource(cmp.Or(id.Region, "eu-west-1"))
		if id.Suffix != "" {
			require.Equal(t, text, resource, "a complete ARN must be granted as it is")
			return
		}
		require.Equal(t, arn+"*", resource, "must match before and after the secret exists")
	})
}
