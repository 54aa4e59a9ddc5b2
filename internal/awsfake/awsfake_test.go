package awsfake_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/moto"
)

// A step is one call on one secret, with the error code that AWS documents for it.
// The tokens are t1, t2 and so on, padded to a legal length.
type step struct {
	do   string
	code string // empty: success
	// moto, if not empty, is what moto answers instead, or "skip" where its answer
	// would spoil what follows.
	moto string
}

// script covers tokens, labels and deletion. It runs on the fake and on moto, which
// does not treat a deleted secret as AWS does.
var script = []step{
	{do: "get", code: "ResourceNotFoundException"},
	{do: "put t1 a AWSCURRENT", code: "ResourceNotFoundException"},
	{do: "create t1 a"},
	{do: "create t2 b", code: "ResourceExistsException"},
	{do: "create t1 b", code: "ResourceExistsException"},
	{do: "get", code: ""},
	{do: "expect AWSCURRENT=t1"},
	{do: "put t2 b PARKED"},
	{do: "expect AWSCURRENT=t1 PARKED=t2"},
	{do: "put t2 b PARKED"},
	{do: "put t2 c PARKED", code: "ResourceExistsException"},
	{do: "move AWSCURRENT t2 t2", code: "InvalidParameterException"},
	{do: "move AWSCURRENT t2 -", code: "InvalidParameterException"},
	{do: "move AWSCURRENT t2 t1"},
	{do: "expect AWSCURRENT=t2 AWSPREVIOUS=t1 PARKED=t2"},
	{do: "move AWSCURRENT t2 t1", code: "InvalidParameterException"},
	{do: "put t3 c PARKED"},
	{do: "expect AWSCURRENT=t2 AWSPREVIOUS=t1 PARKED=t3"},
	{do: "move AWSCURRENT t1 t2"},
	{do: "expect AWSCURRENT=t1 AWSPREVIOUS=t2 PARKED=t3"},
	{do: "move AWSCURRENT t3 t1"},
	{do: "expect AWSCURRENT=t3 AWSPREVIOUS=t1 PARKED=t3"},
	{do: "delete"},
	{do: "get", code: "InvalidRequestException"},
	{do: "put t4 d PARKED", code: "InvalidRequestException", moto: "skip"},
	{do: "create t5 e", code: "InvalidRequestException", moto: "ResourceExistsException"},
	{do: "restore"},
	{do: "get"},
	{do: "expect AWSCURRENT=t3 AWSPREVIOUS=t1 PARKED=t3"},
	{do: "destroy"},
	{do: "get", code: "ResourceNotFoundException"},
	{do: "create t1 z"},
	{do: "expect AWSCURRENT=t1"},
}

func TestScriptFake(t *testing.T) { runScript(t, awsfake.New().Client(), false) }

func TestScriptMoto(t *testing.T) {
	runScript(t, moto.Client(moto.URL(t), "moto", moto.SecretKey), true)
}

func runScript(t *testing.T, client *secretsmanager.Client, onMoto bool) {
	name := "script/" + rand.Text()
	for i, s := range script {
		want := s.code
		if onMoto && s.moto == "skip" {
			continue
		}
		if onMoto && s.moto != "" {
			want = s.moto
		}
		err := perform(t, client, name, strings.Fields(s.do))
		var api smithy.APIError
		switch {
		case want == "":
			require.NoError(t, err, "step %d, %s", i, s.do)
		case !errors.As(err, &api):
			require.NoError(t, err, "step %d, %s: want %s", i, s.do, want)
			t.Fatalf("step %d, %s: success, want %s", i, s.do, want)
		default:
			require.Equal(t, want, api.ErrorCode(), "step %d, %s", i, s.do)
		}
	}
}

// token pads a short name to the length that AWS asks of a token.
func token(short string) *string {
	if short == "-" {
		return nil
	}
	return aws.String(short + strings.Repeat("0", 36-len(short)))
}

