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

// This file turns what the AWS SDK reports into errors that say what to do.
//
// Errors are told apart by the code of [smithy.APIError]: many, AccessDenied
// among them, have no Go type (AWS, Secrets Manager API, Common Errors). Failures to get
// credentials are in awscredentials.go.

// ErrDeletionPending says that the AWS secret is scheduled for deletion. Until
// it is restored it can be neither read nor written nor created again. It does
// not match [ErrNotExist]: the keys still exist.
var ErrDeletionPending = errors.New("the secret is scheduled for deletion")

const (
	codeExists   = "ResourceExistsException"
	codeNotFound = "ResourceNotFoundException"
	service      = "Secrets Manager"
	proxy        = "the proxy (HTTPS_PROXY)"
)

// is reports whether err is an error of type T, or wraps one.
func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// errorCode returns the code of an answer. Beside the status of a service in trouble it
// means nothing: that service knows nothing about the secret.
func errorCode(err error) string {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || awsconfig.IsTrouble(awsconfig.Status(err)) {
		return ""
	}
	return api.ErrorCode()
}

// passingCodes mean it too, beside any status, besides those that the SDK knows. Some
// services add "Exception".
var passingCodes = []string{"InternalError", "InternalFailure", "InternalServerError", "InternalServiceError", "RequestAborted", "ServiceUnavailable"}

// errThrottled is the kind of ErrUnavailable after which another instance has probably done
// what was asked for.
var errThrottled = fmt.Errorf("%w", ErrUnavailable)

func isThrottled(err error) bool {
	return awsconfig.Status(err) == http.StatusTooManyRequests || retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary
}

// errForeign is for a success that lacks what a success has. The SDK takes an empty or
// foreign JSON answer for one.
func errForeign(op string) error { return fmt.Errorf("%s: %s", op, hintForeign(service)) }

func hintForeign(whom string) string {
	return "the answer is not one of " + whom + ": is there a proxy, or another AWS_ENDPOINT_URL?"
}

// withoutValue returns err unless it may hold a piece of the value: AWS's
// validation messages can quote the offending argument, and an answer that is
// not understood may be a secret all the same.
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
		return strings.Contains(text, "PRIVATE KEY-----") // of an answer, whose value is not known
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

// A printable error escapes what others have written, if it could fool a log or a
// terminal. It leaves out the password of an address, malformed or not, hence up to the last
// @, and what somebody said who does not speak HTTP: an endpoint of keys may be so simple.
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

// explain adds to the error of an AWS operation what it means and what to do.
// exceeded is the time limit if it has passed, and zero otherwise.
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

// diagnose returns, for an answer of Secrets Manager itself, the error to match,
// if any, and what to do.
func (s *AWSStore) diagnose(op string, err error) (error, string) {
	text := err.Error()
	names, _ := chainOf(s.client.Options().Credentials)
	switch errorCode(err) {
	case codeExists:
		if op == "CreateSecret" {
			return ErrConflict, "the secret exists"
		}
	case codeNotFound:
		switch op {
		case "GetSecretValue":
			if strings.Contains(text, "secret value") { // only the message tells
				return ErrNotExist, "the secret exists but has no value: store a bundle there, or delete it so that one is created"
			}
			return ErrNotExist, "if it should exist, check name, region and account"
		case "CreateSecret":
			return nil, "does the KMS key exist in this region?"
		}
		return nil, "the secret is gone"
	case "InvalidRequestException":
		// Only the message tells this from other invalid requests. (The
		// second wording is moto's.)
		if strings.Contains(text, "for deletion") || strings.Contains(text, "marked deleted") {
			return ErrDeletionPending, fmt.Sprintf("restore it by: aws secretsmanager restore-secret --secret-id %s --region %s", s.id, s.region)
		}
	case "DecryptionFailure", "EncryptionFailure":
		return nil, "AWS cannot use the secret's KMS key: is it enabled, in this region, and open to this role?"
	case "ExpiredTokenException", "ExpiredToken", "RequestExpired":
		return nil, "the AWS credentials have expired: renew them (and check the clock); they are from " + names[0]
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
		"IncompleteSignature", "MissingAuthenticationTokenException", "MissingAuthenticationToken":
		return nil, "AWS does not accept the credentials: check access key, secret key, session token, and the clock; they are from " + names[0]
	case "LimitExceededException":
		return nil, "an AWS quota is reached: a secret has about 100 versions, each of which lives at least 24 h"
	case "AccessDeniedException", "AccessDenied":
		return s.denied(op, text)
	}
	// Emulators deny in XML. Another page with status 403 is a proxy's.
	if page, ok := errors.AsType[*smithy.DeserializationError](err); ok && awsconfig.Status(err) == http.StatusForbidden &&
		bytes.Contains(page.Snapshot, []byte("AccessDenied")) {
		return s.denied(op, text)
	}
	return nil, ""
}

