package fleetkey

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fleetkey/fleetkey/internal/awsconfig"
)

// This file turns errors of the AWS SDK into errors that say what to do.
//
// Errors are distinguished by the code of [smithy.APIError], since many, including
// AccessDenied, have no Go type (AWS, Secrets Manager API, Common Errors). For failures to
// get credentials, see awscredentials.go.

// ErrDeletionPending means that the AWS secret is scheduled for deletion. It can be neither
// read nor written nor created until it is restored. The error does not match
// [ErrNotExist], because the keys still exist.
var ErrDeletionPending = errors.New("the secret is scheduled for deletion")

const (
	codeExists   = "ResourceExistsException"
	codeNotFound = "ResourceNotFoundException"
	service      = "Secrets Manager"
	proxy        = "the proxy (HTTPS_PROXY)"
)

// is reports whether err is or wraps an error of type T.
func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// errorCode returns the error code of a response. A code that comes with a 5xx status is
// ignored, since a failing service knows nothing about the secret.
func errorCode(err error) string {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || awsconfig.IsTrouble(awsconfig.Status(err)) {
		return ""
	}
	return api.ErrorCode()
}

// passingCodes are codes of temporary errors at any status, in addition to those the SDK
// knows. Some services append "Exception".
var passingCodes = []string{"InternalError", "InternalFailure", "InternalServerError", "InternalServiceError", "RequestAborted", "ServiceUnavailable"}

// errThrottled is an ErrUnavailable after which another instance has probably already made
// the change.
var errThrottled = fmt.Errorf("%w", ErrUnavailable)

func isThrottled(err error) bool {
	return awsconfig.Status(err) == http.StatusTooManyRequests || retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary
}

// errForeign is for a success response without its required fields. The SDK accepts an
// empty or foreign JSON document as a success.
func errForeign(op string) error { return fmt.Errorf("%s: %s", op, hintForeign(service)) }

func hintForeign(whom string) string {
	return "the response does not come from " + whom + ": is there a proxy, or a wrong AWS_ENDPOINT_URL?"
}

// withoutValue returns err unless it may contain part of the value: validation messages of
// AWS can quote the offending argument, and a response that cannot be parsed may still be a
// secret.
func withoutValue(op string, err error, value []byte) error {
	if source, ok := errors.AsType[*credentialsError](err); ok {
		return printable{source.cause()}
	}
	quotes := func(text string) bool {
		for line := range strings.Lines(string(value)) {
			if line = strings.TrimSpace(line); len(line) >= 16 && strings.Contains(text, line) {
				return true
			}
		}
		return strings.Contains(text, "PRIVATE KEY-----") // in a response, whose value is unknown
	}
	if quotes(err.Error()) {
		code := errorCode(err)
		if quotes(code) {
			code = "unknown error"
		}
		return fmt.Errorf("%s: HTTP status %d, %s (the text quotes the value and is withheld)", op, awsconfig.Status(err), code)
	}
	if is[*smithy.DeserializationError](err) {
		return fmt.Errorf("%s: HTTP status %d", op, awsconfig.Status(err))
	}
	return printable{err}
}

// A printable error escapes foreign text that could fool a log or a terminal. It removes
// the password of a URL, malformed or not (so everything up to the last @), and what a
// server that does not speak HTTP said, which could be a key.
type printable struct{ error }

var password, noHTTP = regexp.MustCompile(`(?s)(://|parse uri: ).*@`), regexp.MustCompile(`(?s)(malformed (?:HTTP|MIME)|Location header) .*`)

func (p printable) Error() string {
	text := noHTTP.ReplaceAllString(password.ReplaceAllString(p.error.Error(), "${1}...@"), "$1 ...")
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		text = strconv.Quote(text)
	}
	return text
}

func (p printable) Unwrap() error { return p.error }

