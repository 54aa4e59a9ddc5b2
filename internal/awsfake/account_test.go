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

var secretName = aws.String("fleet")

// attempt calls an action once and returns the code of its error.
func attempt(t *testing.T, fake *awsfake.Server, action string) string {
	client := fake.Client(func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} })
	var err error
	switch action {
	case "CreateSecret":
		_, err = client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: secretName, SecretString: aws.String("a")})
	case "GetSecretValue":
		_, err = client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: secretName})
	case "PutSecretValue":
		_, err = client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: secretName, SecretString: aws.String("b")})
	case "UpdateSecretVersionStage":
		_, err = client.UpdateSecretVersionStage(t.Context(), &secretsmanager.UpdateSecretVersionStageInput{SecretId: secretName, VersionStage: aws.String("x")})
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	require.NoError(t, err)
	return ""
}

func TestQuotas(t *testing.T) {
	for action, c := range map[string]struct {
		share  float64
		others string // action that takes one call of the same quota
		left   int
	}{
		"CreateSecret":             {1, "GetSecretValue", 50},
		"PutSecretValue":           {1, "UpdateSecretVersionStage", 49},
		"UpdateSecretVersionStage": {0.1, "PutSecretValue", 4},
		"GetSecretValue":           {0.02, "CreateSecret", 200},
	} {
		synctest.Test(t, func(t *testing.T) {
			fake := awsfake.New()
			fake.Limit(c.share, 0)
			allowed := func(want int) {
				attempt(t, fake, c.others)
				for n := range want {
					require.NotEqual(t, "ThrottlingException", attempt(t, fake, action), "%s: call %d", action, n)
				}
				require.Equal(t, "ThrottlingException", attempt(t, fake, action), action)
			}
			allowed(c.left)
			time.Sleep(time.Second)
			allowed(c.left)
			require.Equal(t, 2, fake.Calls("throttled"))
		})
	}
}

func TestStaleReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awsfake.New()
		fake.Limit(1, 3*time.Second)
		require.Empty(t, attempt(t, fake, "CreateSecret"))
		time.Sleep(1500 * time.Millisecond)
		absent := 0
		for range 100 {
			if attempt(t, fake, "GetSecretValue") == "ResourceNotFoundException" {
				absent++
			}
		}
		require.InDelta(t, 50, absent, 30, "half of the reads see the time before")
		time.Sleep(1500 * time.Millisecond)
		for range 100 {
			require.Empty(t, attempt(t, fake, "GetSecretValue"))
		}
	})
}

func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awsfake.New()
		attempt(t, fake, "CreateSecret")
		fake.Inject(awsfake.Throttle(0))
		for range 9_999 {
			attempt(t, fake, "GetSecretValue")
		}
		require.InDelta(t, 0.05, fake.Cost(), 1e-9, "AWS asks for refused calls as well")
		time.Sleep(730 * time.Hour)
		require.InDelta(t, 0.05+0.40, fake.Cost(), 1e-9)
	})
}