func perform(t *testing.T, c *secretsmanager.Client, name string, f []string) error {
	id, ctx := aws.String(name), t.Context()
	var err error
	switch f[0] {
	case "get":
		_, err = c.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: id, VersionStage: aws.String("AWSCURRENT")})
	case "create":
		_, err = c.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: id, ClientRequestToken: token(f[1]), SecretString: aws.String(f[2])})
	case "put":
		_, err = c.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
			SecretId: id, ClientRequestToken: token(f[1]), SecretString: aws.String(f[2]), VersionStages: f[3:],
		})
	case "move":
		_, err = c.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
			SecretId: id, VersionStage: aws.String(f[1]), MoveToVersionId: token(f[2]), RemoveFromVersionId: token(f[3]),
		})
	case "delete":
		_, err = c.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: id})
	case "destroy":
		_, err = c.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: id, ForceDeleteWithoutRecovery: aws.Bool(true)})
	case "restore":
		_, err = c.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: id})
	case "expect":
		requireLabels(t, c, id, f[1:])
	default:
		err = fmt.Errorf("no such step: %s", f[0])
	}
	return err
}

func requireLabels(t *testing.T, c *secretsmanager.Client, id *string, want []string) {
	t.Helper()
	out, err := c.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: id})
	require.NoError(t, err)
	var got []string
	for version, labels := range out.VersionIdsToStages {
		for _, label := range labels {
			got = append(got, label+"="+strings.TrimRight(version, "0"))
		}
	}
	require.ElementsMatch(t, want, got)
}

// TestLimits : AWS refuses these, and moto does not.
func TestLimits(t *testing.T) {
	client, ctx := awsfake.New().Client(), t.Context()
	create := func(name, value string) error {
		_, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String(name), SecretString: aws.String(value)})
		return err
	}
	require.NoError(t, create("ok", strings.Repeat("x", 65536)))
	for _, c := range []struct{ name, value, code string }{
		{"big", strings.Repeat("x", 65537), "ValidationException"},
		{"empty", "", "ValidationException"},
		{"a b", "x", "ValidationException"},
		{strings.Repeat("n", 513), "x", "ValidationException"},
	} {
		var api smithy.APIError
		require.ErrorAs(t, create(c.name, c.value), &api, c.name)
		require.Equal(t, c.code, api.ErrorCode(), c.name)
	}
	_, err := client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: aws.String("ok"), SecretString: aws.String("x"), ClientRequestToken: aws.String("short"),
	})
	require.ErrorContains(t, err, "ValidationException")
	_, err = client.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: aws.String("ok"), VersionStage: aws.String("MINE"), MoveToVersionId: token("unknown"),
	})
	require.ErrorContains(t, err, "ResourceNotFoundException")
}

// TestLag : reads see what was there so long ago.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awsfake.New()
		client := fake.Client()
		requireReads := func(want string) {
			t.Helper()
			out, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("n")})
			if want == "absent" {
				require.ErrorContains(t, err, "ResourceNotFoundException")
				return
			}
			require.NoError(t, err)
			require.Equal(t, want, *out.SecretString)
		}
		fake.Lag(3 * time.Second)
		require.NoError(t, perform(t, client, "n", []string{"create", "t1", "a"}))
		requireReads("absent")
		time.Sleep(3 * time.Second)
		requireReads("a")
		require.NoError(t, perform(t, client, "n", []string{"put", "t2", "b", "AWSCURRENT"}))
		time.Sleep(2 * time.Second)
		requireReads("a")
		time.Sleep(time.Second)
		requireReads("b")
	})
}

// TestPolicyWildcards : a star matches slashes, a question mark matches one character,
// and everything else is denied.
func TestPolicyWildcards(t *testing.T) {
	for _, c := range []struct {
		resource string
		allowed  bool
	}{
		{"*", true},
		{"arn:aws:secretsmanager:*:*:secret:a*", true},
		{"arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/b/c-??????", true},
		{"arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/b/c-?????", false},
		{"arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/b/c", false},
		{"arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/b/c*", true},
		{"arn:aws:secretsmanager:us-east-1:123456789012:secret:a/b/c*", false},
		{"arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/?/c-*", true},
	} {
		fake := awsfake.New()
		client := fake.Client()
		require.NoError(t, perform(t, client, "a/b/c", []string{"create", "t1", "v"}))
		fake.Enforce(&awsfake.Policy{Actions: []string{"secretsmanager:Get*"}, Resources: []string{c.resource}})
		err := perform(t, client, "a/b/c", []string{"get"})
		require.Equal(t, c.allowed, err == nil, "%s: %v", c.resource, err)
		require.ErrorContains(t, perform(t, client, "a/b/c", []string{"delete"}), "AccessDeniedException")
	}
}
