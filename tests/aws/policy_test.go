package aws

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// TestAWSStoreA6Hint : granting what the error asks for is enough, whatever is missing,
// and two actions suffice for everything but a rotation. AWS judges a secret that does not
// exist by a made-up ARN or by its bare name.
func TestAWSStoreA6Hint(t *testing.T) {
	for _, bare := range []bool{false, true} {
		fake := awsfake.New()
		policy := awsfake.Policy{BareNames: bare}
		fake.Enforce(&policy)
		s := open(t, fake.Client(), awsName)
		allow := func(err error, want string) {
			t.Helper()
			require.ErrorIs(t, err, fleetkey.ErrAccessDenied)
			_, rest, _ := strings.Cut(err.Error(), "allow ")
			actions, rest, _ := strings.Cut(rest, " on ")
			resource, _, _ := strings.Cut(rest, ": operation")
			require.Equal(t, want, actions)
			policy.Resources = []string{strings.ReplaceAll(resource, "<account-id>", awsfake.Account)}
			policy.Actions = append(policy.Actions, strings.Split(actions, " and ")...)
		}
		_, _, err := s.Load(t.Context())
		allow(err, "secretsmanager:GetSecretValue")
		_, _, err = s.Load(t.Context())
		require.ErrorIs(t, err, fleetkey.ErrNotExist)
		_, err = s.Save(t.Context(), []byte("a"), "")
		allow(err, "secretsmanager:CreateSecret")
		v := mustSave(t, s, "a", "")
		requireHolds(t, s, "a", v)

		_, err = s.Save(t.Context(), []byte("b"), v)
		requireHolds(t, s, "a", v)
		allow(err, "secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage")
		requireHolds(t, s, "b", mustSave(t, s, "b", v))
		_, _, err = open(t, fake.Client(), "indicium/other").Load(t.Context())
		require.ErrorIs(t, err, fleetkey.ErrAccessDenied)
	}
}
