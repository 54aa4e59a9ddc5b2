package fleetkey_test

import (
	"io/fs"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// Secrets that are absent, empty, deleted, replaced, or out of reach at the
// start: fault matrix A7 to A10 and A16.

// TestAWSStoreA7 : a hundred instances start at once on an absent secret.
func TestAWSStoreA7(t *testing.T) {
	fake := awsfake.New()
	_, _, err := openAWS(t, fake, awsName).Load(t.Context())
	requireError(t, err, fleetkey.ErrNotExist, "check name, region and account")

	var wg sync.WaitGroup
	won := make(chan fleetkey.Version, 100)
	for i := range 100 {
		s := openAWS(t, fake, awsName)
		wg.Go(func() {
			v, err := s.Save(t.Context(), pemBundle(string(rune('A'+i))), "")
			if err == nil {
				won <- v
			} else {
				assert.ErrorIs(t, err, fleetkey.ErrConflict)
			}
		})
	}
	wg.Wait()
	require.Len(t, won, 1)
	_, v, err := openAWS(t, fake, awsName).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, <-won, v)
	require.Equal(t, 1, fake.Versions(awsName))
	require.Equal(t, 100, fake.Calls("CreateSecret"))
}

// TestAWSStoreA7EmptyContainer : Terraform's aws_secretsmanager_secret without
// a version. Load says absent, Save says taken; a Signer tells the two.
func TestAWSStoreA7EmptyContainer(t *testing.T) {
	fake := awsfake.New()
	s := openAWS(t, fake, awsName)
	_, err := fake.Client().CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(awsName)})
	require.NoError(t, err)
	_, _, err = s.Load(t.Context())
	requireError(t, err, fleetkey.ErrNotExist)
	_, err = s.Save(t.Context(), pemBundle("a"), "")
	requireError(t, err, fleetkey.ErrConflict)
	_, err = s.Save(t.Context(), pemBundle("a"), "some-version")
	requireError(t, err, fleetkey.ErrConflict)
	require.Zero(t, fake.Versions(awsName), "a first version would have become current by itself")
}

// TestAWSStoreA8 : deleted for good while running. Nothing is created.
func TestAWSStoreA8(t *testing.T) {
	fake := awsfake.New()
	s := openAWS(t, fake, awsName)
	v := mustSave(t, s, pemBundle("a"), "")
	_, err := fake.Client().DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{
		SecretId: aws.String(awsName), ForceDeleteWithoutRecovery: aws.Bool(true),
	})
	require.NoError(t, err)
	_, _, err = s.Load(t.Context())
	requireError(t, err, fleetkey.ErrNotExist)
	_, err = s.Save(t.Context(), pemBundle("b"), v)
	requireError(t, err, fleetkey.ErrConflict, "no value any more")
	require.Equal(t, 1, fake.Calls("CreateSecret"))
}

// TestAWSStoreA9 : scheduled for deletion is not absent, and restoring helps.
func TestAWSStoreA9(t *testing.T) {
	fake := awsfake.New()
	s := openAWS(t, fake, awsName)
	v := mustSave(t, s, pemBundle("a"), "")
	_, err := fake.Client().DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: aws.String(awsName)})
	require.NoError(t, err)

	const command = "aws secretsmanager restore-secret --secret-id " + awsName + " --region eu-west-1"
	_, _, err = s.Load(t.Context())
	requireError(t, err, fleetkey.ErrDeletionPending, command)
	require.NotErrorIs(t, err, fs.ErrNotExist)
	_, err = s.Save(t.Context(), pemBundle("b"), "")
	requireError(t, err, fleetkey.ErrDeletionPending, command)
	_, err = s.Save(t.Context(), pemBundle("b"), v)
	requireError(t, err, fleetkey.ErrDeletionPending, command)

	_, err = fake.Client().RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: aws.String(awsName)})
	require.NoError(t, err)
	requireHolds(t, s, pemBundle("a"), v)
}

// TestAWSStoreA10 : what an operator stores is returned as it is, under a
// version of its own, and a save over the old version does not overwrite it.
func TestAWSStoreA10(t *testing.T) {
	fake := awsfake.New()
	s := openAWS(t, fake, awsName)
	v := mustSave(t, s, pemBundle("a"), "")
	operatorPuts(t, fake, "{}")
	b, w, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "{}", string(b))
	require.NotEqual(t, v, w)
	_, err = s.Save(t.Context(), pemBundle("b"), v)
	requireError(t, err, fleetkey.ErrConflict)
	requireHolds(t, s, []byte("{}"), w)
}

// TestAWSStoreA16 : a store that is down at the start is an error of the first
// Load, not of NewAWSStore, and the same store works when AWS is back.
func TestAWSStoreA16(t *testing.T) {
	fake := awsfake.New()
	fake.Inject(awsfake.Fault{Status: 503})
	s := openAWS(t, fake, awsName)
	_, _, err := s.Load(t.Context())
	requireError(t, err, fleetkey.ErrUnavailable, "try again later")
	_, err = s.Save(t.Context(), pemBundle("a"), "")
	requireError(t, err, fleetkey.ErrUnavailable, "try again later")
	fake.Heal()
	requireHolds(t, s, pemBundle("a"), mustSave(t, s, pemBundle("a"), ""))
}

// operatorPuts stores a value as the AWS console does.
func operatorPuts(t testing.TB, fake *awsfake.Server, value string) {
	t.Helper()
	_, err := fake.Client().PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
		SecretId: aws.String(awsName), SecretString: aws.String(value),
	})
	require.NoError(t, err)
}
