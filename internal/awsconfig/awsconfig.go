// Package awsconfig loads the configuration of the AWS SDK, and inspects the errors of its
// clients.
package awsconfig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"

	"github.com/fleetkey/fleetkey/internal/refresh"
)

// Load loads the SDK's default configuration, and adds what the SDK lacks. It gets the region
// from the instance metadata. It limits each request for credentials to limit, since all later
// ones would wait for one without a response. It drops the SDK's warnings, which would go to
// standard error instead of the program's log.
func Load(ctx context.Context, region string, limit time.Duration) (aws.Config, error) {
	client := NoteProxy(awshttp.NewBuildableClient().WithTimeout(limit))
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithHTTPClient(client), config.WithLogger(logging.Nop{}),
		config.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = client }))
	if err != nil {
		return cfg, fmt.Errorf("read the AWS configuration: %w", err)
	}
	for cfg.Region == "" {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second) // outside EC2 there may be no response
		out, err := imds.NewFromConfig(cfg, func(o *imds.Options) { o.Retryer = aws.NopRetryer{} }).GetRegion(ask, nil)
		cancel()
		switch {
		case err == nil:
			cfg.Region = out.Region
		case !IsTrouble(Status(err)) || !refresh.Sleep(ctx, time.Second):
			return cfg, fmt.Errorf("no AWS region: set AWS_REGION, or region in the profile, or give the secret's ARN "+
				"(the EC2 instance metadata did not answer either: %w)", err)
		}
	}
	return cfg, nil
}

// A ProxyError means that a proxy has refused a connection.
type ProxyError struct{ Status int }

func (e *ProxyError) Error() string {
	return fmt.Sprintf("the proxy answered CONNECT with HTTP status %d", e.Status)
}

// NoteProxy returns a client with the same options. If a proxy refuses a connection, it fails
// with a [ProxyError], where net/http returns only a text chosen by the proxy.
func NoteProxy(c *awshttp.BuildableClient) *awshttp.BuildableClient {
	return c.WithTransportOptions(func(t *http.Transport) {
		t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
			if answer.StatusCode != http.StatusOK {
				return &ProxyError{answer.StatusCode}
			}
			return nil
		}
	})
}

// Status returns the HTTP status of an error response, or 0.
func Status(err error) int {
	type response interface {
		error
		HTTPStatusCode() int
	}
	if r, ok := errors.AsType[response](err); ok {
		return r.HTTPStatusCode()
	}
	return 0
}

// IsTrouble reports whether a status means that the same request may succeed later.
func IsTrouble(status int) bool {
	return status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooEarly || status == http.StatusTooManyRequests
}

// IsEndpoint reports whether an address can be an endpoint.
func IsEndpoint(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	_, err = strconv.ParseUint(cmp.Or(u.Port(), "0"), 10, 16)
	return err == nil
}
