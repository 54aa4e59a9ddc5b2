package fleetkey_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// What AWSStore makes of AWS's failures: which error it matches, what it says,
// how many calls it costs and how long it takes.

// sentinels are the errors a Signer acts upon.
var sentinels = map[string]error{
	"ErrNotExist":        fleetkey.ErrNotExist,
	"ErrConflict":        fleetkey.ErrConflict,
	"ErrAccessDenied":    fleetkey.ErrAccessDenied,
	"ErrDeletionPending": fleetkey.ErrDeletionPending,
}

// requireError checks that err matches want and none of the other sentinels,
// names the secret and its region, and says each of the texts.
func requireError(t testing.TB, err, want error, says ...string) {
	t.Helper()
	require.Error(t, err)
	for name, sentinel := range sentinels {
		require.Equal(t, errors.Is(want, sentinel), errors.Is(err, sentinel), "%s: %v", name, err)
	}
	if want != nil {
		require.ErrorIs(t, err, want)
	}
	for _, text := range append(says, "AWS secret indicium/", " in eu-west-1: ") {
		require.ErrorContains(t, err, text)
	}
}

// TestAWSStoreFaultsOfLoad is A1 to A6 of the fault matrix, as far as they are
// an answer of the server. Nothing is repeated beyond the SDK's own attempts.
func TestAWSStoreFaultsOfLoad(t *testing.T) {
	apiError := func(code, message string) awsfake.Fault {
		return awsfake.Fault{Error: &awsfake.Error{Code: code, Message: message}}
	}
	for _, c := range []struct {
		name  string
		fault awsfake.Fault
		calls int
		want  error
		says  []string
	}{
		{"A1 throttled for 1000 calls", awsfake.Throttle(1000), 3, nil, []string{"throttles", "ThrottlingException"}},
		{"A1 HTTP 429", awsfake.Fault{Status: 429, Body: "slow down"}, 3, nil, []string{"throttles"}},
		{"A2 500 as JSON", awsfake.Fault{Error: &awsfake.Error{Code: "InternalServiceError", Message: "sorry", Status: 500}}, 3, nil, []string{"HTTP status 500"}},
		{"A2 503 as HTML", awsfake.Fault{Status: 503, Body: "<html>"}, 3, nil, []string{"HTTP status 503"}},
		{"A2 503 empty", awsfake.Fault{Status: 503}, 3, nil, []string{"HTTP status 503"}},
		{"A2 200 empty", awsfake.Fault{Status: 200}, 1, nil, []string{"GetSecretValue: the answer is not one of Secrets Manager"}},
		{"A2 200 as HTML", awsfake.Fault{Body: "<html>"}, 1, nil, []string{"not one of Secrets Manager", "HTTP status 200"}},
		{"A2 404 as HTML is not absence", awsfake.Fault{Status: 404, Body: "<html>"}, 1, nil, []string{"not one of Secrets Manager", "HTTP status 404"}},
		{"A3 connection dropped", awsfake.Fault{Lost: true}, 3, nil, []string{"cannot be reached"}},
		{"A3 cut off in mid-body", awsfake.Fault{Cut: true}, 1, nil, []string{"the answer broke off"}},
		{"A4 garbage", awsfake.Fault{Body: `{"SecretString":`}, 1, nil, []string{"not one of Secrets Manager"}},
		{"A4 foreign JSON", awsfake.Fault{Body: `{"ok": true}`}, 1, nil, []string{"not one of Secrets Manager"}},
		{"A4 no VersionId", awsfake.Fault{Body: `{"SecretString": "x"}`}, 1, nil, []string{"not one of Secrets Manager"}},
		{"A4 no value", awsfake.Fault{Body: `{"VersionId": "x"}`}, 1, nil, []string{"not one of Secrets Manager"}},
		{"A5 expired", awsfake.Expired(), 1, nil, []string{"expired: renew them"}},
		{"A5 unknown key", apiError("UnrecognizedClientException", "The security token included in the request is invalid."), 1, nil, []string{"does not accept the credentials"}},
		{"A5 wrong clock or key", apiError("InvalidSignatureException", "Signature expired"), 1, nil, []string{"the clock"}},
		{"A6 KMS key unusable", apiError("DecryptionFailure", "Secrets Manager can't decrypt"), 1, nil, []string{"KMS key: is it enabled"}},
		{"A6 KMS key denied", awsfake.KMSDenied(""), 1, fs.ErrPermission, []string{"allow kms:Decrypt on the secret's KMS key"}},
		{"A6 denied by an emulator", awsfake.Fault{Status: 403, Body: "<AccessDenied/>"}, 1, fleetkey.ErrAccessDenied, []string{"secretsmanager:GetSecretValue"}},
		{"other code", apiError("InvalidParameterException", "no"), 1, nil, []string{"InvalidParameterException: no"}},
		{"invalid request", apiError("InvalidRequestException", "no"), 1, nil, []string{"InvalidRequestException: no"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName)
			v := mustSave(t, s, pemBundle("a"), "")
			fake.Inject(c.fault)
			b, got, err := s.Load(t.Context())
			requireError(t, err, c.want, append(c.says, "load AWS secret")...)
			assert.Nil(t, b)
			assert.Empty(t, got)
			assert.Equal(t, c.calls, fake.Calls("GetSecretValue"))

			fake.Heal()
			requireHolds(t, s, pemBundle("a"), v)
			assert.Equal(t, 1, fake.Versions(awsName), "a fault of reading must not write")
		})
	}
}

