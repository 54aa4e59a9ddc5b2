package fleetkey_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go/logging"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// Tests of AWSStore that need no fault: what it asks of AWS, under which name,
// in which region. Faults A1 to A16 are in awsstore_fault_test.go and
// awsstore_swap_test.go, IAM in awsstore_iam_test.go, the emulator in
// awsstore_moto_test.go.

const awsName = "indicium/openid-server-production"

// openAWS opens a secret of the fake, without a socket.
func openAWS(t testing.TB, fake *awsfake.Server, name string, opts ...func(*fleetkey.AWSOptions)) *fleetkey.AWSStore {
	t.Helper()
	own := func(o *fleetkey.AWSOptions) { o.Client = fake.Client() }
	s, err := fleetkey.NewAWSStore(t.Context(), name, append([]func(*fleetkey.AWSOptions){own}, opts...)...)
	require.NoError(t, err)
	return s
}

// pemBundle is text in the form of a bundle, different for each seed.
func pemBundle(seed string) []byte {
	line := strings.Repeat("MIIEvQ"+seed, 64/(6+len(seed))+1)[:64]
	return []byte("-----BEGIN PRIVATE KEY-----\n" + line + "\n" + line + "\n-----END PRIVATE KEY-----\n")
}

func mustSave(t testing.TB, s fleetkey.KeyStore, bundle []byte, prev fleetkey.Version) fleetkey.Version {
	t.Helper()
	v, err := s.Save(t.Context(), bundle, prev)
	require.NoError(t, err)
	require.NotEmpty(t, v)
	return v
}

func requireHolds(t testing.TB, s fleetkey.KeyStore, bundle []byte, version fleetkey.Version) {
	t.Helper()
	b, v, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, string(bundle), string(b))
	require.Equal(t, version, v)
}

func TestAWSStoreNames(t *testing.T) {
	const arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
	for _, c := range []struct{ name, secret, fails string }{
		{"plain", "keys", ""},
		{"all characters", "Aa0/_+=.@-", ""},
		{"longest", strings.Repeat("k", 512), ""},
		{"too long", strings.Repeat("k", 513), "1 to 512"},
		{"empty", "", "1 to 512"},
		{"space", "my keys", "A-Z a-z"},
		{"line end", "keys\n", "A-Z a-z"},
		{"not ASCII", "schlüssel", "A-Z a-z"},
		{"ends like an ARN", "indicium/openid-server", "-server"},
		{"ends in a hyphen and five", "keys-12345", ""},
		{"ends in a hyphen and seven", "keys-1234567", ""},
		{"ARN", arn + "keys-a1B2c3", ""},
		{"ARN without its end", arn + "keys", ""},
		{"ARN of China", "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:keys-a1B2c3", ""},
		{"ARN of another service", "arn:aws:ssm:eu-west-1:123456789012:parameter/keys", "not the ARN of a secret"},
		{"ARN without region", "arn:aws:secretsmanager::123456789012:secret:keys", "not the ARN of a secret"},
		{"ARN without account", "arn:aws:secretsmanager:eu-west-1::secret:keys", "not the ARN of a secret"},
		{"ARN without name", arn + "-a1B2c3", "1 to 512"},
		{"ARN cut short", "arn:aws:secretsmanager", "not the ARN of a secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := awsfake.New()
			_, err := fleetkey.NewAWSStore(t.Context(), c.secret, func(o *fleetkey.AWSOptions) { o.Client = fake.Client() })
			if c.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.fails)
				require.ErrorContains(t, err, "AWS secret")
			}
			require.Zero(t, fake.Calls(""), "NewAWSStore must not call AWS")
		})
	}
}

func TestAWSStoreCallsPerOperation(t *testing.T) {
	fake := awsfake.New()
	s := openAWS(t, fake, awsName)
	require.Equal(t, "AWS secret "+awsName+" in eu-west-1", s.String())

	v := mustSave(t, s, pemBundle("a"), "")
	require.Equal(t, 1, fake.Calls(""), "the first save is one CreateSecret, without a read back")
	requireHolds(t, s, pemBundle("a"), v)
	require.Equal(t, 1, fake.Calls("GetSecretValue"))
	require.Equal(t, 2, fake.Calls(""))

	w := mustSave(t, s, pemBundle("b"), v)
	require.NotEqual(t, v, w)
	require.Equal(t, 2, fake.Versions(awsName))
	requireHolds(t, openAWS(t, fake, awsName), pemBundle("b"), w)
}

