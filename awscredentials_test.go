package fleetkey_test

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file tests that a failure to get credentials is not mistaken for an answer about the
// secret (rows W1 to W3 of docs/faults.md). The tests use sockets, because the SDK's own
// configuration creates the HTTP clients.

// openFrom opens a secret with the SDK's default configuration.
func openFrom(t *testing.T, opts ...func(*fleetkey.AWSOptions)) *fleetkey.AWSStore {
	t.Helper()
	s, err := fleetkey.NewAWSStore(t.Context(), awsName, opts...)
	require.NoError(t, err)
	return s
}

func TestAWSCredentialsSources(t *testing.T) {
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	require.NoError(t, err)
	stderr := os.Stderr
	os.Stderr = said
	defer func() {
		os.Stderr = stderr
		text, err := os.ReadFile(said.Name())
		require.NoError(t, errors.Join(err, said.Close()))
		require.Empty(t, string(text), "the SDK's warnings must not reach standard error")
	}()
	fake := awsfake.Start(t)
	check := func(name string, from awsfake.Source, want error, spoil func(*testing.T), says ...string) {
		t.Run(string(from)+" "+name, func(t *testing.T) {
			fake.UseSource(t, from)
			spoil(t)
			calls, timeout := fake.Calls("CreateSecret"), 500*time.Millisecond
			if strings.HasSuffix(name, "silent") {
				timeout /= 10
			} else if from == awsfake.IMDS {
				timeout *= 20 // leave time for the SDK's retries
			}
			s := openFrom(t, func(o *fleetkey.AWSOptions) { o.Timeout = timeout })
			_, _, loaded := s.Load(t.Context())
			_, created := s.Save(t.Context(), pemBundle("a"), "")
			_, saved := s.Save(t.Context(), pemBundle("a"), "some-version")
			for _, err := range []error{loaded, created, saved} {
				requireError(t, err, want, append(says, "no AWS credentials: ")...)
				requireNotTheSecret(t, err)
			}
			if want == nil {
				_, err := fleetkey.NewSigner(t.Context(), s, testkit.Config())
				require.ErrorContains(t, err, "no AWS credentials: ")
			}
			require.Equal(t, calls, fake.Calls("CreateSecret"))
		})
		t.Run(string(from)+" is back", func(t *testing.T) {
			fake.Heal()
			fake.UseSource(t, from)
			_, _, err := openFrom(t).Load(t.Context())
			require.ErrorIs(t, err, fleetkey.ErrNotExist, "the call must reach Secrets Manager")
		})
	}
	fails := func(name string, from awsfake.Source, want error, f awsfake.Fault, says ...string) {
		f.Action = cmp.Or(f.Action,
			map[awsfake.Source]string{awsfake.WebIdentity: "AssumeRoleWithWebIdentity", awsfake.AssumeRole: "AssumeRole",
				awsfake.Container: "ContainerCredentials", awsfake.SSO: "GetRoleCredentials", awsfake.IMDS: "MetadataCredentials"}[from])
		check(name, from, want, func(*testing.T) { fake.Inject(f) }, says...)
	}
	at := func(action string, f awsfake.Fault) awsfake.Fault { f.Action = action; return f }
	set := func(name, value string) func(*testing.T) { return func(t *testing.T) { t.Setenv(name, value) } }
	denied := apiError("AccessDenied", "User is not authorized to perform: sts:AssumeRole")
	absent := apiError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	trouble, away := page(http.StatusInternalServerError, "<html>"), fleetkey.ErrUnavailable

	fails("W1 web identity refused", awsfake.WebIdentity, nil, denied, "trust policy", "AWS_WEB_IDENTITY_TOKEN_FILE", "AccessDenied")
	fails("W1 role refused", awsfake.AssumeRole, nil, denied, "sts:AssumeRole", "STS AssumeRole")
	fails("W1 second link refused", awsfake.ThenRole, nil, at("AssumeRole", denied), "container endpoint, then STS AssumeRole",
		"sts:AssumeRole")
	fails("W1 first link refused", awsfake.ThenRole, nil, at("ContainerCredentials", denied), "container endpoint, then STS AssumeRole",
		"task")
	fails("W1 session refused", awsfake.SSO, nil, awsfake.Fault{Error: &awsfake.Error{Code: "UnauthorizedException", Status: 401}},
		"run aws sso login")
	fails("W1 metadata refuses", awsfake.IMDS, nil, apiError("AssumeRoleUnauthorizedAccess", "EC2 cannot assume the role fleet"),
		"give the server a role", "EC2 instance metadata")
	fails("W1 no role at the instance", awsfake.IMDS, nil, at("MetadataRole", page(http.StatusNotFound, "")), "give the server a role")

	fails("W2 not found", awsfake.Container, nil, absent, "task", "container endpoint")
	fails("W2 exists", awsfake.Container, nil, apiError("ResourceExistsException", "no"), "container endpoint")
	fails("W2 scheduled for deletion", awsfake.Container, nil, apiError("InvalidRequestException", "marked for deletion"),
		"container endpoint")

	fails("W3 500", awsfake.Container, away, trouble, "container endpoint", "HTTP status 500")
	fails("W3 throttles", awsfake.Container, away, page(429, "slow down"), "throttles")
	fails("W3 drops", awsfake.Container, away, awsfake.Fault{Drop: true}, "cannot be reached")
	fails("W3 breaks off", awsfake.Container, away, awsfake.Fault{Cut: true}, "cut off")
	fails("W3 silent", awsfake.Container, away, awsfake.Fault{Hang: true}, "container endpoint", "no response within")
	fails("W3 503", awsfake.WebIdentity, away, page(503, ""), "STS", "HTTP status 503")
	fails("W3 throttles", awsfake.AssumeRole, away, awsfake.Throttle(0), "throttles")
	fails("W3 identity provider away", awsfake.WebIdentity, away, apiError("IDPCommunicationError", "try again"), "STS")
	fails("W3 in trouble", awsfake.IMDS, away, trouble, "has a problem (HTTP status 500)", "EC2 instance metadata")
	fails("W3 silent", awsfake.IMDS, away, awsfake.Fault{Hang: true}, "give the server a role")

	fails("malformed", awsfake.Container, nil, page(200, "<html>"), "container endpoint")
	fails("without keys", awsfake.Container, nil, page(200, `{"Expiration":"2038-01-01T00:00:00Z"}`), "container endpoint")
	fails("with white space", awsfake.Container, nil, page(200, `{"AccessKeyId":"ASIA\n","SecretAccessKey":"x"}`), "white space")
	fails("a refusal of several lines", awsfake.SSO, nil, apiError("No", "no\nlevel=INFO\x1b[2J"), `no\nlevel=INFO\x1b[2J`)

	// An unexpected part of a response may be a key, so errors must not show it.
	fails("refuses with a page", awsfake.Container, nil, page(403, `{"SecretAccessKey":"fakefake"}`), "container endpoint",
		"HTTP status 403")
	fails("refuses with a message", awsfake.Container, nil, apiError("Denied", "fakefake"), "container endpoint", "HTTP status 400 Denied")
	fails("wrong date", awsfake.Container, nil, page(200, `{"AccessKeyId":"ASIA","SecretAccessKey":"x","Expiration":"fakefake"}`),
		"container endpoint", "not understood")
	fails("with a wrong date", awsfake.IMDS, nil, page(200, `{"Code":"Success","Expiration":"fakefake"}`), "EC2 instance metadata",
		"not understood")
	fails("with a wrong type", awsfake.IMDS, nil, page(200, `{"Code":"Success","Token":["fakefake"]}`), "EC2 instance metadata",
		"not understood")
	fails("with a wrong date", awsfake.AssumeRole, nil,
		page(200, "<AssumeRoleResponse><AssumeRoleResult><Credentials><Expiration>fakefake</Expiration>"+
			"</Credentials></AssumeRoleResult></AssumeRoleResponse>"), "STS AssumeRole", "not understood")
	fails("SSO, but a portal answers", awsfake.SSO, nil, page(200, "<html>fakefake"),
		"the response does not come from the source of the credentials", "from SSO")
	fails("SSO, but a portal refuses", awsfake.SSO, nil, page(403, "<html>fakefake"),
		"the response does not come from the source of the credentials", "from SSO")

	check("token file missing", awsfake.WebIdentity, nil, set("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token"),
		"AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token")
	check("process says so and fails", awsfake.Process, nil, profile("credential_process = echo fakefake; exit 7"), "credential_process",
		"exit status 7")
	check("process says what it must not", awsfake.Process, nil, profile("credential_process = echo fakefake"), "credential_process",
		"not understood")
	check("key with white space", awsfake.Static, nil, set("AWS_ACCESS_KEY_ID", "AKIDFAKE\n"), "white space", "AWS_ACCESS_KEY_ID")
	check("key with white space", awsfake.Profile, nil, profile("aws_access_key_id = AKID FAKE\naws_secret_access_key = x"),
		"white space", "profile")
	check("token with a control character", awsfake.Container, nil, set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "fakefake\x01"),
		"container endpoint")
	check("without HTTP", awsfake.Container, nil, set("AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"http://"+greeter(t, `{"SecretAccessKey":"fakefake"}`+"\r\n")), "container endpoint", "malformed HTTP")
	check("at no address", awsfake.AssumeRole, nil, set("AWS_ENDPOINT_URL_STS", "http://me:fakefake@["), "parse uri")
	check("at no address, without a scheme", awsfake.AssumeRole, nil, set("AWS_ENDPOINT_URL_STS", "me:fake/fakefake@h"))
	check("A5 none", awsfake.IMDS, nil, set("AWS_EC2_METADATA_DISABLED", "true"), "give the server a role")
}

// profile returns a function that replaces the default profile.
func profile(lines string) func(*testing.T) {
	return func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "config")
		require.NoError(t, os.WriteFile(file, []byte("[default]\n"+lines+"\n"), 0o600))
		t.Setenv("AWS_CONFIG_FILE", file)
	}
}