// TestAWSStoreA1 : the SDK's own attempts get over a short throttling.
func TestAWSStoreA1(t *testing.T) {
	fake := awsfake.New()
	s := openAWS(t, fake, awsName)
	v := mustSave(t, s, pemBundle("a"), "")
	fake.Inject(awsfake.Throttle(2))
	requireHolds(t, s, pemBundle("a"), v)

	t.Run("back-off of the SDK itself", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) {
				o.Client = fake.Client(func(o *secretsmanager.Options) { o.Retryer = retry.NewStandard() })
			})
			fake.Inject(awsfake.Throttle(1000))
			start := time.Now()
			for range 20 {
				_, _, err := s.Load(t.Context())
				require.Error(t, err)
			}
			fake.Heal()
			require.Greater(t, time.Since(start), 5*time.Second, "20 failed loads, 40 pauses")
		})
	})
}

// TestAWSStoreA3 : every call ends by itself, and sooner if the caller says so.
func TestAWSStoreA3(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault awsfake.Fault
	}{
		{"no answer", awsfake.Fault{Hang: true}},
		{"a byte a second", awsfake.Fault{Trickle: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := awsfake.New()
				s := openAWS(t, fake, awsName)
				v := mustSave(t, s, pemBundle("a"), "")
				fake.Inject(c.fault)

				start := time.Now()
				_, _, err := s.Load(t.Context())
				requireError(t, err, context.DeadlineExceeded, "no answer within 10s")
				require.Equal(t, 10*time.Second, time.Since(start))

				start = time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _, err = s.Load(ctx)
				requireError(t, err, context.DeadlineExceeded)
				require.Equal(t, time.Second, time.Since(start))

				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				_, err = s.Save(ctx, pemBundle("b"), v)
				requireError(t, err, context.Canceled)
			})
		})
	}
	t.Run("each call of a save", func(t *testing.T) {
		for action, limit := range map[string]time.Duration{
			"CreateSecret": 30 * time.Second, "PutSecretValue": 10 * time.Second, "UpdateSecretVersionStage": 10 * time.Second,
		} {
			synctest.Test(t, func(t *testing.T) {
				fake := awsfake.New()
				s := openAWS(t, fake, awsName)
				fake.Inject(awsfake.Fault{Action: action, Hang: true})
				start := time.Now()
				prev, err := s.Save(t.Context(), pemBundle("a"), "")
				if action != "CreateSecret" {
					require.NoError(t, err)
					_, err = s.Save(t.Context(), pemBundle("b"), prev)
				}
				requireError(t, err, context.DeadlineExceeded, "no answer within "+limit.String(), action)
				require.GreaterOrEqual(t, time.Since(start), limit)
				require.Less(t, time.Since(start), limit+2*10*time.Second, "and the search for the outcome")
			})
		}
	})
	t.Run("option Timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) { o.Timeout = time.Second })
			fake.Inject(awsfake.Fault{Hang: true})
			start := time.Now()
			_, _, err := s.Load(t.Context())
			requireError(t, err, context.DeadlineExceeded, "no answer within 1s")
			_, err = s.Save(t.Context(), pemBundle("a"), "")
			requireError(t, err, context.DeadlineExceeded, "no answer within 3s")
			require.Equal(t, 4*time.Second, time.Since(start))
		})
	})
}

