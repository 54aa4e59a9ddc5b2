package fleetkey_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go/logging"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file tests the requests of AWSStore: their content, region and time limits. For
// errors, see awserrors_test.go. Package tests/aws also runs the store on moto.

const awsName = "indicium/openid-server-production"

func freshName() string { return "indicium/openid-server-" + rand.Text() }

// openAWS opens a secret of the fake without a socket.
func openAWS(t testing.TB, fake *awsfake.Server, name string, opts ...func(*fleetkey.AWSOptions)) *fleetkey.AWSStore {
	t.Helper()
	own := func(o *fleetkey.AWSOptions) { o.Client = fake.Client() }
	s, err := fleetkey.NewAWSStore(t.Context(), name, append([]func(*fleetkey.AWSOptions){own}, opts...)...)
	require.NoError(t, err)
	return s
}

// using replaces the client of openAWS with a modified one.
func using(fake *awsfake.Server, change func(*secretsmanager.Options)) func(*fleetkey.AWSOptions) {
	return func(o *fleetkey.AWSOptions) { o.Client = fake.Client(change) }
}

// pemBundle returns text in the form of a bundle, different for each seed.
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

// TestAWSStoreRequests checks the content and number of requests.
func TestAWSStoreRequests(t *testing.T) {
	var bodies []string
	fake := awsfake.New()
	fake.Watch(func(_ string, in, _ []byte) { bodies = append(bodies, string(in)) })
	s := openAWS(t, fake, awsName)
	require.Empty(t, bodies, "NewAWSStore must not call AWS")
	v := mustSave(t, s, pemBundle("a"), "")
	require.Len(t, bodies, 1, "the first save must be one CreateSecret, without reading back")
	for _, absent := range []string{"Tags", "KmsKeyId", "AddReplicaRegions"} {
		require.NotContains(t, bodies[0], absent, "would require a further permission")
	}
	requireHolds(t, s, pemBundle("a"), v)
	require.Len(t, bodies, 2)
	require.Contains(t, bodies[1], `"VersionStage":"AWSCURRENT"`)

	mustSave(t, openAWS(t, fake, awsName+"-with-choices", func(o *fleetkey.AWSOptions) {
		o.KMSKeyID, o.ReplicaRegions = "alias/keys", []string{"eu-central-1"}
	}), pemBundle("a"), "")
	require.Contains(t, bodies[2], `"KmsKeyId":"alias/keys"`)
	require.Contains(t, bodies[2], `"AddReplicaRegions":[{"Region":"eu-central-1"}]`)
}

