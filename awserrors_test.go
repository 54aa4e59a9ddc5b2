package fleetkey_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// This file tests the errors of AWSStore for failures of AWS: which sentinel an error
// matches, what it says, and how many calls are made.

// sentinels are the errors that a Signer handles specially.
var sentinels = []error{fleetkey.ErrNotExist, fleetkey.ErrConflict, fleetkey.ErrAccessDenied, fleetkey.ErrDeletionPending,
	fleetkey.ErrUnavailable}

// errTimedOut stands for both errors that a call matches after its time limit.
var errTimedOut = errors.Join(fleetkey.ErrUnavailable, context.DeadlineExceeded)

// requireError checks that err matches want and no other sentinel, names the secret and its
// region, and contains each text.
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

func apiError(code, message string) awsfake.Fault {
	return awsfake.Fault{Error: &awsfake.Error{Code: code, Message: message}}
}

func page(status int, body string) awsfake.Fault { return awsfake.Fault{Status: status, Body: body} }

// TestAWSStoreFaults injects each fault into Load and both kinds of Save, one call at a time.
func TestAWSStoreFaults(t *testing.T) {
	for _, c := range []struct {
		name  string // begins with the row in docs/faults.md
		fault awsfake.Fault
		calls int // attempts by the SDK; the store itself does not retry
		want  error
		says  string
	}{
		{"A1 throttled", awsfake.Throttle(0), 3, fleetkey.ErrUnavailable, "throttles"},
		{"A1 HTTP 429", page(429, "slow down"), 3, fleetkey.ErrUnavailable, "throttles"},

		{"A2 500 as JSON", awsfake.Fault{Error: &awsfake.Error{Code: "x", Status: 500}}, 3, fleetkey.ErrUnavailable, "HTTP status 500): try again later"},
		{"A2 503 as HTML", page(503, "<html>"), 3, fleetkey.ErrUnavailable, "HTTP status 503"},
		{"A2 timeout, status 400", apiError("RequestTimeoutException", "no"), 3, fleetkey.ErrUnavailable, "RequestTimeoutException"},
		{"A2 aborted, status 400", apiError("RequestAbortedException", "no"), 1, fleetkey.ErrUnavailable, "RequestAbortedException"},
		{"A2 failure, status 400", apiError("InternalFailure", "no"), 1, fleetkey.ErrUnavailable, "InternalFailure"},
		{"A2 200 as HTML", page(200, "<html>"), 1, nil, "does not come from Secrets Manager"},
		{"A2 404 as HTML is not absence", page(404, "<html>"), 1, nil, "does not come from Secrets Manager"},

		{"A3 connection dropped", awsfake.Fault{Lost: true}, 3, fleetkey.ErrUnavailable, "cannot be reached"},
		{"A3 cut off in mid-body", awsfake.Fault{Cut: true}, 1, fleetkey.ErrUnavailable, "the response was cut off"},
		{"A3 no answer", awsfake.Fault{Hang: true}, 1, errTimedOut, "no response within"},
		{"A3 a byte a second", awsfake.Fault{Trickle: true}, 1, errTimedOut, "no response within"},

		{"A4 foreign JSON", page(200, `{"ok": true}`), 1, nil, "does not come from Secrets Manager"},
		{"A4 no version", page(200, `{"SecretString": "x"}`), 1, nil, "does not come from Secrets Manager"},

		{"A5 expired", awsfake.Expired(), 1, nil, "expired: renew them (and check the clock); they are from the client's own provider"},
		{"A5 unknown key", apiError("UnrecognizedClientException", "invalid"), 1, nil, "rejects the credentials"},
		{"A5 wrong clock or key", apiError("InvalidSignatureException", "Signature expired"), 1, nil, "the clock"},

		{"A6 KMS key unusable", apiError("DecryptionFailure", "no"), 1, nil, "KMS key: is it enabled"},
		{"A6 KMS key denied", awsfake.KMSDenied(""), 1, fs.ErrPermission, " on the secret's KMS key, in the role's policy"},
		{"A6 KMS key denied by policy", apiError("AccessDeniedException", "perform: kms:Decrypt on y"), 1, fs.ErrPermission, " on the secret's KMS key"},
		{"A6 denied", apiError("AccessDeniedException", "no"), 1, fleetkey.ErrAccessDenied, "allow secretsmanager:"},
		{"A6 a name with KMS in it", apiError("AccessDeniedException", "perform: secretsmanager:x on prod/KMS"), 1, fleetkey.ErrAccessDenied, "allow secretsmanager:"},
		{"A6 denied by an emulator", page(403, "<AccessDenied/>"), 1, fleetkey.ErrAccessDenied, "allow secretsmanager:"},
		{"W7 denied by a proxy, in HTML", page(403, "<html>Forbidden"), 1, nil, "does not come from Secrets Manager"},
		{"W7 denied by a proxy, in JSON", page(403, `{"message":"Forbidden"}`), 1, nil, "does not come from Secrets Manager"},
		{"W7 proxy wants a password", page(407, "<html>"), 1, nil, "the proxy refuses"},
		{"a message of several lines", apiError("InvalidParameterException", "no\nlevel=INFO\x1b[2J"), 1, nil, `no\nlevel=INFO\x1b[2J`},
		{"A6 other code", apiError("InvalidParameterException", "no"), 1, nil, "InvalidParameterException: no"},

		{"A9 in AWS's words", apiError("InvalidRequestException", "it was marked for deletion."), 1, fleetkey.ErrDeletionPending, "restore it with: aws"},
		{"A9 in moto's words", apiError("InvalidRequestException", "currently marked deleted."), 1, fleetkey.ErrDeletionPending, "restore it with: aws"},
		{"A15 quota", apiError("LimitExceededException", "too many"), 3, nil, "an AWS quota is reached"},
	} {
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
			puts := c.calls
			if strings.HasPrefix(c.name, "A1 ") || strings.HasPrefix(c.name, "A15 ") {
				puts = 1 // a caller must read before it retries
			}
			require.Equal(t, puts, fake.Calls("PutSecretValue"))
			requireHolds(t, s, pemBundle("a"), v)

			meet("UpdateSecretVersionStage")
			w, err := s.Save(t.Context(), pemBundle("b"), v)
			fake.Heal()
			if c.fault.Lost || c.fault.Cut || c.fault.Trickle {
				require.NoError(t, err, "AWS made the change, and the store must find out")
				requireHolds(t, s, pemBundle("b"), w)
				return
			}
			requireError(t, err, c.want, c.says, "save AWS secret", "UpdateSecretVersionStage")
			requireHolds(t, s, pemBundle("a"), v)
			requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v))
		})
	}
}

