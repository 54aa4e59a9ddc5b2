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
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// What AWSStore makes of AWS's failures: which error it matches, what it says, and how
// many calls it costs.

// sentinels are the errors that a Signer acts upon.
var sentinels = []error{fleetkey.ErrNotExist, fleetkey.ErrConflict, fleetkey.ErrAccessDenied, fleetkey.ErrDeletionPending, fleetkey.ErrUnavailable}

// errTimedOut stands for both errors that a call matches after its time limit.
var errTimedOut = errors.Join(fleetkey.ErrUnavailable, context.DeadlineExceeded)

// requireError checks that err matches want and none of the other sentinels, names the
// secret and its region, and says each of the texts.
func requireError(t testing.TB, err, want error, says ...string) {
	t.Helper()
	require.Error(t, err)
	for _, sentinel := range sentinels {
		require.Equal(t, errors.Is(want, sentinel), errors.Is(err, sentinel), "%v: %v", sentinel, err)
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

// An awsFault is what each call of the store meets, and what the store makes of it.
type awsFault struct {
	name  string
	fault awsfake.Fault
	calls int // with the SDK's own attempts, beyond which nothing is repeated
	want  error
	says  string
}

func apiError(code, message string) awsfake.Fault {
	return awsfake.Fault{Error: &awsfake.Error{Code: code, Message: message}}
}

// testFaults runs Load and both kinds of Save into each fault, one call at a time.
func testFaults(t *testing.T, faults ...awsFault) {
	for _, c := range faults {
		inBubble(t, c.name, func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			meet := func(action string) {
				fake.Heal()
				f := c.fault
				f.Action = action
				fake.Inject(f)
			}
			meet("GetSecretValue")
			b, got, err := s.Load(t.Context())
			requireError(t, err, c.want, c.says, "load AWS secret", "GetSecretValue")
			require.Nil(t, b)
			require.Empty(t, got)
			require.Equal(t, c.calls, fake.Calls("GetSecretValue"))

			meet("CreateSecret")
			_, err = openAWS(t, fake, "indicium/another").Save(t.Context(), pemBundle("a"), "")
			requireError(t, err, c.want, c.says, "save AWS secret", "CreateSecret")

			meet("PutSecretValue")
			_, err = s.Save(t.Context(), pemBundle("b"), v)
			requireError(t, err, c.want, c.says, "save AWS secret", "PutSecretValue")
			require.Equal(t, c.calls, fake.Calls("PutSecretValue"))
			requireHolds(t, s, pemBundle("a"), v)

			meet("UpdateSecretVersionStage")
			w, err := s.Save(t.Context(), pemBundle("b"), v)
			fake.Heal()
			if c.fault.Lost || c.fault.Cut || c.fault.Trickle {
				require.NoError(t, err, "AWS did it, and the store looked")
				requireHolds(t, s, pemBundle("b"), w)
				return
			}
			requireError(t, err, c.want, c.says, "save AWS secret", "UpdateSecretVersionStage")
			requireHolds(t, s, pemBundle("a"), v)
			requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v))
		})
	}
}

// TestAWSStoreA1Load : throttling.
func TestAWSStoreA1Load(t *testing.T) {
	testFaults(t,
		awsFault{"throttled for 1000 calls", awsfake.Throttle(1000), 3, fleetkey.ErrUnavailable, "throttles"},
		awsFault{"HTTP 429", awsfake.Fault{Status: 429, Body: "slow down"}, 3, fleetkey.ErrUnavailable, "throttles"},
	)
}

// TestAWSStoreA2Load : answers of a service that has failed, or is not AWS.
func TestAWSStoreA2Load(t *testing.T) {
	testFaults(t,
		awsFault{"500 as JSON", awsfake.Fault{Error: &awsfake.Error{Code: "InternalServiceError", Message: "sorry", Status: 500}}, 3, fleetkey.ErrUnavailable, "HTTP status 500): try again later"},
		awsFault{"503 as HTML", awsfake.Fault{Status: 503, Body: "<html>"}, 3, fleetkey.ErrUnavailable, "HTTP status 503"},
		awsFault{"503 empty", awsfake.Fault{Status: 503}, 3, fleetkey.ErrUnavailable, "HTTP status 503"},
		awsFault{"200 empty", awsfake.Fault{Status: 200}, 1, nil, "the answer is not one of Secrets Manager"},
		awsFault{"200 as HTML", awsfake.Fault{Body: "<html>"}, 1, nil, "not one of Secrets Manager"},
		awsFault{"404 as HTML is not absence", awsfake.Fault{Status: 404, Body: "<html>"}, 1, nil, "not one of Secrets Manager"},
	)
}