// TestAWSStoreA3Sockets : what a function call cannot show.
func TestAWSStoreA3Sockets(t *testing.T) {
	plain, tls := awsfake.Start(t), httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	t.Cleanup(tls.Close)
	for _, c := range []struct{ name, url, says string }{
		{"refused", "http://127.0.0.1:1", "connection refused"},
		{"unknown certificate", tls.URL, "certificate"},
		{"TLS to a plain server", "https" + plain.URL[len("http"):], "HTTP response to HTTPS client"},
		{"no such host", "http://secretsmanager.invalid", "secretsmanager.invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openAWS(t, plain, awsName, func(o *fleetkey.AWSOptions) {
				o.Client = plain.Client(func(o *secretsmanager.Options) {
					o.HTTPClient, o.BaseEndpoint = http.DefaultClient, aws.String(c.url)
				})
			})
			_, _, err := s.Load(t.Context())
			requireError(t, err, nil, "cannot be reached", c.says)
		})
	}
	t.Run("answers broken off", func(t *testing.T) {
		s := openAWS(t, plain, awsName, func(o *fleetkey.AWSOptions) {
			o.Client = plain.Client(func(o *secretsmanager.Options) {
				o.HTTPClient, o.BaseEndpoint = http.DefaultClient, aws.String(plain.URL)
			})
		})
		v := mustSave(t, s, pemBundle("a"), "")
		for says, f := range map[string]awsfake.Fault{"cannot be reached": {Lost: true}, "broke off": {Cut: true}} {
			plain.Inject(f)
			_, _, err := s.Load(t.Context())
			requireError(t, err, nil, says)
			plain.Heal()
			requireHolds(t, s, pemBundle("a"), v)
		}
	})
}

// TestAWSStoreA4 : a value that an operator stored as bytes, and one that is no
// text.
func TestAWSStoreA4(t *testing.T) {
	fake := awsfake.New()
	s := openAWS(t, fake, awsName)
	_, err := fake.Client().CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{
		Name: aws.String(awsName), SecretBinary: pemBundle("a"),
	})
	require.NoError(t, err)
	b, v, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, pemBundle("a"), b)

	notText := []byte{0xff, 0, 1, 2, 0xfe}
	requireHolds(t, s, notText, mustSave(t, s, notText, v))
}

// TestAWSStoreA5 : no credentials at all, and credentials that come back.
func TestAWSStoreA5(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		clearAWSEnv(t)
		fake := awsfake.Start(t)
		fake.Setenv(t)
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		s, err := fleetkey.NewAWSStore(t.Context(), awsName)
		require.NoError(t, err)
		_, _, err = s.Load(t.Context())
		requireError(t, err, nil, "no AWS credentials: give the server a role")
		_, err = s.Save(t.Context(), pemBundle("a"), "")
		requireError(t, err, nil, "no AWS credentials")
		require.Zero(t, fake.Calls(""))
	})
	t.Run("none, and the metadata service silent", func(t *testing.T) {
		clearAWSEnv(t)
		silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		t.Cleanup(silent.Close)
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent.URL)
		s, err := fleetkey.NewAWSStore(t.Context(), awsName, func(o *fleetkey.AWSOptions) {
			o.Region, o.Timeout = "eu-west-1", 300*time.Millisecond
		})
		require.NoError(t, err)
		_, _, err = s.Load(t.Context())
		requireError(t, err, context.DeadlineExceeded, "no AWS credentials")
	})
	t.Run("expired, then renewed", func(t *testing.T) {
		fake := awsfake.New()
		s := openAWS(t, fake, awsName)
		v := mustSave(t, s, pemBundle("a"), "")
		fake.Inject(awsfake.Expired())
		_, err := s.Save(t.Context(), pemBundle("b"), v)
		requireError(t, err, nil, "expired")
		fake.Heal()
		requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v))
	})
}

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
	requireError(t, err, nil, "try again later")
	_, err = s.Save(t.Context(), pemBundle("a"), "")
	requireError(t, err, nil, "try again later")
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
