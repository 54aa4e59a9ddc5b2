package fleetkey_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
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
	"ErrUnavailable":     fleetkey.ErrUnavailable,
}

// errTimedOut is what a call matches that ran out of its own time.
var errTimedOut = errors.Join(fleetkey.ErrUnavailable, context.DeadlineExceeded)

// requireError checks that err matches want and none of the other sentinels,
// names the secret and its region, and says each of the texts.
func requireError(t testing.TB, err, want error, says ...string) {
	t.Helper()
	require.Error(t, err)
	for name, sentinel := range sentinels {
		require.Equal(t, errors.Is(want, sentinel), errors.Is(err, sentinel), "%s: %v", name, err)
	}
	if want == errTimedOut {
		want = context.DeadlineExceeded
	}
	if want != nil {
		require.ErrorIs(t, err, want)
	}
	for _, text := range append(says, "AWS secret indicium/", " in eu-west-1: ") {
		require.ErrorContains(t, err, text)
	}
}

// A loadFault is a fault that GetSecretValue meets, and what Load makes of it.
type loadFault struct {
	name  string
	fault awsfake.Fault
	calls int // with the SDK's own attempts, beyond which nothing is repeated
	want  error
	says  []string
}

func apiError(code, message string) awsfake.Fault {
	return awsfake.Fault{Error: &awsfake.Error{Code: code, Message: message}}
}

