package fleetkey_test

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/faultproxy"
)

// The faults A1 to A6 and A13 on a real network: the SDK as it is, with its own
// HTTP client, on sockets that are really reset. What happens inside a fleet is in
// fleet_chaos_test.go.

// openProxied opens a secret through a proxy.
func openProxied(t *testing.T, fake *awsfake.Server, proxy *faultproxy.Proxy, timeout time.Duration) *fleetkey.AWSStore {
	return openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) {
		o.Timeout = timeout
		o.Client = fake.Client(func(o *secretsmanager.Options) {
			o.HTTPClient, o.BaseEndpoint = proxy.HTTPClient(), aws.String(proxy.URL)
		})
	})
}

// TestAWSStoreA1toA6Proxy: every kind of fault that GetSecretValue and each call
// of a save may meet on the way. Each error names the secret and the cause.
func TestAWSStoreA1toA6Proxy(t *testing.T) {
	unavailable, none := fleetkey.ErrUnavailable, error(nil)
	for kind, c := range map[faultproxy.Kind]struct {
		want error
		says string
		done bool // the server does the work
	}{
		faultproxy.Hang:           {errTimedOut, "no answer within", false},
		faultproxy.Late:           {errTimedOut, "no answer within", true},
		faultproxy.Trickle:        {errTimedOut, "no answer within", true},
		faultproxy.Reset:          {unavailable, "cannot be reached", false},
		faultproxy.Lost:           {unavailable, "cannot be reached", true},
		faultproxy.Cut:            {unavailable, "broke off", true},
		faultproxy.Throttled:      {unavailable, "throttles", false},
		faultproxy.TooMany:        {unavailable, "throttles", false},
		faultproxy.Throttled503:   {unavailable, "throttles", false},
		faultproxy.InternalError:  {unavailable, "HTTP status 500", false},
		faultproxy.HTML:           {unavailable, "HTTP status 503", false},
		faultproxy.Empty503:       {unavailable, "HTTP status 503", false},
		faultproxy.Empty:          {none, "not one of Secrets Manager", false},
		faultproxy.Garbage:        {none, "not one of Secrets Manager", false},
		faultproxy.Foreign:        {none, "not one of Secrets Manager", false},
		faultproxy.Expired:        {none, "have expired", false},
		faultproxy.Unrecognized:   {none, "does not accept the credentials", false},
		faultproxy.Denied:         {fleetkey.ErrAccessDenied, "allow secretsmanager:", false},
		faultproxy.KMSUnavailable: {none, "KMS key", false},
	} {
		t.Run(string(kind)+", by socket", func(t *testing.T) {
			fake, timeout := awsfake.Start(t), time.Minute
			if c.want == errTimedOut {
				timeout = 300 * time.Millisecond
			}
			proxy := faultproxy.Start(t, fake.URL)
			v := mustSave(t, openAWS(t, fake, awsName), pemBundle("a"), "")
			s := openProxied(t, fake, proxy, timeout)
			proxy.Play(func(string) faultproxy.Fault { return faultproxy.Fault{Kind: kind, Delay: 100 * time.Millisecond} })
			_, _, err := s.Load(t.Context())
			says := c.says
			if kind == faultproxy.Cut && runtime.GOOS != "linux" {
				says = "" // a reset may take with it what has arrived
			}
			requireError(t, err, c.want, says, "load AWS secret")
			requireHolds(t, openAWS(t, fake, awsName), pemBundle("a"), v)
		})
		t.Run(string(kind)+", by pipe", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := awsfake.New()
				proxy := faultproxy.StartPipes(t, fake.HTTPClient().Transport)
				s := openProxied(t, fake, proxy, 0)
				v := mustSave(t, s, pemBundle("a"), "")
				meet := func(action string) {
					proxy.Play(func(called string) faultproxy.Fault {
						if called != action {
							return faultproxy.Fault{Kind: faultproxy.Pass}
						}
						return faultproxy.Fault{Kind: kind, Delay: time.Second}
					})
				}
				meet("GetSecretValue")
				_, _, err := s.Load(t.Context())
				requireError(t, err, c.want, c.says, "load AWS secret")

				meet("PutSecretValue")
				_, err = s.Save(t.Context(), pemBundle("b"), v)
				requireError(t, err, c.want, c.says, "save AWS secret", "PutSecretValue")
				proxy.Play(nil)
				requireHolds(t, s, pemBundle("a"), v) // whatever the server did: it is not current

				meet("UpdateSecretVersionStage")
				w, err := s.Save(t.Context(), pemBundle("b"), v)
				if proxy.Play(nil); c.done {
					require.NoError(t, err, "it has looked, and found that it was done")
					requireHolds(t, s, pemBundle("b"), w)
					return
				}
				requireError(t, err, c.want, c.says, "save AWS secret", "UpdateSecretVersionStage")
				requireHolds(t, s, pemBundle("a"), v)
				requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v))
			})
		})
	}
}

// TestAWSStoreA3NoAnswerToTheConnection: a port where nobody accepts, and where
// TLS never begins. A call ends in its own time all the same.
func TestAWSStoreA3NoAnswerToTheConnection(t *testing.T) {
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, silent.Close()) })
	for _, scheme := range []string{"http://", "https://"} {
		s := openAWS(t, awsfake.New(), awsName, func(o *fleetkey.AWSOptions) {
			o.Timeout = 300 * time.Millisecond
			o.Client = awsfake.New().Client(func(o *secretsmanager.Options) {
				o.HTTPClient, o.BaseEndpoint = awshttp.NewBuildableClient(), aws.String(scheme+silent.Addr().String())
			})
		})
		_, _, err := s.Load(t.Context())
		requireError(t, err, errTimedOut, "no answer within 300ms")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = s.Save(ctx, pemBundle("a"), "")
		requireError(t, err, context.DeadlineExceeded)
	}
	s := openAWS(t, awsfake.New(), awsName, func(o *fleetkey.AWSOptions) {
		o.Timeout = 100 * time.Millisecond
		o.Client = awsfake.New().Client(func(o *secretsmanager.Options) { // the network drops every packet
			o.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}}
		})
	})
	_, _, err = s.Load(t.Context())
	requireError(t, err, errTimedOut, "no answer within 100ms")
	require.NotErrorIs(t, err, fs.ErrNotExist)
}

// TestAWSStoreA3HTTP2: where HTTP/2 is spoken, a stream is reset rather than the
// connection.
func TestAWSStoreA3HTTP2(t *testing.T) {
	fake := awsfake.New()
	server := httptest.NewUnstartedServer(fake)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	s := openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) {
		o.Client = fake.Client(func(o *secretsmanager.Options) {
			o.HTTPClient, o.BaseEndpoint = server.Client(), aws.String(server.URL)
		})
	})
	v := mustSave(t, s, pemBundle("a"), "")
	for says, fault := range map[string]awsfake.Fault{"cannot be reached": {Lost: true}, "broke off": {Cut: true}} {
		fake.Inject(fault)
		_, _, err := s.Load(t.Context())
		requireError(t, err, fleetkey.ErrUnavailable, says)
		fake.Heal()
		requireHolds(t, s, pemBundle("a"), v)
	}
}