// TestAWSStoreRequests looks at what goes over the wire.
func TestAWSStoreRequests(t *testing.T) {
	var bodies []string
	fake := awsfake.New()
	record := http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		bodies = append(bodies, b.String())
		r.Body = nopCloser{&b}
		return fake.HTTPClient().Transport.RoundTrip(r)
	})}
	client := fake.Client(func(o *secretsmanager.Options) { o.HTTPClient = &record })

	s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) { o.Client = client })
	mustSave(t, s, pemBundle("a"), "")
	for _, absent := range []string{"Tags", "KmsKeyId", "AddReplicaRegions"} {
		assert.NotContains(t, bodies[0], absent, "each needs a permission more")
	}
	_, _, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Contains(t, bodies[1], `"VersionStage":"AWSCURRENT"`)

	s = openAWS(t, fake, awsName+"-with-choices", func(o *fleetkey.AWSOptions) {
		o.Client, o.KMSKeyID, o.ReplicaRegions = client, "alias/keys", []string{"eu-central-1"}
	})
	mustSave(t, s, pemBundle("a"), "")
	require.Contains(t, bodies[2], `"KmsKeyId":"alias/keys"`)
	require.Contains(t, bodies[2], `"AddReplicaRegions":[{"Region":"eu-central-1"}]`)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

func TestAWSStoreARN(t *testing.T) {
	fake := awsfake.New()
	v := mustSave(t, openAWS(t, fake, "indicium/keys"), pemBundle("a"), "")
	out, err := fake.Client().DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String("indicium/keys")})
	require.NoError(t, err)

	whole := openAWS(t, fake, *out.ARN)
	requireHolds(t, whole, pemBundle("a"), v)
	w := mustSave(t, whole, pemBundle("b"), v)
	short := openAWS(t, fake, (*out.ARN)[:len(*out.ARN)-7])
	requireHolds(t, short, pemBundle("b"), w)

	t.Run("an ARN without its end creates", func(t *testing.T) {
		s := openAWS(t, fake, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:indicium/more")
		requireHolds(t, s, pemBundle("c"), mustSave(t, s, pemBundle("c"), ""))
	})
	t.Run("a whole ARN cannot create", func(t *testing.T) {
		before := fake.Calls("")
		s := openAWS(t, fake, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:gone-a1B2c3")
		_, err := s.Save(t.Context(), pemBundle("a"), "")
		require.ErrorContains(t, err, "give the name")
		require.NotErrorIs(t, err, fleetkey.ErrConflict)
		require.Equal(t, before, fake.Calls(""))
	})
}

func TestAWSStoreSize(t *testing.T) {
	fake := awsfake.New()
	s := openAWS(t, fake, awsName)
	for _, n := range []int{0, fleetkey.MaxBundleSize + 1} {
		_, err := s.Save(t.Context(), make([]byte, n), "")
		require.ErrorContains(t, err, "1 to 65536 bytes")
	}
	require.Zero(t, fake.Calls(""))
	largest := bytes.Repeat([]byte("k"), fleetkey.MaxBundleSize)
	requireHolds(t, s, largest, mustSave(t, s, largest, ""))
}

// TestAWSStoreRegion goes through the places a region comes from.
func TestAWSStoreRegion(t *testing.T) {
	metadata := metadataServer(t, "ap-south-1")
	configFile := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(configFile, []byte("[default]\nregion = eu-north-1\n[profile other]\nregion = sa-east-1\n"), 0o600))
	const arn = "arn:aws:secretsmanager:us-west-2:123456789012:secret:keys-a1B2c3"

	for _, c := range []struct {
		name, secret, option string
		env                  map[string]string
		want                 string
	}{
		{"instance metadata", "keys", "", nil, "ap-south-1"},
		{"shared config file", "keys", "", map[string]string{"AWS_CONFIG_FILE": configFile}, "eu-north-1"},
		{"profile", "keys", "", map[string]string{"AWS_CONFIG_FILE": configFile, "AWS_PROFILE": "other"}, "sa-east-1"},
		{"AWS_REGION", "keys", "", map[string]string{"AWS_CONFIG_FILE": configFile, "AWS_REGION": "eu-west-3"}, "eu-west-3"},
		{"AWS_DEFAULT_REGION", "keys", "", map[string]string{"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"},
		{"option", "keys", "ca-central-1", map[string]string{"AWS_REGION": "eu-west-3"}, "ca-central-1"},
		{"ARN", arn, "", map[string]string{"AWS_REGION": "eu-west-3"}, "us-west-2"},
		{"ARN and the same option", arn, "us-west-2", nil, "us-west-2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clearAWSEnv(t)
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			s, err := fleetkey.NewAWSStore(t.Context(), c.secret, func(o *fleetkey.AWSOptions) { o.Region = c.option })
			require.NoError(t, err)
			require.Equal(t, "AWS secret "+c.secret+" in "+c.want, s.String())
		})
	}

	t.Run("ARN against option", func(t *testing.T) {
		_, err := fleetkey.NewAWSStore(t.Context(), arn, func(o *fleetkey.AWSOptions) { o.Region = "eu-west-3" })
		require.ErrorContains(t, err, "another region")
	})
	t.Run("the region of the ARN is called whatever the client's is", func(t *testing.T) {
		fake := awsfake.New() // refuses a signature for another region than its own
		client := fake.Client(func(o *secretsmanager.Options) { o.Region = "us-east-1" })
		s, err := fleetkey.NewAWSStore(t.Context(), "arn:aws:secretsmanager:eu-west-1:123456789012:secret:keys-a1B2c3",
			func(o *fleetkey.AWSOptions) { o.Client = client })
		require.NoError(t, err)
		_, _, err = s.Load(t.Context())
		require.ErrorIs(t, err, fleetkey.ErrNotExist)
	})
	t.Run("client without region", func(t *testing.T) {
		_, err := fleetkey.NewAWSStore(t.Context(), "keys", func(o *fleetkey.AWSOptions) {
			o.Client = secretsmanager.New(secretsmanager.Options{})
		})
		require.ErrorContains(t, err, "no region")
	})
}

