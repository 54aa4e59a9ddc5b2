package fleetkey_test

import (
	"crypto/rand"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/moto"
)

// The store against its contract, on our own server and on moto, an emulator
// of others. "AWS.md row N" is where moto is known to depart from AWS.

func TestAWSStoreConformanceFake(t *testing.T) {
	fake := awsfake.Start(t)
	fleetkeytest.TestKeyStore(t, openFresh(fake.Client(func(o *secretsmanager.Options) {
		o.BaseEndpoint = aws.String(fake.URL)
		o.HTTPClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	})))
}

func TestAWSStoreConformanceMoto(t *testing.T) {
	fleetkeytest.TestKeyStore(t, openFresh(motoClient(moto.URL(t), "moto", "a-secret-key-of-forty-characters-in-all-")))
}

// openFresh opens secrets of ever new names with one client.
func openFresh(client *secretsmanager.Client) func(*testing.T) func() fleetkey.KeyStore {
	return func(t *testing.T) func() fleetkey.KeyStore {
		name := freshName()
		return func() fleetkey.KeyStore {
			s, err := fleetkey.NewAWSStore(t.Context(), name, func(o *fleetkey.AWSOptions) { o.Client = client })
			if err != nil {
				panic(err)
			}
			return s
		}
	}
}

func freshName() string { return "indicium/openid-server-" + rand.Text() }

func motoClient(url, key, secret string) *secretsmanager.Client {
	return secretsmanager.New(secretsmanager.Options{
		Region:       awsfake.Region,
		BaseEndpoint: aws.String(url),
		Credentials:  credentials.NewStaticCredentialsProvider(key, secret, ""),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 10 * time.Millisecond, nil })
		}),
	})
}

func openMoto(t *testing.T, client *secretsmanager.Client, name string) *fleetkey.AWSStore {
	t.Helper()
	s, err := fleetkey.NewAWSStore(t.Context(), name, func(o *fleetkey.AWSOptions) { o.Client = client })
	require.NoError(t, err)
	return s
}

func TestAWSStoreMoto(t *testing.T) {
	client := motoClient(moto.URL(t), "moto", "a-secret-key-of-forty-characters-in-all-")
	ctx := t.Context()

	t.Run("only AWSCURRENT moves", func(t *testing.T) {
		name := freshName()
		s := openMoto(t, client, name)
		v := mustSave(t, s, pemBundle("a"), "")
		w := mustSave(t, s, pemBundle("b"), v)
		out, err := client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: aws.String(name)})
		require.NoError(t, err)
		require.Contains(t, out.VersionIdsToStages[string(w)], "AWSCURRENT")
		require.Contains(t, out.VersionIdsToStages[string(v)], "AWSPREVIOUS")
		require.Len(t, out.VersionIdsToStages, 2)
	})
	t.Run("by ARN", func(t *testing.T) {
		name := freshName()
		v := mustSave(t, openMoto(t, client, name), pemBundle("a"), "")
		out, err := client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: aws.String(name)})
		require.NoError(t, err)
		s := openMoto(t, client, *out.ARN)
		requireHolds(t, s, pemBundle("a"), v)
		requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v))
	})
	t.Run("bytes", func(t *testing.T) {
		name := freshName()
		_, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String(name), SecretBinary: pemBundle("a")})
		require.NoError(t, err)
		b, _, err := openMoto(t, client, name).Load(ctx)
		require.NoError(t, err)
		require.Equal(t, pemBundle("a"), b)
	})
	t.Run("A11 save after a rollback", func(t *testing.T) {
		name := freshName()
		s := openMoto(t, client, name)
		v := mustSave(t, s, pemBundle("a"), "")
		w := mustSave(t, s, pemBundle("b"), v)
		_, err := client.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
			SecretId: aws.String(name), VersionStage: aws.String("AWSCURRENT"),
			RemoveFromVersionId: aws.String(string(w)), MoveToVersionId: aws.String(string(v)),
		})
		require.NoError(t, err)
		requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v)) // the same content: no waiting
	})
	t.Run("A7 empty container", func(t *testing.T) {
		name := freshName()
		_, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String(name)})
		require.NoError(t, err)
		s := openMoto(t, client, name)
		_, _, err = s.Load(ctx)
		requireError(t, err, fleetkey.ErrNotExist)
		_, err = s.Save(ctx, pemBundle("a"), "")
		requireError(t, err, fleetkey.ErrConflict)
	})
	t.Run("A9 scheduled for deletion", func(t *testing.T) {
		name := freshName()
		s := openMoto(t, client, name)
		v := mustSave(t, s, pemBundle("a"), "")
		_, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: aws.String(name)})
		require.NoError(t, err)
		_, _, err = s.Load(ctx)
		requireError(t, err, fleetkey.ErrDeletionPending, "restore-secret --secret-id "+name) // another text: AWS.md row 11
		_, err = s.Save(ctx, pemBundle("b"), v)
		requireError(t, err, fleetkey.ErrDeletionPending)
		_, err = s.Save(ctx, pemBundle("b"), "")
		requireError(t, err, fleetkey.ErrConflict) // AWS.md row 10; AWS says that it is scheduled for deletion
		_, err = client.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: aws.String(name)})
		require.NoError(t, err)
		requireHolds(t, s, pemBundle("a"), v)
	})
	t.Run("A8 deleted for good", func(t *testing.T) {
		name := freshName()
		s := openMoto(t, client, name)
		v := mustSave(t, s, pemBundle("a"), "")
		_, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: aws.String(name), ForceDeleteWithoutRecovery: aws.Bool(true)})
		require.NoError(t, err)
		_, _, err = s.Load(ctx)
		requireError(t, err, fleetkey.ErrNotExist)
		_, err = s.Save(ctx, pemBundle("b"), v)
		requireError(t, err, fleetkey.ErrConflict)
	})
}