// TestAWSStoreA3Load : connections that break or hang.
func TestAWSStoreA3Load(t *testing.T) {
	testFaults(t,
		awsFault{"connection dropped at once", awsfake.Fault{Drop: true}, 3, fleetkey.ErrUnavailable, "cannot be reached"},
		awsFault{"connection dropped for the answer", awsfake.Fault{Lost: true}, 3, fleetkey.ErrUnavailable, "cannot be reached"},
		awsFault{"cut off in mid-body", awsfake.Fault{Cut: true}, 1, fleetkey.ErrUnavailable, "the answer broke off"},
		awsFault{"no answer", awsfake.Fault{Hang: true}, 1, errTimedOut, "no answer within"},
		awsFault{"a byte a second", awsfake.Fault{Trickle: true}, 1, errTimedOut, "no answer within"},
	)
}

// TestAWSStoreA4Load : successes that are none.
func TestAWSStoreA4Load(t *testing.T) {
	testFaults(t,
		awsFault{"garbage", awsfake.Fault{Body: `{"SecretString":`}, 1, nil, "not one of Secrets Manager"},
		awsFault{"foreign JSON", awsfake.Fault{Body: `{"ok": true}`}, 1, nil, "not one of Secrets Manager"},
		awsFault{"no VersionId", awsfake.Fault{Body: `{"SecretString": "x"}`}, 1, nil, "not one of Secrets Manager"},
	)
	fake := awsfake.New()
	fake.Inject(awsfake.Fault{Body: `{"VersionId": "x"}`})
	_, _, err := openAWS(t, fake, awsName).Load(t.Context())
	requireError(t, err, nil, "not one of Secrets Manager")
}

// TestAWSStoreA5Load : credentials.
func TestAWSStoreA5Load(t *testing.T) {
	testFaults(t,
		awsFault{"expired", awsfake.Expired(), 1, nil, "expired: renew them"},
		awsFault{"unknown key", apiError("UnrecognizedClientException", "The security token included in the request is invalid."), 1, nil, "does not accept the credentials"},
		awsFault{"wrong clock or key", apiError("InvalidSignatureException", "Signature expired"), 1, nil, "the clock"},
	)
}

// TestAWSStoreA6Load : refusals.
func TestAWSStoreA6Load(t *testing.T) {
	const kms = " on the secret's KMS key, in the role's policy"
	testFaults(t,
		awsFault{"KMS key unusable", apiError("DecryptionFailure", "Secrets Manager can't decrypt"), 1, nil, "KMS key: is it enabled"},
		awsFault{"KMS key unusable to write", apiError("EncryptionFailure", "no"), 1, nil, "KMS key: is it enabled"},
		awsFault{"KMS key denied", awsfake.KMSDenied(""), 1, fs.ErrPermission, kms},
		awsFault{"KMS key denied by policy", apiError("AccessDeniedException", "User: x is not authorized to perform: kms:Decrypt on resource: y"), 1, fs.ErrPermission, kms},
		awsFault{"denied", apiError("AccessDeniedException", "no"), 1, fleetkey.ErrAccessDenied, " on arn:aws:secretsmanager:eu-west-1:<account-id>:secret:indicium/"},
		awsFault{"a name with KMS in it", apiError("AccessDeniedException", "not authorized to perform: secretsmanager:GetSecretValue on resource: prod/KMS"), 1, fleetkey.ErrAccessDenied, "allow secretsmanager:"},
		awsFault{"denied by an emulator", awsfake.Fault{Status: 403, Body: "<AccessDenied/>"}, 1, fleetkey.ErrAccessDenied, "allow secretsmanager:"},
		awsFault{"quota", apiError("LimitExceededException", "too many"), 3, nil, "an AWS quota is reached"},
		awsFault{"other code", apiError("InvalidParameterException", "no"), 1, nil, "InvalidParameterException: no"},
		awsFault{"invalid request", apiError("InvalidRequestException", "no"), 1, nil, "InvalidRequestException: no"},
	)
}

// TestAWSStoreA9Load : both wordings, of AWS and of moto.
func TestAWSStoreA9Load(t *testing.T) {
	const command = "restore it by: aws secretsmanager restore-secret --secret-id indicium/"
	testFaults(t,
		awsFault{"AWS", apiError("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion."), 1, fleetkey.ErrDeletionPending, command},
		awsFault{"moto", apiError("InvalidRequestException", "You tried to perform the operation on a secret that's currently marked deleted."), 1, fleetkey.ErrDeletionPending, command},
	)
}

