package fleetkey_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
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

// What goes wrong while the SDK gets credentials is not an answer about the secret (rows
// W1 to W3 of docs/faults.md). All of it happens on sockets, since the SDK's own
// configuration makes the clients.

// openFrom opens a secret by the SDK's default configuration.
func openFrom(t *testing.T, opts ...func(*fleetkey.AWSOptions)) *fleetkey.AWSStore {
	t.Helper()
	s, err := fleetkey.NewAWSStore(t.Context(), awsName, opts...)
	require.NoError(t, err)
	return s
}

// jsonPage is an answer of a container endpoint that is not a refusal.
func jsonPage(body string) awsfake.Fault { return page(http.StatusOK, body) }

func TestAWSCredentialsSources(t *testing.T) {
	fake := awsfake.Start(t)
	denied := apiError("AccessDenied", "User is not authorized to perform: sts:AssumeRole")
	absent := apiError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	trouble := page(http.StatusInternalServerError, "<html>")
	at := func(action string, f awsfake.Fault) awsfake.Fault { f.Action = action; return f }
	for _, c := range []struct {
		name  string
		from  awsfake.Source
		fault awsfake.Fault
		want  error
		says  []string
	}{
		{"W1 web identity refused", awsfake.WebIdentity, at("AssumeRoleWithWebIdentity", denied), nil,
			[]string{"no AWS credentials: ", "trust policy", "AWS_WEB_IDENTITY_TOKEN_FILE", "AccessDenied"}},
		{"W1 web identity expired", awsfake.WebIdentity, at("AssumeRoleWithWebIdentity", apiError("ExpiredTokenException", "Token expired")), nil,
			[]string{"no AWS credentials: ", "AWS_WEB_IDENTITY_TOKEN_FILE"}},
		{"W1 role refused", awsfake.AssumeRole, at("AssumeRole", denied), nil, []string{"no AWS credentials: ", "sts:AssumeRole", "STS AssumeRole"}},
		{"W1 role unknown", awsfake.AssumeRole, at("AssumeRole", absent), nil, []string{"no AWS credentials: ", "STS AssumeRole"}},
		{"W1 second link refused", awsfake.ThenRole, at("AssumeRole", denied), nil, []string{"no AWS credentials: ", "container endpoint, then STS AssumeRole", "sts:AssumeRole"}},
		{"W1 first link refused", awsfake.ThenRole, at("ContainerCredentials", denied), nil, []string{"container endpoint, then STS AssumeRole", "task"}},
		{"W1 session refused", awsfake.SSO, at("GetRoleCredentials", awsfake.Fault{Error: &awsfake.Error{Code: "UnauthorizedException", Status: 401}}), nil,
			[]string{"no AWS credentials: run aws sso login"}},
		{"W1 metadata refuses", awsfake.IMDS, at("MetadataCredentials", apiError("AssumeRoleUnauthorizedAccess", "EC2 cannot assume the role fleet")), nil,
			[]string{"no AWS credentials: give the server a role", "EC2 instance metadata"}},
		{"W1 no role at the instance", awsfake.IMDS, at("MetadataRole", page(http.StatusNotFound, "")), nil, []string{"no AWS credentials: give the server a role"}},

		{"W2 not found", awsfake.Container, at("ContainerCredentials", absent), nil, []string{"no AWS credentials: ", "task", "container endpoint"}},
		{"W2 not found, as denied", awsfake.Container, at("ContainerCredentials", denied), nil, []string{"container endpoint"}},
		{"W2 exists", awsfake.Container, at("ContainerCredentials", apiError("ResourceExistsException", "no")), nil, []string{"container endpoint"}},
		{"W2 scheduled for deletion", awsfake.Container, at("ContainerCredentials", apiError("InvalidRequestException", "marked for deletion")), nil, []string{"container endpoint"}},
		{"W2 metadata says so", awsfake.IMDS, at("MetadataCredentials", absent), nil, []string{"EC2 instance metadata"}},

		{"W3 container endpoint 500", awsfake.Container, at("ContainerCredentials", trouble), fleetkey.ErrUnavailable, []string{"container endpoint", "HTTP status 500"}},
		{"W3 container endpoint 500, not found", awsfake.Container, at("ContainerCredentials", awsfake.Fault{Error: &awsfake.Error{Code: "ResourceNotFoundException", Status: 500}}),
			fleetkey.ErrUnavailable, []string{"HTTP status 500"}},
		{"W3 container endpoint throttles", awsfake.Container, at("ContainerCredentials", page(429, "slow down")), fleetkey.ErrUnavailable, []string{"throttles"}},
		{"W3 container endpoint drops", awsfake.Container, at("ContainerCredentials", awsfake.Fault{Drop: true}), fleetkey.ErrUnavailable, []string{"cannot be reached"}},
		{"W3 container endpoint breaks off", awsfake.Container, at("ContainerCredentials", awsfake.Fault{Cut: true}), fleetkey.ErrUnavailable, []string{"cut off"}},
		{"W3 container endpoint silent", awsfake.Container, at("ContainerCredentials", awsfake.Fault{Hang: true}), fleetkey.ErrUnavailable, []string{"container endpoint", "no response within"}},
		{"W3 STS 503", awsfake.WebIdentity, at("AssumeRoleWithWebIdentity", page(503, "")), fleetkey.ErrUnavailable, []string{"STS", "HTTP status 503"}},
		{"W3 STS 503, denied", awsfake.AssumeRole, at("AssumeRole", awsfake.Fault{Error: &awsfake.Error{Code: "AccessDenied", Status: 503}}), fleetkey.ErrUnavailable, []string{"HTTP status 503"}},
		{"W3 STS throttles", awsfake.AssumeRole, at("AssumeRole", awsfake.Throttle(0)), fleetkey.ErrUnavailable, []string{"throttles"}},
		{"W3 identity provider away", awsfake.WebIdentity, at("AssumeRoleWithWebIdentity", apiError("IDPCommunicationError", "try again")), fleetkey.ErrUnavailable, []string{"STS"}},
		{"W3 STS drops", awsfake.AssumeRole, at("AssumeRole", awsfake.Fault{Lost: true}), fleetkey.ErrUnavailable, []string{"cannot be reached"}},
		{"W3 STS silent", awsfake.AssumeRole, at("AssumeRole", awsfake.Fault{Hang: true}), fleetkey.ErrUnavailable, []string{"STS AssumeRole"}},
		{"W3 first link 500", awsfake.ThenRole, at("ContainerCredentials", trouble), fleetkey.ErrUnavailable, []string{"HTTP status 500"}},
		{"W3 SSO 500", awsfake.SSO, at("GetRoleCredentials", trouble), fleetkey.ErrUnavailable, []string{"SSO", "HTTP status 500"}},
		{"W3 metadata silent", awsfake.IMDS, awsfake.Fault{Hang: true}, fleetkey.ErrUnavailable, []string{"no AWS credentials: give the server a role"}},

		{"malformed", awsfake.Container, at("ContainerCredentials", jsonPage("<html>")), nil, []string{"no AWS credentials: ", "container endpoint"}},
		{"without keys", awsfake.Container, at("ContainerCredentials", jsonPage(`{"Expiration":"2038-01-01T00:00:00Z"}`)), nil, []string{"no AWS credentials: ", "container endpoint"}},
		{"STS malformed", awsfake.AssumeRole, at("AssumeRole", jsonPage("<html>")), nil, []string{"no AWS credentials: ", "STS AssumeRole"}},
		{"metadata malformed", awsfake.IMDS, at("MetadataCredentials", jsonPage("<html>")), nil, []string{"EC2 instance metadata"}},
		{"with white space", awsfake.Container, at("ContainerCredentials", jsonPage(`{"AccessKeyId":"ASIA\n","SecretAccessKey":"x"}`)), nil, []string{"no AWS credentials: ", "white space"}},
		{"with a control character", awsfake.Container, at("ContainerCredentials", jsonPage(`{"AccessKeyId":"ASIA","SecretAccessKey":"x","Token":"\u0001"}`)), nil, []string{"container endpoint", "session token contains"}},
		{"a refusal of several lines", awsfake.SSO, at("GetRoleCredentials", apiError("No", "no\nlevel=INFO\x1b[2J")), nil, []string{`no\nlevel=INFO\x1b[2J`}},

		// What an answer holds where it does not belong may be a key.
		{"refuses with a page", awsfake.Container, at("ContainerCredentials", page(403, `{"SecretAccessKey":"fakefake"}`)), nil, []string{"container endpoint", "HTTP status 403"}},
		{"refuses with a message", awsfake.Container, at("ContainerCredentials", apiError("Denied", "fakefake")), nil, []string{"container endpoint", "HTTP status 400 Denied"}},
		{"wrong date", awsfake.Container, at("ContainerCredentials", jsonPage(`{"AccessKeyId":"ASIA","SecretAccessKey":"x","Expiration":"fakefake"}`)), nil, []string{"container endpoint", "not understood"}},
		{"metadata with a wrong date", awsfake.IMDS, at("MetadataCredentials", jsonPage(`{"Code":"Success","Expiration":"fakefake"}`)), nil, []string{"EC2 instance metadata", "not understood"}},
		{"metadata with a wrong type", awsfake.IMDS, at("MetadataCredentials", jsonPage(`{"Code":"Success","Token":["fakefake"]}`)), nil, []string{"EC2 instance metadata", "not understood"}},
		{"STS with a wrong date", awsfake.AssumeRole, at("AssumeRole", jsonPage("<AssumeRoleResponse><AssumeRoleResult><Credentials><Expiration>fakefake</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>")),
			nil, []string{"STS AssumeRole", "not understood"}},
		{"SSO, but a portal answers", awsfake.SSO, at("GetRoleCredentials", page(200, "<html>fakefake")), nil, []string{"the response does not come from the source of the credentials", "from SSO"}},
		{"SSO, but a portal refuses", awsfake.SSO, at("GetRoleCredentials", page(403, "<html>fakefake")), nil, []string{"the response does not come from the source of the credentials", "from SSO"}},

		{"W3 container endpoint 408", awsfake.Container, at("ContainerCredentials", page(408, "")), fleetkey.ErrUnavailable, []string{"HTTP status 408"}},
		{"W3 STS in trouble, status 400", awsfake.AssumeRole, at("AssumeRole", apiError("InternalFailure", "no")), fleetkey.ErrUnavailable, []string{"InternalFailure", "has a problem"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake.UseSource(t, c.from)
			fake.Heal()
			fake.Inject(c.fault)
			calls := fake.Calls("CreateSecret")
			timeout := 500 * time.Millisecond
			if c.fault.Hang {
				timeout = 50 * time.Millisecond
			}
			s := openFrom(t, func(o *fleetkey.AWSOptions) { o.Timeout = timeout })
			_, _, loaded := s.Load(t.Context())
			_, created := s.Save(t.Context(), pemBundle("a"), "")
			_, saved := s.Save(t.Context(), pemBundle("a"), "some-version")
			for _, err := range []error{loaded, created, saved} {
				requireError(t, err, c.want, c.says...)
				requireNotTheSecret(t, err)
			}
			if c.want == nil {
				_, err := fleetkey.NewSigner(t.Context(), s, testkit.Config())
				require.ErrorContains(t, err, c.says[0])
			}
			require.Equal(t, calls, fake.Calls("CreateSecret"))
			fake.Heal()
			_, _, err := openFrom(t).Load(t.Context())
			require.ErrorIs(t, err, fleetkey.ErrNotExist, "the source is back, and Secrets Manager answers")
		})
	}
}