// TestAWSStoreA3Sockets tests failures that need a socket. HTTP/2 resets a stream rather
// than the connection.
func TestAWSStoreA3Sockets(t *testing.T) {
	fake := awsfake.Start(t)
	h2 := httptest.NewUnstartedServer(fake)
	h2.EnableHTTP2, h2.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	h2.StartTLS()
	t.Cleanup(h2.Close)
	dropped := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	trusting := h2.Client().Transport.(*http.Transport).Clone()
	later := trusting.Clone()
	later.TLSClientConfig.Time = func() time.Time { return time.Now().AddDate(100, 0, 0) }
	mutual := httptest.NewUnstartedServer(fake)
	mutual.TLS, mutual.Config.ErrorLog = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, log.New(io.Discard, "", 0)
	mutual.StartTLS()
	t.Cleanup(mutual.Close)
	through := func(proxy string) *http.Transport {
		at, err := url.Parse(proxy)
		require.NoError(t, err)
		return &http.Transport{Proxy: http.ProxyURL(at)}
	}
	unresolved := &http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(address)
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	}}
	for _, c := range []struct {
		name, url string
		transport http.RoundTripper
		fault     awsfake.Fault
		want      error
		says      string
	}{
		{"refused", "http://127.0.0.1:1", nil, awsfake.Fault{}, fleetkey.ErrUnavailable, "connection refused"},
		{"W7 unknown certificate", h2.URL, nil, awsfake.Fault{}, nil, "x509"},
		{"W7 certificate out of date", h2.URL, later, awsfake.Fault{}, nil, "is this machine's clock right?"},
		{"W7 certificate asked for", mutual.URL, trusting, awsfake.Fault{}, nil, "does not speak TLS correctly"},
		{"W7 proxy away", "https://secretsmanager.invalid", through("http://127.0.0.1:1"), awsfake.Fault{}, fleetkey.ErrUnavailable, "the proxy (HTTPS_PROXY) cannot be reached"},
		{"W7 proxy without TLS", "https://secretsmanager.invalid", through("https" + fake.URL[len("http"):]), awsfake.Fault{}, nil, "the proxy (HTTPS_PROXY) does not speak TLS"},
		{"W7 proxy of an unknown CA", "https://secretsmanager.invalid", through(h2.URL), awsfake.Fault{}, nil, "the TLS certificate of the proxy (HTTPS_PROXY) is not trusted"},
		{"W7 proxy address malformed", "https://secretsmanager.invalid", &http.Transport{Proxy: func(*http.Request) (*url.URL, error) {
			return nil, errors.New(`invalid proxy address "http://me:fakefake/@p": no`)
		}}, awsfake.Fault{}, nil, "HTTPS_PROXY"},
		{"W7 proxy at no port", "https://secretsmanager.invalid", through("http://127.0.0.1:99999"), awsfake.Fault{}, nil, "the proxy (HTTPS_PROXY)"},
		{"TLS to another server", "https://" + greeter(t, "SSH-2.0-x\r\n"), nil, awsfake.Fault{}, nil, "does not speak TLS"},
		{"W7 name does not resolve", "https://secretsmanager.invalid", unresolved, awsfake.Fault{}, fleetkey.ErrUnavailable, `"secretsmanager.invalid" does not resolve: check the region, AWS_ENDPOINT_URL, HTTPS_PROXY and DNS`},
		{"TLS to a plain server", "https" + fake.URL[len("http"):], nil, awsfake.Fault{}, nil, "response to HTTPS client"},
		{"packets dropped", fake.URL, dropped, awsfake.Fault{}, errTimedOut, "no response within 200ms"},
		{"HTTP/2 cut off", h2.URL, h2.Client().Transport, awsfake.Fault{Cut: true}, fleetkey.ErrUnavailable, "cut off"},
		{"HTTP/2 reset", h2.URL, h2.Client().Transport, awsfake.Fault{Lost: true}, fleetkey.ErrUnavailable, "cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			timeout := time.Minute // enough even for a busy machine
			if errors.Is(c.want, errTimedOut) {
				timeout = 200 * time.Millisecond
			}
			s := openAWS(t, fake, freshName(), func(o *fleetkey.AWSOptions) { o.Timeout = timeout },
				using(fake, func(o *secretsmanager.Options) {
					o.HTTPClient, o.BaseEndpoint = &http.Client{Transport: c.transport}, aws.String(c.url)
				}))
			fake.Inject(c.fault)
			defer fake.Heal()
			_, _, err := s.Load(t.Context())
			requireError(t, err, c.want, c.says)
			require.NotContains(t, err.Error(), "fakefake")
		})
	}
}