// TestAWSStoreA1 : the SDK's own attempts get over a short throttling, and back off.
func TestAWSStoreA1(t *testing.T) {
	inBubble(t, "", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(awsfake.Throttle(2))
		requireHolds(t, s, pemBundle("a"), v)
		s = openAWS(t, fake, awsName, using(fake, func(o *secretsmanager.Options) { o.Retryer = retry.NewStandard() }))
		fake.Inject(awsfake.Throttle(1000))
		start := time.Now()
		for range 20 {
			_, _, err := s.Load(t.Context())
			require.Error(t, err)
		}
		require.Greater(t, time.Since(start), 5*time.Second, "20 failed loads, 40 pauses")
	})
}

// TestAWSStoreA3Sockets : what a call of the fake without a socket cannot show.
func TestAWSStoreA3Sockets(t *testing.T) {
	fake, tls := awsfake.Start(t), httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	t.Cleanup(tls.Close)
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // nobody accepts
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, silent.Close()) })
	dropped := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	reset := roundTripper(func(*http.Request) (*http.Response, error) {
		err := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(io.MultiReader(strings.NewReader(`{"Sec`), iotest.ErrReader(err)))}, nil
	})
	for _, c := range []struct {
		name, url string
		transport http.RoundTripper
		fault     awsfake.Fault
		want      error
		says      string
	}{
		{"refused", "http://127.0.0.1:1", nil, awsfake.Fault{}, fleetkey.ErrUnavailable, "connection refused"},
		{"unknown certificate", tls.URL, nil, awsfake.Fault{}, fleetkey.ErrUnavailable, "certificate"},
		{"TLS to a plain server", "https" + fake.URL[len("http"):], nil, awsfake.Fault{}, fleetkey.ErrUnavailable, "HTTP response to HTTPS client"},
		{"not accepted", "http://" + silent.Addr().String(), nil, awsfake.Fault{}, errTimedOut, "no answer within 200ms"},
		{"no TLS handshake", "https://" + silent.Addr().String(), nil, awsfake.Fault{}, errTimedOut, "no answer within 200ms"},
		{"packets dropped", fake.URL, dropped, awsfake.Fault{}, errTimedOut, "no answer within 200ms"},
		{"connection dropped", fake.URL, nil, awsfake.Fault{Lost: true}, fleetkey.ErrUnavailable, "cannot be reached"},
		{"cut off", fake.URL, nil, awsfake.Fault{Cut: true}, fleetkey.ErrUnavailable, "broke off"},
		{"a byte a second", fake.URL, nil, awsfake.Fault{Trickle: true}, errTimedOut, "no answer within 200ms"},
		{"reset in mid-body", fake.URL, reset, awsfake.Fault{}, fleetkey.ErrUnavailable, "broke off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openAWS(t, fake, freshName(), func(o *fleetkey.AWSOptions) { o.Timeout = 200 * time.Millisecond },
				using(fake, func(o *secretsmanager.Options) {
					o.HTTPClient, o.BaseEndpoint = &http.Client{Transport: c.transport}, aws.String(c.url)
				}))
			fake.Inject(c.fault)
			defer fake.Heal()
			_, _, err := s.Load(t.Context())
			requireError(t, err, c.want, c.says)
		})
	}
}

// TestAWSStoreA3HTTP2 : HTTP/2 resets a stream rather than the connection.
func TestAWSStoreA3HTTP2(t *testing.T) {
	fake := awsfake.New()
	server := httptest.NewUnstartedServer(fake)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	s := openAWS(t, fake, awsName, using(fake, func(o *secretsmanager.Options) {
		o.HTTPClient, o.BaseEndpoint = server.Client(), aws.String(server.URL)
	}))
	v := mustSave(t, s, pemBundle("a"), "")
	for says, fault := range map[string]awsfake.Fault{"cannot be reached": {Lost: true}, "broke off": {Cut: true}} {
		fake.Inject(fault)
		_, _, err := s.Load(t.Context())
		requireError(t, err, fleetkey.ErrUnavailable, says)
		fake.Heal()
		requireHolds(t, s, pemBundle("a"), v)
	}
}

// TestAWSStoreA6EachAction : what to allow, by the call that was refused.
func TestAWSStoreA6EachAction(t *testing.T) {
	const denied, kms = "AccessDeniedException", "Access to KMS is not allowed"
	for _, c := range []struct {
		action, code, message string
		says                  string
		replicas              []string
	}{
		{"GetSecretValue", denied, "no", "allow secretsmanager:GetSecretValue on arn:", nil},
		{"CreateSecret", denied, "no", "allow secretsmanager:CreateSecret on arn:", nil},
		{"CreateSecret", denied, "no", "allow secretsmanager:CreateSecret and secretsmanager:ReplicateSecretToRegions on arn:", []string{"eu-central-1"}},
		{"PutSecretValue", denied, "no", "allow secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage on arn:", nil},
		{"UpdateSecretVersionStage", denied, "no", "allow secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage on arn:", nil},
		{"GetSecretValue", denied, kms, "allow kms:Decrypt on the secret's KMS key", nil},
		{"CreateSecret", denied, kms, "allow kms:Decrypt and kms:GenerateDataKey on the secret's KMS key", nil},
		{"CreateSecret", "ResourceNotFoundException", "no such key", "does the KMS key exist", nil},
	} {
		fake := awsfake.New()
		v := mustSave(t, openAWS(t, fake, awsName), pemBundle("a"), "")
		if c.action == "CreateSecret" {
			v = ""
		}
		f := apiError(c.code, c.message)
		f.Action = c.action
		fake.Inject(f)
		s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) { o.ReplicaRegions = c.replicas })
		_, err := s.Save(t.Context(), pemBundle("b"), v)
		require.ErrorContains(t, err, c.says)
	}
}