func testLoadFaults(t *testing.T, faults ...loadFault) {
	for _, c := range faults {
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

// TestAWSStoreA1Load : throttling.
func TestAWSStoreA1Load(t *testing.T) {
	testLoadFaults(t,
		loadFault{"throttled for 1000 calls", awsfake.Throttle(1000), 3, fleetkey.ErrUnavailable, []string{"throttles", "ThrottlingException"}},
		loadFault{"HTTP 429", awsfake.Fault{Status: 429, Body: "slow down"}, 3, fleetkey.ErrUnavailable, []string{"throttles"}},
	)
}

// TestAWSStoreA2Load : answers of something that is not well, or not AWS.
func TestAWSStoreA2Load(t *testing.T) {
	testLoadFaults(t,
		loadFault{"500 as JSON", awsfake.Fault{Error: &awsfake.Error{Code: "InternalServiceError", Message: "sorry", Status: 500}}, 3, fleetkey.ErrUnavailable, []string{"HTTP status 500"}},
		loadFault{"503 as HTML", awsfake.Fault{Status: 503, Body: "<html>"}, 3, fleetkey.ErrUnavailable, []string{"HTTP status 503"}},
		loadFault{"503 empty", awsfake.Fault{Status: 503}, 3, fleetkey.ErrUnavailable, []string{"HTTP status 503"}},
		loadFault{"200 empty", awsfake.Fault{Status: 200}, 1, nil, []string{"GetSecretValue: the answer is not one of Secrets Manager"}},
		loadFault{"200 as HTML", awsfake.Fault{Body: "<html>"}, 1, nil, []string{"not one of Secrets Manager", "HTTP status 200"}},
		loadFault{"404 as HTML is not absence", awsfake.Fault{Status: 404, Body: "<html>"}, 1, nil, []string{"not one of Secrets Manager", "HTTP status 404"}},
	)
}

// TestAWSStoreA3Load : connections that break.
func TestAWSStoreA3Load(t *testing.T) {
	testLoadFaults(t,
		loadFault{"connection dropped", awsfake.Fault{Lost: true}, 3, fleetkey.ErrUnavailable, []string{"cannot be reached"}},
		loadFault{"cut off in mid-body", awsfake.Fault{Cut: true}, 1, fleetkey.ErrUnavailable, []string{"the answer broke off"}},
	)
}

// TestAWSStoreA4Load : successes that are none.
func TestAWSStoreA4Load(t *testing.T) {
	testLoadFaults(t,
		loadFault{"garbage", awsfake.Fault{Body: `{"SecretString":`}, 1, nil, []string{"not one of Secrets Manager"}},
		loadFault{"foreign JSON", awsfake.Fault{Body: `{"ok": true}`}, 1, nil, []string{"not one of Secrets Manager"}},
		loadFault{"no VersionId", awsfake.Fault{Body: `{"SecretString": "x"}`}, 1, nil, []string{"not one of Secrets Manager"}},
		loadFault{"no value", awsfake.Fault{Body: `{"VersionId": "x"}`}, 1, nil, []string{"not one of Secrets Manager"}},
	)
}

// TestAWSStoreA5Load : credentials.
func TestAWSStoreA5Load(t *testing.T) {
	testLoadFaults(t,
		loadFault{"expired", awsfake.Expired(), 1, nil, []string{"expired: renew them"}},
		loadFault{"unknown key", apiError("UnrecognizedClientException", "The security token included in the request is invalid."), 1, nil, []string{"does not accept the credentials"}},
		loadFault{"wrong clock or key", apiError("InvalidSignatureException", "Signature expired"), 1, nil, []string{"the clock"}},
	)
}

// TestAWSStoreA6Load : refusals.
func TestAWSStoreA6Load(t *testing.T) {
	testLoadFaults(t,
		loadFault{"KMS key unusable", apiError("DecryptionFailure", "Secrets Manager can't decrypt"), 1, nil, []string{"KMS key: is it enabled"}},
		loadFault{"KMS key denied", awsfake.KMSDenied(""), 1, fs.ErrPermission, []string{"allow kms:Decrypt on the secret's KMS key"}},
		loadFault{"KMS key denied by policy", apiError("AccessDeniedException", "User: x is not authorized to perform: kms:Decrypt on resource: y"), 1, fs.ErrPermission, []string{"allow kms:Decrypt on the secret's KMS key"}},
		loadFault{"a name with KMS in it", apiError("AccessDeniedException", "not authorized to perform: secretsmanager:GetSecretValue on resource: prod/KMS"), 1, fleetkey.ErrAccessDenied, []string{"allow secretsmanager:GetSecretValue"}},
		loadFault{"denied by an emulator", awsfake.Fault{Status: 403, Body: "<AccessDenied/>"}, 1, fleetkey.ErrAccessDenied, []string{"secretsmanager:GetSecretValue"}},
		loadFault{"other code", apiError("InvalidParameterException", "no"), 1, nil, []string{"InvalidParameterException: no"}},
		loadFault{"invalid request", apiError("InvalidRequestException", "no"), 1, nil, []string{"InvalidRequestException: no"}},
	)
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
				requireError(t, err, errTimedOut, "no answer within 10s")
				require.Equal(t, 10*time.Second, time.Since(start))

				start = time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _, err = s.Load(ctx)
				requireError(t, err, context.DeadlineExceeded)
				require.NotContains(t, err.Error(), "no answer within", "that would blame AWS for the caller's haste")
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
				requireError(t, err, errTimedOut, "no answer within "+limit.String(), action)
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
			requireError(t, err, errTimedOut, "no answer within 1s")
			_, err = s.Save(t.Context(), pemBundle("a"), "")
			requireError(t, err, errTimedOut, "no answer within 3s")
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
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openAWS(t, plain, awsName, func(o *fleetkey.AWSOptions) {
				o.Client = plain.Client(func(o *secretsmanager.Options) {
					o.HTTPClient, o.BaseEndpoint = http.DefaultClient, aws.String(c.url)
				})
			})
			_, _, err := s.Load(t.Context())
			requireError(t, err, fleetkey.ErrUnavailable, "cannot be reached", c.says)
		})
	}
	overSocket := func(o *fleetkey.AWSOptions) {
		o.Timeout = 300 * time.Millisecond
		o.Client = plain.Client(func(o *secretsmanager.Options) {
			o.HTTPClient, o.BaseEndpoint = http.DefaultClient, aws.String(plain.URL)
		})
	}
	for _, c := range []struct {
		name  string
		fault awsfake.Fault
		want  error
		says  string
	}{
		{"dropped", awsfake.Fault{Lost: true}, fleetkey.ErrUnavailable, "cannot be reached"},
		{"cut off", awsfake.Fault{Cut: true}, fleetkey.ErrUnavailable, "broke off"},
		{"no answer", awsfake.Fault{Hang: true}, errTimedOut, "no answer within 300ms"},
		{"a byte a second", awsfake.Fault{Trickle: true}, errTimedOut, "no answer within 300ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openAWS(t, plain, freshName(), overSocket)
			v := mustSave(t, s, pemBundle("a"), "")
			plain.Inject(c.fault)
			_, _, err := s.Load(t.Context())
			plain.Heal()
			requireError(t, err, c.want, c.says)
			requireHolds(t, s, pemBundle("a"), v)
		})
	}
	t.Run("reset in mid-body", func(t *testing.T) {
		reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
		s := openAWS(t, plain, awsName, func(o *fleetkey.AWSOptions) {
			o.Client = plain.Client(func(o *secretsmanager.Options) {
				o.HTTPClient = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
					body := io.NopCloser(io.MultiReader(strings.NewReader(`{"Sec`), iotest.ErrReader(reset)))
					return &http.Response{StatusCode: 200, Body: body}, nil
				})}
			})
		})
		_, _, err := s.Load(t.Context())
		requireError(t, err, fleetkey.ErrUnavailable, "broke off")
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