// requireNotTheSecret checks that no caller takes an error for a statement about the secret,
// by its chain either.
func requireNotTheSecret(t testing.TB, err error) {
	t.Helper()
	require.NotErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, fs.ErrPermission)
	_, api := errors.AsType[smithy.APIError](err)
	require.False(t, api, "%v", err)
	require.NotContains(t, err.Error(), "secretsmanager:", "nothing to allow there")
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "fakefake")
}

// Sources that fail without a call.
func TestAWSCredentialsLocal(t *testing.T) {
	fake := awsfake.Start(t)
	for _, c := range []struct {
		name string
		from awsfake.Source
		do   func(t *testing.T)
		says []string
	}{
		{"token file missing", awsfake.WebIdentity, func(t *testing.T) { t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token") },
			[]string{"no AWS credentials: ", "AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token"}},
		{"session file missing", awsfake.SSO, func(t *testing.T) { t.Setenv("HOME", t.TempDir()); t.Setenv("USERPROFILE", t.TempDir()) },
			[]string{"no AWS credentials: run aws sso login"}},
		{"process fails", awsfake.Process, func(t *testing.T) { process(t, "false") }, []string{"no AWS credentials: ", "credential_process"}},
		{"process says nothing", awsfake.Process, func(t *testing.T) { process(t, "true") }, []string{"credential_process"}},
		{"process says a wrong type", awsfake.Process, func(t *testing.T) {
			process(t, `echo '{"Version":"1","AccessKeyId":"a","SecretAccessKey":"fakefake"}'`)
		}, []string{"credential_process"}},
		{"process says a wrong date", awsfake.Process, func(t *testing.T) {
			process(t, `echo '{"Version":1,"AccessKeyId":"a","SecretAccessKey":"fakefake","Expiration":"soon"}'`)
		}, []string{"credential_process"}},
		{"process says a wrong version", awsfake.Process, func(t *testing.T) { process(t, `echo '{"Version":2}'`) }, []string{"credential_process", "not understood"}},
		{"process says so and fails", awsfake.Process, func(t *testing.T) { process(t, "echo fakefake; exit 7") }, []string{"credential_process", "exit status 7"}},
		{"process says what it must not", awsfake.Process, func(t *testing.T) { process(t, "echo fakefake") }, []string{"credential_process"}},
		{"key with white space", awsfake.Static, func(t *testing.T) { t.Setenv("AWS_ACCESS_KEY_ID", "AKIDFAKE\n") }, []string{"white space", "AWS_ACCESS_KEY_ID"}},
		{"token with a control character", awsfake.Static, func(t *testing.T) { t.Setenv("AWS_SESSION_TOKEN", "x\x7f") }, []string{"white space", "the environment"}},
		{"container token with one", awsfake.Container, func(t *testing.T) { t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "fakefake\x01") }, []string{"no AWS credentials", "container endpoint"}},
		{"container endpoint without HTTP", awsfake.Container, func(t *testing.T) {
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://"+greeter(t, `{"SecretAccessKey":"fakefake"}`+"\r\n"))
		}, []string{"container endpoint", "malformed HTTP"}},
		{"STS at no address", awsfake.AssumeRole, func(t *testing.T) { t.Setenv("AWS_ENDPOINT_URL_STS", "http://me:fakefake@[") }, []string{"no AWS credentials", "parse uri"}},
		{"STS at no address, without a scheme", awsfake.AssumeRole, func(t *testing.T) { t.Setenv("AWS_ENDPOINT_URL_STS", "me:fake/fakefake@h") }, []string{"no AWS credentials"}},
		{"token with white space", awsfake.Static, func(t *testing.T) { t.Setenv("AWS_SESSION_TOKEN", "x \n") }, []string{"white space"}},
		{"profile with white space", awsfake.Profile, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config")
			require.NoError(t, os.WriteFile(file, []byte("[default]\naws_access_key_id = AKID FAKE\naws_secret_access_key = x\n"), 0o600))
			t.Setenv("AWS_CONFIG_FILE", file)
		}, []string{"white space", "profile"}},
		{"none", awsfake.IMDS, func(t *testing.T) { t.Setenv("AWS_EC2_METADATA_DISABLED", "true") }, []string{"no AWS credentials: give the server a role"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake.UseSource(t, c.from)
			c.do(t)
			s := openFrom(t)
			_, _, err := s.Load(t.Context())
			requireError(t, err, nil, c.says...)
			requireNotTheSecret(t, err)
		})
	}
}