// TestAWSStoreMotoA6 : the two-action policy on a moto that checks signatures
// and actions. Resource is "*", since moto compares nothing else (AWS.md row
// 17), and a denial is HTTP 403 in XML rather than AccessDeniedException (row
// 16).
func TestAWSStoreMotoA6(t *testing.T) {
	base := moto.Start(t) // of its own: the check is a switch of the whole process
	iam := func(form string) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base, strings.NewReader("Version=2010-05-08&"+form))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=moto/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0")
		return answer(t, r)
	}
	iam("Action=CreateUser&UserName=server")
	iam("Action=PutUserPolicy&UserName=server&PolicyName=two&PolicyDocument=" + url.QueryEscape(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*",
		"Action":["secretsmanager:GetSecretValue","secretsmanager:CreateSecret"]}]}`))
	var key struct {
		ID     string `xml:"CreateAccessKeyResult>AccessKey>AccessKeyId"`
		Secret string `xml:"CreateAccessKeyResult>AccessKey>SecretAccessKey"`
	}
	require.NoError(t, xml.Unmarshal([]byte(iam("Action=CreateAccessKey&UserName=server")), &key))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/moto-api/reset-auth", strings.NewReader("0"))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "text/plain")
	answer(t, r)

	name := freshName()
	s := openMoto(t, motoClient(base, key.ID, key.Secret), name)
	_, _, err = s.Load(t.Context())
	requireError(t, err, fleetkey.ErrNotExist)
	v := mustSave(t, s, pemBundle("a"), "")
	requireHolds(t, s, pemBundle("a"), v)
	_, err = s.Save(t.Context(), pemBundle("b"), v)
	requireError(t, err, fleetkey.ErrAccessDenied, "PutSecretValue and secretsmanager:UpdateSecretVersionStage", "HTTP status 403")
	requireHolds(t, s, pemBundle("a"), v)

	_, _, err = openMoto(t, motoClient(base, key.ID, "wrong"), name).Load(t.Context())
	requireError(t, err, fleetkey.ErrAccessDenied) // AWS.md row 20; AWS says InvalidSignatureException
}

// answer sends a request to moto's other services.
func answer(t *testing.T, r *http.Request) string {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, string(b))
	return string(b)
}