// A server that reads a replica writes nothing, so it does not create a second secret.
func TestAWSStoreReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awsfake.New()
		primary := openAWS(t, fake, awsName)
		replica := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) { o.ReadOnly = true })
		_, err := fleetkey.NewSigner(t.Context(), replica, testkit.Rotating())
		require.ErrorIs(t, err, fleetkey.ErrReadOnly)
		require.ErrorIs(t, err, fleetkey.ErrNotExist)
		_, err = replica.Save(t.Context(), pemBundle("a"), "")
		require.ErrorIs(t, err, fleetkey.ErrReadOnly)
		_, _, err = primary.Load(t.Context())
		require.ErrorIs(t, err, fleetkey.ErrNotExist)

		writer := testkit.Start(t, primary, testkit.Rotating())
		reader := testkit.Start(t, replica, testkit.Rotating())
		require.True(t, reader.Status().ReadOnly)
		testkit.Accepts(t, testkit.Issue(t, reader), writer)
		require.ErrorIs(t, reader.Rotate(t.Context()), fleetkey.ErrReadOnly)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAWSStoreSaveRefuses(t *testing.T) {
	fake := awsfake.New()
	for _, n := range []int{0, fleetkey.MaxBundleSize + 1} {
		_, err := openAWS(t, fake, awsName).Save(t.Context(), make([]byte, n), "")
		require.ErrorContains(t, err, "1 to 65536 bytes")
	}
	// A complete ARN means that the secret exists, so it is never created.
	_, err := openAWS(t, fake, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:gone-a1B2c3").Save(t.Context(), pemBundle("a"), "")
	require.ErrorContains(t, err, "give the name")
	require.NotErrorIs(t, err, fleetkey.ErrConflict)
	require.Zero(t, fake.Calls(""))
}

// TestAWSStoreRegion tests the sources of the region in order of increasing precedence.
func TestAWSStoreRegion(t *testing.T) {
	fake := awsfake.Start(t)
	profile := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(profile, []byte("[default]\nregion = eu-north-1\n"), 0o600))
	const arn = "arn:aws:secretsmanager:us-west-2:123456789012:secret:keys-a1B2c3"
	for _, c := range []struct{ name, secret, option, config, env, want, err string }{
		{"instance metadata", "keys", "", os.DevNull, "", awsfake.Region, ""}, // W3: after a temporary failure
		{"shared configuration", "keys", "", profile, "", "eu-north-1", ""},
		{"environment", "keys", "", profile, "eu-west-3", "eu-west-3", ""},
		{"option", "keys", "ca-central-1", profile, "eu-west-3", "ca-central-1", ""},
		{"ARN", arn, "", profile, "eu-west-3", "us-west-2", ""},
		{"ARN and the same option", arn, "us-west-2", profile, "eu-west-3", "us-west-2", ""},
		{"ARN and another option", arn, "eu-west-3", profile, "", "", "the region of the ARN differs"},
		{"broken configuration", "keys", "", t.TempDir(), "", "", "read the AWS configuration"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake.UseSource(t, awsfake.IMDS)
			fake.Inject(awsfake.Fault{Action: "MetadataRegion", Times: 2, Status: http.StatusInternalServerError})
			defer fake.Heal()
			t.Setenv("AWS_CONFIG_FILE", c.config)
			t.Setenv("AWS_REGION", c.env)
			s, err := fleetkey.NewAWSStore(t.Context(), c.secret, func(o *fleetkey.AWSOptions) { o.Region = c.option })
			if c.err != "" {
				require.ErrorContains(t, err, `AWS secret "`+c.secret+`": `+c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "AWS secret "+c.secret+" in "+c.want, s.String())
		})
	}
	t.Run("the region of the ARN wins over the client's", func(t *testing.T) {
		fake := awsfake.New() // rejects a signature for another region
		s := openAWS(t, fake, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:keys-a1B2c3",
			using(fake, func(o *secretsmanager.Options) { o.Region = "us-east-1" }))
		_, _, err := s.Load(t.Context())
		require.ErrorIs(t, err, fleetkey.ErrNotExist)
	})
}

// TestAWSStoreNoRegion: if no source has a region, the search ends soon, or with its context.
func TestAWSStoreNoRegion(t *testing.T) {
	fake := awsfake.Start(t)
	for name, c := range map[string]struct {
		fault awsfake.Fault
		limit time.Duration // of the context
		ended bool
	}{
		"no metadata":                   {awsfake.Fault{Drop: true}, 5 * time.Second, false},
		"metadata silent":               {awsfake.Fault{Hang: true}, 5 * time.Second, false},
		"metadata silent, and in haste": {awsfake.Fault{Hang: true}, 50 * time.Millisecond, true},
		"metadata in trouble":           {awsfake.Fault{Status: 500}, 50 * time.Millisecond, true}, // temporary, so retried
	} {
		t.Run(name, func(t *testing.T) {
			fake.UseSource(t, awsfake.IMDS)
			t.Setenv("AWS_REGION", "")
			fake.Inject(c.fault)
			defer fake.Heal()
			ctx, cancel := context.WithTimeout(t.Context(), c.limit)
			defer cancel()
			start := time.Now()
			_, err := fleetkey.NewAWSStore(ctx, "keys")
			require.ErrorContains(t, err, `AWS secret "keys": no AWS region: set AWS_REGION`)
			require.Equal(t, c.ended, ctx.Err() != nil)
			require.Less(t, time.Since(start), c.limit+800*time.Millisecond)
		})
	}
	_, err := fleetkey.NewAWSStore(t.Context(), "keys",
		func(o *fleetkey.AWSOptions) { o.Client = secretsmanager.New(secretsmanager.Options{}) })
	require.ErrorContains(t, err, "no region")
}