func process(t *testing.T, command string) {
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte("[default]\ncredential_process = "+command+"\n"), 0o600))
	t.Setenv("AWS_CONFIG_FILE", file)
}

// TestAWSCredentialsGood : every source that the fake plays, without a fault.
func TestAWSCredentialsGood(t *testing.T) {
	fake := awsfake.Start(t)
	for _, from := range []awsfake.Source{awsfake.Static, awsfake.Profile, awsfake.Process, awsfake.WebIdentity, awsfake.AssumeRole,
		awsfake.Container, awsfake.ThenRole, awsfake.SSO, awsfake.IMDS} {
		t.Run(string(from), func(t *testing.T) {
			fake.UseSource(t, from)
			_, _, err := openFrom(t).Load(t.Context())
			require.ErrorIs(t, err, fleetkey.ErrNotExist)
		})
	}
}

// W3: an instance starts when its source of credentials is back.
func TestAWSCredentialsStartWaits(t *testing.T) {
	for action, c := range map[string]struct {
		from  awsfake.Source
		times int // as often as the SDK tries
	}{
		"ContainerCredentials": {awsfake.Container, 3}, "AssumeRoleWithWebIdentity": {awsfake.WebIdentity, 1}, "MetadataRole": {awsfake.IMDS, 3},
	} {
		t.Run(action, func(t *testing.T) {
			fake := awsfake.Start(t)
			fake.UseSource(t, c.from)
			fake.Inject(awsfake.Fault{Action: action, Times: c.times, Status: http.StatusServiceUnavailable})
			s, err := fleetkey.NewSigner(t.Context(), openFrom(t), testkit.Config())
			require.NoError(t, err)
			require.NoError(t, s.Close())
			require.Greater(t, fake.Calls(action), c.times)
		})
	}
}

