// Package aws proves that AWSStore keeps the promises of KeyStore on two servers: awsfake,
// which follows AWS's documentation, and moto, a third-party emulator that checks awsfake;
// make long adds LocalStack. It proves which permissions suffice, and that a fleet survives
// the faults of AWS (rows A1 to A11 of docs/faults.md): it serves, writes nothing wrong, says
// what to do, and recovers. TestFleet runs a fleet through its life on these and all other
// stores. The long form adds only LocalStack.
package aws

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/moto"
)

// onEach runs a test with a client of each server and the name of an absent secret.
func onEach(t *testing.T, test func(t *testing.T, client *secretsmanager.Client, name string)) {
	t.Run("fake", func(t *testing.T) { test(t, awsfake.New().Client(), freshName()) })
	t.Run("moto", func(t *testing.T) { test(t, moto.Client(t), freshName()) })
}

const awsName = "indicium/openid-server-production"

func freshName() string { return "indicium/openid-server-" + rand.Text() }

func open(t testing.TB, client *secretsmanager.Client, name string) *fleetkey.AWSStore {
	t.Helper()
	s, err := fleetkey.NewAWSStore(t.Context(), name, func(o *fleetkey.AWSOptions) { o.Client = client })
	require.NoError(t, err)
	return s
}

func mustSave(t testing.TB, s fleetkey.KeyStore, bundle string, prev fleetkey.Version) fleetkey.Version {
	t.Helper()
	v, err := s.Save(t.Context(), []byte(bundle), prev)
	require.NoError(t, err)
	return v
}

func requireHolds(t testing.TB, s fleetkey.KeyStore, bundle string, version fleetkey.Version) {
	t.Helper()
	b, v, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, bundle, string(b))
	require.Equal(t, version, v)
}

// opens returns a function that opens a secret with each call, as another instance would.
func opens(t testing.TB, client *secretsmanager.Client, name string) func() fleetkey.KeyStore {
	return func() fleetkey.KeyStore { return open(t, client, name) }
}

func TestConformance(t *testing.T) {
	test := func(t *testing.T, client *secretsmanager.Client) {
		fleetkeytest.TestKeyStore(t, func(t *testing.T) func() fleetkey.KeyStore { return opens(t, client, freshName()) })
	}
	t.Run("fake", func(t *testing.T) {
		fake := awsfake.Start(t)
		test(t, fake.Client(func(o *secretsmanager.Options) {
			o.BaseEndpoint = aws.String(fake.URL)
			o.HTTPClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		}))
	})
	t.Run("moto", func(t *testing.T) { test(t, moto.Client(t)) })
	t.Run("LocalStack", func(t *testing.T) { test(t, moto.LocalStack(t)) })
}

func TestOnlyCurrentMoves(t *testing.T) {
	onEach(t, func(t *testing.T, client *secretsmanager.Client, name string) {
		s := open(t, client, name)
		v := mustSave(t, s, "a", "")
		w := mustSave(t, s, "b", v)
		out, err := client.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(name)})
		require.NoError(t, err)
		require.Contains(t, out.VersionIdsToStages[string(w)], "AWSCURRENT")
		require.Contains(t, out.VersionIdsToStages[string(v)], "AWSPREVIOUS")
		for _, arn := range []string{*out.ARN, (*out.ARN)[:len(*out.ARN)-7]} {
			s := open(t, client, arn)
			requireHolds(t, s, "b", w)
			w = mustSave(t, s, "b", w)
		}
	})
}

// TestAWSStoreA4 loads a value that an operator stored as bytes, and one that is not text.
func TestAWSStoreA4(t *testing.T) {
	onEach(t, func(t *testing.T, client *secretsmanager.Client, name string) {
		out, err := client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(name), SecretBinary: []byte("a")})
		require.NoError(t, err)
		s := open(t, client, name)
		requireHolds(t, s, "a", fleetkey.Version(*out.VersionId))
		requireHolds(t, s, "\xff\x00\xfe", mustSave(t, s, "\xff\x00\xfe", fleetkey.Version(*out.VersionId)))
	})
}

// TestAWSStoreA7EmptyContainer: a secret without a version, as Terraform creates it, is
// absent for Load but exists for Save. A Signer distinguishes it from an absent secret.
func TestAWSStoreA7EmptyContainer(t *testing.T) {
	onEach(t, func(t *testing.T, client *secretsmanager.Client, name string) {
		_, err := client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(name)})
		require.NoError(t, err)
		s := open(t, client, name)
		for _, prev := range []fleetkey.Version{"", "some-version"} {
			_, err = s.Save(t.Context(), []byte("a"), prev)
			require.ErrorIs(t, err, fleetkey.ErrConflict)
		}
		_, _, err = s.Load(t.Context())
		require.ErrorIs(t, err, fleetkey.ErrNotExist, "AWS makes a first version current by itself")
	})
}

// TestAWSStoreA8: a save does not create a secret that was deleted permanently. A9: a secret
// that is scheduled for deletion is not absent, and can be restored.
func TestAWSStoreA8(t *testing.T) {
	onEach(t, func(t *testing.T, client *secretsmanager.Client, name string) {
		s, id := open(t, client, name), aws.String(name)
		v := mustSave(t, s, "a", "")
		_, err := client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: id})
		require.NoError(t, err)
		_, _, loadErr := s.Load(t.Context())
		_, saveErr := s.Save(t.Context(), []byte("b"), v)
		for _, err := range []error{loadErr, saveErr} {
			require.ErrorIs(t, err, fleetkey.ErrDeletionPending)
			require.NotErrorIs(t, err, fs.ErrNotExist)
			require.ErrorContains(t, err, "aws secretsmanager restore-secret --secret-id "+name+" --region eu-west-1")
		}
		_, err = s.Save(t.Context(), []byte("b"), "")
		// moto says that it exists.
		require.True(t, errors.Is(err, fleetkey.ErrDeletionPending) || errors.Is(err, fleetkey.ErrConflict), "%v", err)
		_, err = client.RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: id})
		require.NoError(t, err)
		requireHolds(t, s, "a", v)

		_, err = client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: id, ForceDeleteWithoutRecovery: aws.Bool(true)})
		require.NoError(t, err)
		_, err = s.Save(t.Context(), []byte("b"), v)
		require.ErrorIs(t, err, fleetkey.ErrConflict)
		require.ErrorContains(t, err, "no longer has a value")
		_, _, err = s.Load(t.Context())
		require.ErrorIs(t, err, fleetkey.ErrNotExist)
	})
}

// TestAWSStoreA6Hint: granting what the error asks for always suffices, and two actions
// suffice for everything except a rotation. For a secret that does not exist yet, AWS
// matches the policy against a made-up ARN or against the bare name.
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