// greeter returns the address of a server that sends the same bytes to every client.
func greeter(t *testing.T, greeting string) string {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1<<16))
			_, _ = c.Write([]byte(greeting))
			_, _ = io.Copy(io.Discard, c) // otherwise the client could see a reset first
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// TestAWSStoreProxies_W7: the status of a proxy's answer to CONNECT decides, not its text.
func TestAWSStoreProxies_W7(t *testing.T) {
	for answer, want := range map[string]error{
		"204": nil, "302 Found\r\nLocation: http://login/": nil, "403 Blocked by policy": nil, "407 Auth please": nil,
		"408 Request Timeout": fleetkey.ErrUnavailable, "429 Slow": fleetkey.ErrUnavailable, "502 Bad Gateway": fleetkey.ErrUnavailable,
	} {
		fake := awsfake.New()
		proxy := &url.URL{Scheme: "http", Host: greeter(t, "HTTP/1.1 "+answer+"\r\nContent-Length: 0\r\n\r\n"), User: url.UserPassword("me", "fakefake")}
		s := openAWS(t, fake, awsName, using(fake, func(o *secretsmanager.Options) {
			o.BaseEndpoint = aws.String("https://secretsmanager.invalid")
			o.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) { tr.Proxy = http.ProxyURL(proxy) })
		}))
		_, _, err := s.Load(t.Context())
		requireError(t, err, want, "the proxy ", "HTTPS_PROXY", "HTTP status "+answer[:3])
		require.NotContains(t, err.Error(), "fakefake")
	}
}

// TestAWSStoreEndpoints: an invalid address is rejected and not shown, as it may hold a password.
func TestAWSStoreEndpoints(t *testing.T) {
	fake := awsfake.Start(t)
	for _, address := range []string{"localhost:4566", "me:fakefake@localhost:4566", "http://me:fakefake@[", "http://h:99999", "http://h:0x1", "ftp://h", "http://", "/fakefake"} {
		fake.UseSource(t, awsfake.Static)
		t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", address)
		_, err := fleetkey.NewAWSStore(t.Context(), awsName)
		require.ErrorContains(t, err, "AWS_ENDPOINT_URL", address)
		require.NotContains(t, err.Error(), "fakefake")
	}
}

