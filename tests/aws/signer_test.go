package aws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// What a running Signer makes of the faults of AWS, in virtual time.

const awsName = "indicium/openid-server-production"

func inBubble(t *testing.T, name string, test func(t *testing.T, fake *awsfake.Server)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, awsfake.New()) })
	})
}

func startOn(t testing.TB, fake *awsfake.Server, cfg fleetkey.Config) *fleetkey.Signer {
	return testkit.Start(t, open(t, fake.Client(), awsName), cfg)
}

// Whatever fails, a running instance keeps serving without waiting, calls AWS rarely, makes
// no keys, says what is wrong, and recovers without a restart.
func TestSignerOnAWSGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		fault awsfake.Fault
		says  string
	}{
		"A1 throttled":           {awsfake.Throttle(0), "throttles"},
		"A2 HTML with 503":       {awsfake.Fault{Status: http.StatusServiceUnavailable, Body: "<html>"}, "HTTP status 503"},
		"A3 no answer":           {awsfake.Fault{Hang: true}, "no answer within"},
		"A4 garbage":             {awsfake.Fault{Body: `{"SecretString":"{}","VersionId":"other"}`}, "version other in AWS secret"},
		"A5 expired credentials": {awsfake.Expired(), "the AWS credentials have expired: renew them"},
		"A5 unknown credentials": {awsfake.Fault{Error: &awsfake.Error{Code: "UnrecognizedClientException"}}, "does not accept the credentials"},
		"A6 KMS denied":          {awsfake.KMSDenied("GetSecretValue"), "allow kms:Decrypt"},
	} {
		inBubble(t, name, func(t *testing.T, fake *awsfake.Server) {
			s := startOn(t, fake, testkit.Config())
			token := testkit.Issue(t, s)
			fake.Inject(c.fault)
			for what, call := range map[string]func(context.Context) error{
				"refresh": s.Refresh, "rotate": s.Rotate,
				"revoke": func(ctx context.Context) error { return s.Revoke(ctx, s.SigningKey().KeyID) },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // until which they try
				err := call(ctx)
				cancel()
				require.ErrorContains(t, err, c.says, what)
				require.ErrorContains(t, err, "AWS secret "+awsName+" in eu-west-1", what)
			}
			time.Sleep(20 * time.Minute)
			calls := fake.Calls("GetSecretValue")
			time.Sleep(20 * time.Minute)
			require.LessOrEqual(t, fake.Calls("GetSecretValue")-calls, 5*3, "a load in five minutes, of three calls each")
			now := time.Now()
			testkit.Accepts(t, token, s)
			testkit.Accepts(t, testkit.Issue(t, s), s)
			require.Equal(t, now, time.Now(), "without waiting")
			require.ErrorContains(t, s.Status().LoadErr, c.says)
			require.Contains(t, fmt.Sprint(s.Status().Warnings()), c.says)
			require.Equal(t, 1, fake.Calls("CreateSecret"), "no new keys")
			fake.Heal()
			time.Sleep(6 * time.Minute)
			require.NoError(t, s.Status().LoadErr)
			require.NoError(t, s.Rotate(t.Context()))
		})
	}
}

// W9: an outage of 24 hours logs its begin, a reminder at most once an hour, and its end.
func TestSignerOnAWS_W9_OutageOfADay(t *testing.T) {
	inBubble(t, "", func(t *testing.T, fake *awsfake.Server) {
		var log testkit.LogBuffer
		cfg := testkit.Config()
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := startOn(t, fake, cfg)
		fake.Inject(awsfake.Fault{Status: http.StatusServiceUnavailable})
		time.Sleep(6 * time.Minute)
		require.Error(t, s.Refresh(t.Context()))
		require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), "the change of state")
		time.Sleep(testkit.Day)
		fake.Heal()
		time.Sleep(6 * time.Minute)
		require.LessOrEqual(t, strings.Count(log.String(), "level=ERROR"), 1+24)
		require.GreaterOrEqual(t, strings.Count(log.String(), "level=ERROR"), 1+20)
		require.NotContains(t, log.String(), `hint=""`)
		require.Equal(t, 1, strings.Count(log.String(), "the signing keys can be read again"))
		fake.Inject(awsfake.Fault{Status: http.StatusServiceUnavailable})
		errors := strings.Count(log.String(), "level=ERROR")
		time.Sleep(6 * time.Minute)
		require.Equal(t, errors+1, strings.Count(log.String(), "level=ERROR"), "the next outage")
	})
}