func TestAWSCredentialsMetadataInTrouble(t *testing.T) {
	fake := awsfake.Start(t)
	fake.UseSource(t, awsfake.IMDS)
	fake.Inject(awsfake.Fault{Action: "MetadataCredentials", Status: http.StatusInternalServerError})
	_, _, err := openFrom(t).Load(t.Context())
	requireError(t, err, fleetkey.ErrUnavailable, "EC2 instance metadata", "HTTP status 500")
	require.NotContains(t, err.Error(), "give the server a role")
}

// The SDK reports that the metadata refuses a session; only errors and our logs report.
func TestAWSCredentialsQuiet(t *testing.T) {
	fake := awsfake.Start(t)
	fake.UseSource(t, awsfake.IMDS)
	fake.Inject(awsfake.Fault{Action: "MetadataToken", Status: http.StatusForbidden})
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	require.NoError(t, err)
	stderr := os.Stderr
	os.Stderr = said
	defer func() { os.Stderr = stderr; require.NoError(t, said.Close()) }()
	_, _, err = openFrom(t).Load(t.Context())
	require.Error(t, err)
	text, err := os.ReadFile(said.Name())
	require.NoError(t, err)
	require.Empty(t, string(text))
}

// A request for credentials that never gets an answer does not hold up those after it.
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

