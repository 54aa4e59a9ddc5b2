package awsfake_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// TestAccount checks what the figures of tests/scale depend on: quotas, stale reads and prices.
func TestAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, id := awsfake.New(), aws.String("fleet")
		fake.Limit(0.1, 3*time.Second)
		client := fake.Client(func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} })
		// answers counts the calls by error code.
		answers := func(calls int, call func() error) map[string]int {
			codes := map[string]int{}
			for range calls {
				code := ""
				if api, ok := errors.AsType[smithy.APIError](call()); ok {
					code = api.ErrorCode()
				}
				codes[code]++
			}
			return codes
		}
		create := func() error {
			_, err := client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: id, SecretString: aws.String("a")})
			return err
		}
		put := func() error {
			_, err := client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: id, SecretString: aws.String("b")})
			return err
		}
		move := func() error {
			_, err := client.UpdateSecretVersionStage(t.Context(),
				&secretsmanager.UpdateSecretVersionStageInput{SecretId: id, VersionStage: aws.String("x")})
			return err
		}
		get := func() error {
			_, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: id})
			return err
		}
		require.Equal(t, map[string]int{"": 1, "ResourceExistsException": 4, "ThrottlingException": 1}, answers(6, create))
		require.Equal(t, map[string]int{"": 5, "ThrottlingException": 1}, answers(6, put))
		require.Equal(t, map[string]int{"ThrottlingException": 1}, answers(1, move), "the same quota")
		time.Sleep(1500 * time.Millisecond)
		require.InDelta(t, 500, answers(1000, get)["ResourceNotFoundException"], 200, "half of the reads see the state before the creation")
		require.Equal(t, map[string]int{"ThrottlingException": 1}, answers(1, get))
		time.Sleep(1500 * time.Millisecond)
		require.Equal(t, map[string]int{"": 1000}, answers(1000, get))
		require.Equal(t, 4, fake.Calls("throttled"))
		require.InDelta(t, 2014*0.05/10_000, fake.Cost(), 0.00001, "AWS charges for rejected calls too")
		time.Sleep(730*time.Hour - 3*time.Second)
		require.InDelta(t, 2014*0.05/10_000+0.40, fake.Cost(), 0.00001)
	})
}