// diagnoseTransport does the same for what happens on the way to a service. What cannot
// pass by itself matches nothing.
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
		return errThrottled, whom + " throttles this account's calls: ask less often"
	case awsconfig.IsTrouble(status), retryable, slices.Contains(passingCodes, strings.TrimSuffix(code, "Exception")):
		return ErrUnavailable, fmt.Sprintf("%s is in trouble (HTTP status %d): try again later", whom, status)
	case untrusted && invalid.Cert != nil && invalid.Reason == x509.Expired:
		return nil, "the TLS certificate of " + whom + " is out of date: is this machine's clock right? If so, the proxy or endpoint needs a new one"
	case untrusted:
		return nil, "the TLS certificate of " + whom + " is not trusted: install ca-certificates, set AWS_CA_BUNDLE to the CA of a proxy " +
			"that intercepts TLS, and check AWS_ENDPOINT_URL"
	case errors.Is(err, http.ErrSchemeMismatch), is[tls.RecordHeaderError](err), network != nil && network.Op == "remote error": // a TLS alert
		return nil, whom + " does not speak TLS as it should: check HTTPS_PROXY and AWS_ENDPOINT_URL"
	case refused, status == http.StatusProxyAuthRequired:
		return nil, "the proxy refuses the way to AWS: check HTTPS_PROXY and its password, or set NO_PROXY"
	case exceeded > 0:
		return fmt.Errorf("%w: %w", ErrUnavailable, context.DeadlineExceeded),
			fmt.Sprintf("no answer within %s: is there a way to %s (VPC endpoint, NAT, proxy)?", exceeded, whom)
	case errors.Is(err, errBrokenOff), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrUnavailable, "the answer broke off: try again"
	case unresolved:
		return ErrUnavailable, fmt.Sprintf("%s cannot be reached: the name %q does not resolve: check the region, AWS_ENDPOINT_URL, HTTPS_PROXY and DNS", whom, name.Name)
	case unsent && passes(err, network):
		return ErrUnavailable, whom + " cannot be reached: check network, proxy and AWS_ENDPOINT_URL"
	case unsent:
		return nil, whom + " cannot be reached, and waiting does not help: check AWS_ENDPOINT_URL and HTTPS_PROXY"
	case is[*smithy.DeserializationError](err) && status > 0, code == "UnknownError":
		return nil, hintForeign(whom)
	}
	return nil, ""
}

// brokenHTTP2 is the text of errors for which net/http has no exported type.
var brokenHTTP2 = regexp.MustCompile(`http2: |stream error: |connection error: |server closed idle connection|connection loss`)

// passes reports whether a request that could not be sent may succeed by itself later.
func passes(err error, network *net.OpError) bool {
	slow, _ := errors.AsType[net.Error](err)
	return network != nil && !is[*net.AddrError](err) || slow != nil && slow.Timeout() || errors.Is(err, io.EOF) || brokenHTTP2.MatchString(err.Error())
}

// errBrokenOff says that an answer could not be read to its end, rather than not
// understood. HTTP/1.1, HTTP/2 and TLS have different errors for that.
var errBrokenOff = errors.New("the answer broke off")

// A markingClient marks the errors of reading an answer.
type markingClient struct{ secretsmanager.HTTPClient }

func (c markingClient) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.HTTPClient.Do(r)
	if err == nil && resp != nil && resp.Body != nil { // a caller's own client may not keep the rules
		resp.Body = markingBody{resp.Body}
	}
	return resp, err
}

type markingBody struct{ io.ReadCloser }

func (b markingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // EOF itself, for those who compare
		err = fmt.Errorf("%w: %w", errBrokenOff, err)
	}
	return n, err
}

// denied tells a missing permission on the secret from one on its KMS key. The
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
