package aws

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/moto"
)

// Least privilege (A6). awsfake judges resources as AWS does; moto judges actions only,
// but checks signatures.

const awsARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"

// eachReading runs a test under a policy that allows nothing but some actions, for both
// readings of a secret that does not exist yet. grant adds to the policy.
func eachReading(t *testing.T, test func(t *testing.T, fake *awsfake.Server, grant func(resource string, actions ...string))) {
	for name, bare := range map[string]bool{"made-up ARN": false, "bare name": true} {
		t.Run(name, func(t *testing.T) {
			fake := awsfake.New()
			var actions []string
			grant := func(resource string, more ...string) {
				actions = append(actions, more...)
				fake.Enforce(&awsfake.Policy{Actions: actions, Resources: []string{resource}, BareNames: bare})
			}
			grant("")
			test(t, fake, grant)
		})
	}
}

// TestAWSStoreA6Hint : granting what the error asks for is enough, whatever is missing,
// and two actions suffice for everything but a rotation.
func TestAWSStoreA6Hint(t *testing.T) {
	eachReading(t, func(t *testing.T, fake *awsfake.Server, grant func(string, ...string)) {
		const name = "indicium/openid-server-production"
		s := open(t, fake.Client(), name)
		allow := func(err error, want string) {
			t.Helper()
			require.ErrorIs(t, err, fleetkey.ErrAccessDenied)
			_, rest, _ := strings.Cut(err.Error(), "allow ")
			actions, rest, _ := strings.Cut(rest, " on ")
			resource, _, _ := strings.Cut(rest, ": operation")
			require.Equal(t, want, actions)
			grant(strings.ReplaceAll(resource, "<account-id>", awsfake.Account), strings.Split(actions, " and ")...)
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
	})
}

// TestAWSStoreMotoA6 : the two-action policy on a moto that checks signatures and
// actions. Resource is "*" because moto compares nothing else. Where AWS answers
// AccessDeniedException, moto answers HTTP 403 in XML.
func TestAWSStoreMotoA6(t *testing.T) {
	base := moto.Start(t) // not shared: the check applies to the whole process
	post := func(path, form string, header ...string) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, strings.NewReader(form))
		require.NoError(t, err)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, string(b))
		return string(b)
	}
	iam := func(form string) string {
		return post("", "Version=2010-05-08&"+form, "Content-Type", "application/x-www-form-urlencoded", "Authorization",
			"AWS4-HMAC-SHA256 Credential=moto/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0")
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
	post("/moto-api/reset-auth", "0", "Content-Type", "text/plain")

	name := freshName()
	s := open(t, moto.Client(base, key.ID, key.Secret), name)
	_, _, err := s.Load(t.Context())
	require.ErrorIs(t, err, fleetkey.ErrNotExist)
	v := mustSave(t, s, "a", "")
	requireHolds(t, s, "a", v)
	_, err = s.Save(t.Context(), []byte("b"), v)
	require.ErrorIs(t, err, fleetkey.ErrAccessDenied)
	require.ErrorContains(t, err, "PutSecretValue and secretsmanager:UpdateSecretVersionStage")
	require.ErrorContains(t, err, "HTTP status 403")
	requireHolds(t, s, "a", v)

	_, _, err = open(t, moto.Client(base, key.ID, "wrong-secret-key-of-some-length"), name).Load(t.Context())
	require.ErrorIs(t, err, fleetkey.ErrAccessDenied) // AWS says InvalidSignatureException
}