// A4, A10: what is not a bundle is reported with its secret and version, and is not
// overwritten, not even by a rotation that is due. The last good one stays in use.
func TestSignerOnAWS_A4_A10_NotABundle(t *testing.T) {
	for name, c := range map[string]struct{ value, says string }{
		"another application's": {`{"username":"web","password":"hunter2"}`, "no PEM block"},
		"64 KiB":                {strings.Repeat("A", fleetkey.MaxBundleSize), "no PEM block"},
		"bytes":                 {"\xff\x00\xfe", "no PEM block"},
		"unknown schema":        {"-----BEGIN KEY SET-----\nAAAA\n-----END KEY SET-----\n", `unknown type "KEY SET"`},
	} {
		inBubble(t, name, func(t *testing.T, fake *awsfake.Server) {
			cfg := testkit.Rotating()
			cfg.Rotation.Every = 2 * testkit.Day
			s := startOn(t, fake, cfg)
			token, good := testkit.Issue(t, s), s.Status().Version
			out, err := fake.Client().PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
				SecretId: aws.String(awsName), SecretBinary: []byte(c.value),
			})
			require.NoError(t, err)

			err = s.Refresh(t.Context())
			require.ErrorContains(t, err, fmt.Sprintf("version %s in AWS secret %s in eu-west-1 is not a key bundle: ", *out.VersionId, awsName))
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "hunter2")
			testkit.Accepts(t, token, s)
			time.Sleep(testkit.Day + 12*time.Hour) // a rotation is due
			testkit.Accepts(t, testkit.Issue(t, s), s)
			require.Equal(t, good, s.Status().Version)
			require.ErrorContains(t, s.Rotate(t.Context()), "is not a key bundle")
			require.ErrorContains(t, s.Revoke(t.Context(), s.SigningKey().KeyID), "is not a key bundle")
			_, err = fleetkey.NewSigner(t.Context(), open(t, fake.Client(), awsName), cfg)
			require.ErrorContains(t, err, "is not a key bundle")
			require.Equal(t, 2, fake.Versions(awsName), "nothing is written")
		})
	}
}

// A6: a role that may only read serves everything, and says in the error, in the
// status and in the log what it lacks, when a rotation is due and by hand.
func TestSignerOnAWS_A6_ReadOnlyRole(t *testing.T) {
	inBubble(t, "", func(t *testing.T, fake *awsfake.Server) {
		var log testkit.LogBuffer
		cfg := testkit.Rotating()
		cfg.Rotation.Every = 3 * testkit.Day
		require.NoError(t, startOn(t, fake, cfg).Close()) // the first one may create
		fake.Enforce(&awsfake.Policy{Actions: []string{"secretsmanager:GetSecretValue"}, Resources: []string{"*"}})
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := startOn(t, fake, cfg)
		time.Sleep(2*testkit.Day + time.Hour)
		testkit.Accepts(t, testkit.Issue(t, s), s)

		const lacks = "allow secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage on " +
			"arn:aws:secretsmanager:eu-west-1:<account-id>:secret:" + awsName + "*"
		for what, err := range map[string]error{
			"due": s.Status().RotationErr, "rotate": s.Rotate(t.Context()), "revoke": s.Revoke(t.Context(), s.SigningKey().KeyID),
		} {
			require.ErrorIs(t, err, fleetkey.ErrAccessDenied, what)
			require.ErrorContains(t, err, lacks, what)
		}
		require.Contains(t, fmt.Sprint(s.Status().Warnings()), "could not be rotated")
		require.Contains(t, log.String(), "cannot rotate the signing key")
		require.Equal(t, 1, fake.Versions(awsName))
		require.Zero(t, fake.Calls("DescribeSecret"), "the policy in the documentation does not allow it")
	})
}