// TestAWSStoreA6EachAction: the error says what to allow or check for the call that failed.
func TestAWSStoreA6EachAction(t *testing.T) {
	denied, kms := apiError("AccessDeniedException", "no"), awsfake.KMSDenied("")
	for _, c := range []struct {
		action   string
		fault    awsfake.Fault
		replicas []string
		says     string
	}{
		{"GetSecretValue", page(200, `{"VersionId": "x"}`), nil, "does not come from Secrets Manager"}, // A4
		{"CreateSecret", denied, []string{"eu-central-1"}, "CreateSecret and secretsmanager:ReplicateSecretToRegions on arn:"},
		{"UpdateSecretVersionStage", denied, nil, "allow secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage on arn:"},
		{"GetSecretValue", kms, nil, "allow kms:Decrypt on the secret's KMS key"},
		{"CreateSecret", kms, nil, "allow kms:Decrypt and kms:GenerateDataKey on the secret's KMS key"},
		{"CreateSecret", apiError("ResourceNotFoundException", "no such key"), nil, "does the KMS key exist"},
	} {
		fake := awsfake.New()
		v := mustSave(t, openAWS(t, fake, awsName), pemBundle("a"), "")
		if c.action == "CreateSecret" {
			v = ""
		}
		c.fault.Action = c.action
		fake.Inject(c.fault)
		s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) { o.ReplicaRegions = c.replicas })
		_, err := s.Save(t.Context(), pemBundle("b"), v)
		require.ErrorContains(t, err, c.says)
	}
}

// FuzzAWSError: only ResourceNotFoundException makes a store look empty, in which case keys
// are created, even if the response does not come from AWS. An error contains no line of the
// value and no private key from a response.
func FuzzAWSError(f *testing.F) {
	for i, code := range []string{"ResourceNotFoundException", "ResourceExistsException", "InvalidRequestException", "DecryptionFailure",
		"ExpiredTokenException", "AccessDeniedException", "AccessDenied", "LimitExceededException", "ThrottlingException", "UnknownError", ""} {
		f.Add(uint8(i), code, "no", uint8(0))
		f.Add(uint8(i), code, "scheduled for deletion, perform: kms:Decrypt", uint8(100))
	}
	for _, status := range []uint8{8, 25, 29, 104} { // W6: 408, 425, 429 and 504
		f.Add(uint8(0), "ResourceNotFoundException", "marked for deletion", status)
		f.Add(uint8(1), "ResourceExistsException", "no", status)
		f.Add(uint8(2), "AccessDeniedException", "perform: kms:Decrypt", status)
	}
	secret := strings.Split(string(pemBundle("a")), "\n")[1]
	f.Add(uint8(1), "ValidationException", "value '"+secret+"' failed", uint8(0))
	f.Add(uint8(0), "ValidationException", "Value '-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI' failed", uint8(0))
	f.Add(uint8(2), secret, "no", uint8(0))
	f.Add(uint8(0), "PRIVATE KEY-----", "no", uint8(0))
	actions := []string{"GetSecretValue", "CreateSecret", "PutSecretValue"}
	f.Fuzz(func(t *testing.T, n uint8, code, message string, status uint8) {
		synctest.Test(t, func(t *testing.T) { // in virtual time, since Save waits if a token is already used
			fake, action := awsfake.New(), actions[int(n)%len(actions)]
			s := openAWS(t, fake, awsName, using(fake, func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} }))
			var v fleetkey.Version
			if action == "PutSecretValue" {
				v = mustSave(t, s, pemBundle("b"), "")
			}
			answer := &awsfake.Error{Code: code, Message: message, Status: 400 + int(status)%200}
			fake.Inject(awsfake.Fault{Action: action, Error: answer})
			trouble := answer.Status >= 500 || slices.Contains([]int{408, 425, 429}, answer.Status)
			var err error
			if action == "GetSecretValue" {
				_, _, err = s.Load(t.Context())
				absent := code == "ResourceNotFoundException" && !trouble
				require.Equal(t, absent, errors.Is(err, fleetkey.ErrNotExist), "%v", err)
			} else {
				_, err = s.Save(t.Context(), pemBundle("a"), v)
				require.NotErrorIs(t, err, fleetkey.ErrNotExist)
				require.NotContains(t, err.Error(), secret)
			}
			require.NotContains(t, err.Error(), "PRIVATE KEY-----")
			if trouble { // with such a status, no code says anything about the secret
				requireError(t, err, fleetkey.ErrUnavailable)
				require.NotErrorIs(t, err, fs.ErrPermission)
			}
			if errors.Is(err, fleetkey.ErrAccessDenied) {
				require.ErrorContains(t, err, "allow secretsmanager:")
				require.ErrorContains(t, err, "arn:aws:secretsmanager:eu-west-1:<account-id>:secret:"+awsName+"*")
			}
			kinds := 0
			for _, sentinel := range sentinels {
				if errors.Is(err, sentinel) {
					kinds++
				}
			}
			require.LessOrEqual(t, kinds, 1, "an error matches at most one sentinel: %v", err)
		})
	})
}