// W8: extra characters around a name in the configuration are rejected and quoted.
func TestAWSStoreWhiteSpace_W8(t *testing.T) {
	fake := awsfake.Start(t)
	for says, c := range map[string]struct {
		variable, value, secret string
		option                  func(*fleetkey.AWSOptions)
	}{
		`"eu-west-1\n" is not a region`:         {"AWS_REGION", "eu-west-1\n", awsName, nil},
		`"eu-west-1.evil.example/" is not`:      {"AWS_REGION", "eu-west-1.evil.example/", awsName, nil},
		`x\nlevel=INFO`:                         {"AWS_PROFILE", "x\nlevel=INFO", awsName, nil},
		`"eu-west-1\t" is not a region`:         {"AWS_REGION", "", awsName, func(o *fleetkey.AWSOptions) { o.Region = "eu-west-1\t" }},
		`"eu-west-1\r" is not a region`:         {"AWS_REGION", "", awsName, using(fake, func(o *secretsmanager.Options) { o.Region = "eu-west-1\r" })},
		`"eu-north-1\n" is not a region`:        {"AWS_REGION", "eu-west-1", awsName, func(o *fleetkey.AWSOptions) { o.ReplicaRegions = []string{"eu-north-1\n"} }},
		`"` + awsName + `\n": a name must have`: {"AWS_REGION", "eu-west-1", awsName + "\n", nil},
	} {
		t.Run(says, func(t *testing.T) {
			fake.Setenv(t)
			t.Setenv(c.variable, c.value)
			_, err := fleetkey.NewAWSStore(t.Context(), c.secret, func(o *fleetkey.AWSOptions) {
				if c.option != nil {
					c.option(o)
				}
			})
			require.ErrorContains(t, err, says)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// A client configured to log bodies would log private keys.
func TestAWSStoreLogsNoBodies(t *testing.T) {
	var log bytes.Buffer
	fake := awsfake.New()
	s := openAWS(t, fake, awsName, using(fake, func(o *secretsmanager.Options) {
		o.ClientLogMode = aws.LogRequestWithBody | aws.LogResponseWithBody | aws.LogRequest
		o.Logger = logging.NewStandardLogger(&log)
	}))
	v := mustSave(t, s, pemBundle("a"), "")
	requireHolds(t, s, pemBundle("a"), mustSave(t, s, pemBundle("a"), v))
	require.Contains(t, log.String(), "POST /", "everything except the bodies must still be logged")
	require.NotContains(t, log.String(), "MIIEvQ")
}

// TestAWSStoreA3: every call ends within its time limit, or with the caller's context if sooner.
func TestAWSStoreA3(t *testing.T) {
	inBubble(t, "the caller's context", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, _ fleetkey.Version) {
		fake.Inject(awsfake.Fault{Hang: true})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := s.Load(ctx)
		requireError(t, err, context.DeadlineExceeded)
		require.NotContains(t, err.Error(), "no response within", "the caller's context ended; AWS is not at fault")
		require.Equal(t, time.Second, time.Since(start))
	})
	for _, timeout := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) { o.Timeout = timeout })
			limit := cmp.Or(timeout, 10*time.Second)
			save := func(seed string, prev fleetkey.Version) func() error {
				return func() error { _, err := s.Save(t.Context(), pemBundle(seed), prev); return err }
			}
			requireEnds := func(action string, limit time.Duration, call func() error) {
				fake.Inject(awsfake.Fault{Action: action, Hang: true})
				start := time.Now()
				requireError(t, call(), errTimedOut, "no response within "+limit.String(), action)
				require.GreaterOrEqual(t, time.Since(start), limit)
				require.LessOrEqual(t, time.Since(start), limit+8*time.Second, "including the time to find out the result")
				fake.Heal()
			}
			requireEnds("CreateSecret", 3*limit, save("a", ""))
			v := mustSave(t, s, pemBundle("a"), "")
			requireEnds("GetSecretValue", limit, func() error { _, _, err := s.Load(t.Context()); return err })
			requireEnds("PutSecretValue", limit, save("b", v))
			requireEnds("UpdateSecretVersionStage", limit, save("b", v))
		})
	}
}