// requireNotTheSecret checks that neither the text of an error nor its chain says anything
// about the secret.
func requireNotTheSecret(t testing.TB, err error) {
	t.Helper()
	require.NotErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, fs.ErrPermission)
	_, api := errors.AsType[smithy.APIError](err)
	require.False(t, api, "%v", err)
	require.NotContains(t, err.Error(), "secretsmanager:", "no permission on the secret would help")
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "fakefake")
}

// A request for credentials that never gets a response must not block later ones.
func TestAWSCredentialsHangOnce(t *testing.T) {
	fake := awsfake.Start(t)
	fake.UseSource(t, awsfake.Container)
	fake.Inject(awsfake.Fault{Action: "ContainerCredentials", Times: 1, Hang: true})
	s := openFrom(t, func(o *fleetkey.AWSOptions) { o.Timeout = 100 * time.Millisecond })
	_, _, err := s.Load(t.Context())
	requireError(t, err, fleetkey.ErrUnavailable, "no response within")
	require.Eventually(t, func() bool {
		_, _, err := s.Load(t.Context())
		return errors.Is(err, fleetkey.ErrNotExist)
	}, 10*time.Second, time.Millisecond)
}

// A client passed by the caller need not name its credential sources, or have any.
func TestAWSCredentialsOfAnotherClient(t *testing.T) {
	fake := awsfake.New()
	own := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "no"}
	})
	for _, provider := range []aws.CredentialsProvider{own, aws.AnonymousCredentials{}, nil} {
		s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) {
			options := o.Client.Options()
			options.Credentials = provider
			o.Client = secretsmanager.New(options)
		})
		_, _, err := s.Load(t.Context())
		requireError(t, err, nil, "credentials")
		requireNotTheSecret(t, err)
	}
}