// TestAWSStoreKeepsTheValueToItself : no error quotes a key.
func TestAWSStoreKeepsTheValueToItself(t *testing.T) {
	secretLine := strings.Split(string(pemBundle("a")), "\n")[1]
	for name, fault := range map[string]awsfake.Fault{
		"validation message that quotes it": apiError("ValidationException", "Value '"+string(pemBundle("a"))+"' failed to satisfy constraint"),
		"answer that cannot be decoded":     {Body: `{"CreatedDate":"` + secretLine + `"}`},
		"page that is not JSON":             {Status: 400, Body: secretLine},
	} {
		t.Run(name, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName)
			v := mustSave(t, s, pemBundle("b"), "")
			for _, action := range []string{"CreateSecret", "PutSecretValue", "GetSecretValue"} {
				fault.Action = action
				fake.Heal()
				fake.Inject(fault)
				_, created := s.Save(t.Context(), pemBundle("a"), "")
				_, put := s.Save(t.Context(), pemBundle("a"), v)
				_, _, got := s.Load(t.Context())
				err := errors.Join(created, put, got)
				require.Error(t, err)
				require.NotContains(t, err.Error(), secretLine[:20])
			}
		})
	}
}

// FuzzAWSError: whatever AWS answers, or somebody who poses as it, only the one answer
// that means absence makes a store look empty, in which keys are created. And an error
// shows no line of the value, and no private key of an answer.
func FuzzAWSError(f *testing.F) {
	for i, code := range []string{"ResourceNotFoundException", "ResourceExistsException", "InvalidRequestException", "DecryptionFailure", "ExpiredTokenException", "AccessDeniedException", "AccessDenied", "LimitExceededException", "ThrottlingException", "UnknownError", "", "InternalServiceError"} {
		f.Add(uint8(i), code, "no", uint8(0))
		f.Add(uint8(i), code, "scheduled for deletion, perform: kms:Decrypt", uint8(100))
	}
	secret := strings.Split(string(pemBundle("a")), "\n")[1]
	f.Add(uint8(1), "ValidationException", "value '"+secret+"' failed", uint8(0))
	f.Add(uint8(0), "ValidationException", "Value '-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI' failed", uint8(0))
	f.Add(uint8(2), secret, "no", uint8(0))
	f.Add(uint8(0), "PRIVATE KEY-----", "no", uint8(0))
	actions := []string{"GetSecretValue", "CreateSecret", "PutSecretValue"}
	f.Fuzz(func(t *testing.T, n uint8, code, message string, status uint8) {
		fake, action := awsfake.New(), actions[int(n)%len(actions)]
		s := openAWS(t, fake, awsName, using(fake, func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} }))
		var v fleetkey.Version
		if action == "PutSecretValue" {
			v = mustSave(t, s, pemBundle("b"), "")
		}
		fake.Inject(awsfake.Fault{Action: action, Error: &awsfake.Error{Code: code, Message: message, Status: 400 + int(status)%200}})
		var err error
		if action == "GetSecretValue" {
			_, _, err = s.Load(t.Context())
			require.Equal(t, code == "ResourceNotFoundException", errors.Is(err, fleetkey.ErrNotExist), "%v", err)
		} else {
			_, err = s.Save(t.Context(), pemBundle("a"), v)
			require.NotErrorIs(t, err, fleetkey.ErrNotExist)
			require.NotContains(t, err.Error(), secret)
		}
		require.NotContains(t, err.Error(), "PRIVATE KEY-----")
		if errors.Is(err, fleetkey.ErrAccessDenied) {
			require.ErrorContains(t, err, "allow secretsmanager:")
			require.ErrorContains(t, err, "arn:aws:secretsmanager:eu-west-1:<account-id>:secret:"+awsName+"*")
		}
		kinds := 0
		for _, sentinel := range sentinels {
			if sentinel != fleetkey.ErrConflict && errors.Is(err, sentinel) {
				kinds++
			}
		}
		require.LessOrEqual(t, kinds, 1, "an error means one thing: %v", err)
	})
}