// W3: the region too may come from the instance metadata.
func TestAWSRegionWaitsForMetadata(t *testing.T) {
	fake := awsfake.Start(t)
	fake.UseSource(t, awsfake.IMDS)
	t.Setenv("AWS_REGION", "")
	fake.Inject(awsfake.Fault{Action: "MetadataRegion", Times: 2, Status: http.StatusInternalServerError})
	require.Equal(t, "AWS secret "+awsName+" in eu-west-1", openFrom(t).String())

	fake.Inject(awsfake.Fault{Action: "MetadataRegion", Status: http.StatusInternalServerError})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := fleetkey.NewAWSStore(ctx, awsName)
	require.ErrorContains(t, err, "no AWS region: set AWS_REGION")
}

// Credentials that Secrets Manager refuses are named by their source as well.
func TestAWSCredentialsRefusedBySecretsManager(t *testing.T) {
	fake := awsfake.Start(t)
	fake.UseSource(t, awsfake.Container)
	expired := awsfake.Expired()
	expired.Action = "GetSecretValue"
	fake.Inject(expired)
	_, _, err := openFrom(t).Load(t.Context())
	requireError(t, err, nil, "expired: renew them", "container endpoint")
}

// A client of the caller's own need not name its sources, or have any.
func TestAWSCredentialsOfAnotherClient(t *testing.T) {
	fake := awsfake.New()
	own := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "no"}
	})
	for name, provider := range map[string]aws.CredentialsProvider{"own": own, "anonymous": aws.AnonymousCredentials{}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) {
				options := o.Client.Options()
				options.Credentials = provider
				o.Client = secretsmanager.New(options)
			})
			_, _, err := s.Load(t.Context())
			requireError(t, err, nil, "credentials")
			requireNotTheSecret(t, err)
		})
	}
}