// A8, A9: an operator deletes the secret of a fleet whose rotation is due, for good or
// with a recovery window. For days nobody creates anything, running or starting, and
// what was restored is read again.
func TestSignerOnAWS_A8_A9_DeletedUnderTheFleet(t *testing.T) {
	for name, forGood := range map[string]bool{"A8 for good": true, "A9 with a recovery window": false} {
		inBubble(t, name, func(t *testing.T, fake *awsfake.Server) {
			cfg := testkit.Rotating()
			cfg.Rotation.Every = 2 * testkit.Day
			fleet := []*fleetkey.Signer{startOn(t, fake, cfg), startOn(t, fake, cfg)}
			time.Sleep(23 * time.Hour)
			del := &secretsmanager.DeleteSecretInput{SecretId: aws.String(awsName), ForceDeleteWithoutRecovery: aws.Bool(forGood)}
			_, err := fake.Client().DeleteSecret(t.Context(), del)
			require.NoError(t, err)
			puts := fake.Calls("PutSecretValue")
			time.Sleep(46 * time.Hour) // short of ErrStale
			for _, s := range fleet {
				testkit.Accepts(t, testkit.Issue(t, s), fleet...)
				err := s.Rotate(t.Context())
				require.ErrorContains(t, err, "AWS secret "+awsName)
				require.Equal(t, forGood, errors.Is(err, fleetkey.ErrNotExist))
				require.Equal(t, !forGood, errors.Is(err, fleetkey.ErrDeletionPending))
			}
			require.Equal(t, puts, fake.Calls("PutSecretValue"))
			if !forGood {
				_, err := fleetkey.NewSigner(t.Context(), open(t, fake.Client(), awsName), cfg)
				require.ErrorIs(t, err, fleetkey.ErrDeletionPending)
				require.ErrorContains(t, err, "restore it by: aws secretsmanager restore-secret --secret-id "+awsName)
			}
			require.Equal(t, 1, fake.Calls("CreateSecret"), "the first start")
			if forGood {
				return
			}
			_, err = fake.Client().RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: aws.String(awsName)})
			require.NoError(t, err)
			time.Sleep(12 * time.Minute)
			for _, s := range append(fleet, startOn(t, fake, cfg)) {
				require.NoError(t, s.Refresh(t.Context()))
				require.Len(t, s.PublicKeys(), 2, "it has rotated")
				testkit.Accepts(t, testkit.Issue(t, s), fleet...)
			}
		})
	}
}

// A11: an operator moves AWSCURRENT back to before a key. What was signed stays good, the
// log reports it, and rotation continues from there.
func TestSignerOnAWS_A11_RolledBack(t *testing.T) {
	inBubble(t, "", func(t *testing.T, fake *awsfake.Server) {
		var log testkit.LogBuffer
		cfg := testkit.Config()
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := startOn(t, fake, cfg)
		first := s.Status().Version
		require.NoError(t, s.Rotate(t.Context()))
		time.Sleep(25 * time.Hour)
		token, kid := testkit.Issue(t, s), s.SigningKey().KeyID // the second key
		moveCurrent(t, fake.Client(), awsName, s.Status().Version, first)
		require.NoError(t, s.Refresh(t.Context()))
		require.Contains(t, log.String(), "keys have vanished from the store")
		require.Contains(t, log.String(), kid)
		require.NotEqual(t, kid, s.SigningKey().KeyID)
		require.NoError(t, s.Rotate(t.Context()), "the version derived from the old one exists already")
		testkit.Accepts(t, token, s)
	})
}