// explain adds to the error of an AWS operation what it means and what to do. exceeded is
// the time limit if it has passed, and zero otherwise.
func (s *AWSStore) explain(op string, err error, exceeded time.Duration, value []byte) error {
	sentinel, hint := s.diagnose(op, err)
	if source, ok := errors.AsType[*credentialsError](err); ok {
		sentinel, hint = source.diagnose(exceeded)
	} else if hint == "" {
		sentinel, hint = diagnoseTransport(service, err, exceeded)
	}
	cause := withoutValue(op, err, value)
	switch {
	case sentinel != nil:
		return fmt.Errorf("%w: %s: %w", sentinel, hint, cause)
	case hint != "":
		return fmt.Errorf("%s: %w", hint, cause)
	}
	return cause
}

// diagnose returns the sentinel for a response of Secrets Manager itself, if any, and what
// to do.
func (s *AWSStore) diagnose(op string, err error) (error, string) {
	text := err.Error()
	names, _ := chainOf(s.client.Options().Credentials)
	switch errorCode(err) {
	case codeExists:
		if op == "CreateSecret" {
			return ErrConflict, "the secret already exists"
		}
	case codeNotFound:
		switch op {
		case "GetSecretValue":
			if strings.Contains(text, "secret value") { // only the message differs
				return ErrNotExist, "the secret exists but has no value: store a bundle in it, or delete it so that one is created"
			}
			return ErrNotExist, "if it should exist, check the name, region and account"
		case "CreateSecret":
			return nil, "does the KMS key exist in this region?"
		}
		return nil, "the secret no longer exists"
	case "InvalidRequestException":
		// Only the message distinguishes this from other invalid requests. (The second
		// wording is moto's.)
		if strings.Contains(text, "for deletion") || strings.Contains(text, "marked deleted") {
			return ErrDeletionPending, fmt.Sprintf("restore it with: aws secretsmanager restore-secret --secret-id %s --region %s", s.id, s.region)
		}
	case "DecryptionFailure", "EncryptionFailure":
		return nil, "AWS cannot use the secret's KMS key: is it enabled, in this region, and usable by this role?"
	case "ExpiredTokenException", "ExpiredToken", "RequestExpired":
		return nil, "the AWS credentials have expired: renew them (and check the clock); they are from " + names[0]
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
		"IncompleteSignature", "MissingAuthenticationTokenException", "MissingAuthenticationToken":
		return nil, "AWS rejects the credentials: check the access key, secret key and session token, and the clock; they are from " + names[0]
	case "LimitExceededException":
		return nil, "an AWS quota is reached: a secret can have about 100 versions, each of which lives for at least 24 hours"
	case "AccessDeniedException", "AccessDenied":
		return s.denied(op, text)
	}
	// Emulators deny in XML. Any other page with status 403 comes from a proxy.
	if page, ok := errors.AsType[*smithy.DeserializationError](err); ok && awsconfig.Status(err) == http.StatusForbidden &&
		bytes.Contains(page.Snapshot, []byte("AccessDenied")) {
		return s.denied(op, text)
	}
	return nil, ""
}