func TestAWSStoreNoRegion(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	for _, c := range []struct {
		name  string
		env   map[string]string
		limit time.Duration
	}{
		{"metadata switched off", map[string]string{"AWS_EC2_METADATA_DISABLED": "true"}, time.Second},
		{"metadata refused", map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}, 3 * time.Second},
		{"metadata silent", map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": silent.URL}, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			clearAWSEnv(t)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			start := time.Now()
			_, err := fleetkey.NewAWSStore(t.Context(), "keys")
			require.ErrorContains(t, err, `AWS secret "keys": no AWS region: set AWS_REGION`)
			require.Less(t, time.Since(start), c.limit)
		})
	}
	t.Run("the caller's context counts", func(t *testing.T) {
		clearAWSEnv(t)
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent.URL)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := fleetkey.NewAWSStore(ctx, "keys")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(start), 2*time.Second)
	})
	t.Run("broken configuration", func(t *testing.T) {
		clearAWSEnv(t)
		t.Setenv("AWS_PROFILE", "no-such-profile")
		_, err := fleetkey.NewAWSStore(t.Context(), "keys")
		require.ErrorContains(t, err, "read the AWS configuration")
		require.ErrorContains(t, err, "no-such-profile")
	})
}

// clearAWSEnv takes this machine's AWS settings out of a test.
func clearAWSEnv(t *testing.T) {
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // restores it afterwards
			require.NoError(t, os.Unsetenv(name))
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	t.Setenv("AWS_CONFIG_FILE", empty)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", empty)
}

// metadataServer answers as the EC2 instance metadata service (version 2, with
// a session token) of a machine in a region.
func metadataServer(t *testing.T, region string) string {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			_, _ = w.Write([]byte("token"))
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/latest/dynamic/instance-identity/document":
			_, _ = w.Write([]byte(`{"region": "` + region + `"}`))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(h.Close)
	return h.URL
}

// TestAWSStoreEnvironment is the way a server starts: nothing but a name, all
// the rest from the environment, and a real socket.
func TestAWSStoreEnvironment(t *testing.T) {
	clearAWSEnv(t)
	fake := awsfake.Start(t)
	fake.Setenv(t)
	s, err := fleetkey.NewAWSStore(t.Context(), awsName)
	require.NoError(t, err)
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, fleetkey.ErrNotExist)
	v := mustSave(t, s, pemBundle("a"), "")
	requireHolds(t, s, pemBundle("a"), mustSave(t, s, pemBundle("a"), v))
}

// TestAWSStoreKeepsTheValueToItself covers errors and the SDK's own logging.
func TestAWSStoreKeepsTheValueToItself(t *testing.T) {
	secretLine := strings.Split(string(pemBundle("a")), "\n")[1]

	t.Run("log of bodies", func(t *testing.T) {
		var log bytes.Buffer
		fake := awsfake.New()
		s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) {
			o.Client = fake.Client(func(o *secretsmanager.Options) {
				o.ClientLogMode = aws.LogRequestWithBody | aws.LogResponseWithBody | aws.LogRequest
				o.Logger = logging.NewStandardLogger(&log)
			})
		})
		v := mustSave(t, s, pemBundle("a"), "")
		requireHolds(t, s, pemBundle("a"), mustSave(t, s, pemBundle("a"), v))
		require.Contains(t, log.String(), "POST /", "the rest of the log is the caller's wish")
		require.NotContains(t, log.String(), secretLine[:20])
	})
	for _, c := range []struct {
		name  string
		fault awsfake.Fault
	}{
		{"validation message that quotes it", awsfake.Fault{Error: &awsfake.Error{Code: "ValidationException",
			Message: "Value '" + string(pemBundle("a")) + "' failed to satisfy constraint"}}},
		{"answer that cannot be decoded", awsfake.Fault{Body: `{"CreatedDate":"` + secretLine + `"}`}},
		{"page that is not JSON", awsfake.Fault{Status: 400, Body: secretLine}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName)
			v := mustSave(t, s, pemBundle("b"), "")
			for _, action := range []string{"CreateSecret", "PutSecretValue", "GetSecretValue"} {
				c.fault.Action = action
				fake.Inject(c.fault)
				_, created := s.Save(t.Context(), pemBundle("a"), "")
				_, put := s.Save(t.Context(), pemBundle("a"), v)
				_, _, got := s.Load(t.Context())
				fake.Heal()
				err := errors.Join(created, put, got)
				require.Error(t, err)
				if action == "GetSecretValue" && c.fault.Error != nil {
					continue // AWS does not know at that point what it is asked to hide
				}
				require.NotContains(t, err.Error(), secretLine[:20])
			}
		})
	}
}