// diagnoseTransport does the same for failures on the way to a service. Permanent failures
// match no sentinel.
func diagnoseTransport(whom string, err error, exceeded time.Duration) (error, string) {
	status, code := awsconfig.Status(err), ""
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		code = api.ErrorCode()
	}
	_, retryable := retry.DefaultRetryableErrorCodes[code]
	unsent, untrusted := is[*smithyhttp.RequestSendError](err), is[*tls.CertificateVerificationError](err)
	name, unresolved := errors.AsType[*net.DNSError](err)
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	network, _ := errors.AsType[*net.OpError](err)
	refusal, refused := errors.AsType[*awsconfig.ProxyError](err)
	if refused {
		whom, status = proxy, refusal.Status
	} else if network != nil && (network.Op == "proxyconnect" || strings.HasPrefix(network.Op, "socks")) {
		whom = proxy
		network, _ = errors.AsType[*net.OpError](network.Err)
	}
	switch {
	case status == http.StatusTooManyRequests, isThrottled(err):
		return errThrottled, whom + " throttles the calls of this account: call it less often"
	case awsconfig.IsTrouble(status), retryable, slices.Contains(passingCodes, strings.TrimSuffix(code, "Exception")):
		return ErrUnavailable, fmt.Sprintf("%s has a problem (HTTP status %d): try again later", whom, status)
	case untrusted && invalid.Cert != nil && invalid.Reason == x509.Expired:
		return nil, "the TLS certificate of " + whom + " has expired or is not valid yet: is this machine's clock right? If so, the proxy or endpoint needs a new certificate"
	case untrusted:
		return nil, "the TLS certificate of " + whom + " is not trusted: install ca-certificates, set AWS_CA_BUNDLE to the CA of a proxy " +
			"that intercepts TLS, and check AWS_ENDPOINT_URL"
	case errors.Is(err, http.ErrSchemeMismatch), is[tls.RecordHeaderError](err), network != nil && network.Op == "remote error": // a TLS alert
		return nil, whom + " does not speak TLS correctly: check HTTPS_PROXY and AWS_ENDPOINT_URL"
	case refused, status == http.StatusProxyAuthRequired:
		return nil, "the proxy refuses to connect to AWS: check HTTPS_PROXY and its password, or set NO_PROXY"
	case exceeded > 0:
		return fmt.Errorf("%w: %w", ErrUnavailable, context.DeadlineExceeded),
			fmt.Sprintf("no response within %s: is there a route to %s (VPC endpoint, NAT, proxy)?", exceeded, whom)
	case errors.Is(err, errBrokenOff), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrUnavailable, "the response was cut off: try again"
	case unresolved:
		return ErrUnavailable, fmt.Sprintf("%s cannot be reached: the name %q does not resolve: check the region, AWS_ENDPOINT_URL, HTTPS_PROXY and DNS", whom, name.Name)
	case unsent && passes(err, network):
		return ErrUnavailable, whom + " cannot be reached: check the network, proxy and AWS_ENDPOINT_URL"
	case unsent:
		return nil, whom + " cannot be reached, and retrying will not help: check AWS_ENDPOINT_URL and HTTPS_PROXY"
	case is[*smithy.DeserializationError](err) && status > 0, code == "UnknownError":
		return nil, hintForeign(whom)
	}
	return nil, ""
}

// brokenHTTP2 matches errors for which net/http exports no type.
var brokenHTTP2 = regexp.MustCompile(`http2: |stream error: |connection error: |server closed idle connection|connection loss`)

// passes reports whether a request that could not be sent may succeed later.
func passes(err error, network *net.OpError) bool {
	slow, _ := errors.AsType[net.Error](err)
	return network != nil && !is[*net.AddrError](err) || slow != nil && slow.Timeout() || errors.Is(err, io.EOF) || brokenHTTP2.MatchString(err.Error())
}

// errBrokenOff means that a response could not be read to its end, as opposed to not being
// understood. HTTP/1.1, HTTP/2 and TLS have different errors for that.
var errBrokenOff = errors.New("the response was cut off")

// A markingClient marks errors that occur while reading a response.
type markingClient struct{ secretsmanager.HTTPClient }

func (c markingClient) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.HTTPClient.Do(r)
	if err == nil && resp != nil && resp.Body != nil { // a caller's client may break the rules
		resp.Body = markingBody{resp.Body}
	}
	return resp, err
}

type markingBody struct{ io.ReadCloser }

func (b markingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // callers compare with ==
		err = fmt.Errorf("%w: %w", errBrokenOff, err)
	}
	return n, err
}

// denied distinguishes a missing permission on the secret from one on its KMS key. The
// latter does not match ErrAccessDenied, because the secret certainly exists.
func (s *AWSStore) denied(op, text string) (error, string) {
	if strings.Contains(text, "Access to KMS") || strings.Contains(text, "perform: kms:") {
		actions := "kms:Decrypt"
		if op != "GetSecretValue" {
			actions += " and kms:GenerateDataKey"
		}
		return fs.ErrPermission, "allow " + actions + " on the secret's KMS key, in the role's policy and in the key's"
	}
	actions := "secretsmanager:" + op
	switch {
	case op == "PutSecretValue" || op == "UpdateSecretVersionStage":
		actions = "secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage"
	case op == "CreateSecret" && len(s.replica) > 0:
		actions += " and secretsmanager:ReplicateSecretToRegions"
	}
	return ErrAccessDenied, fmt.Sprintf("allow %s on %s", actions, s.id.Resource(s.region))
}
