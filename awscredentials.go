package fleetkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/smithy-go"

	"github.com/fleetkey/fleetkey/internal/awsconfig"
)

// This file distinguishes failures to get credentials (from STS, SSO, container endpoints
// or instance metadata) from responses of Secrets Manager. Both come from the same SDK call
// and can have the same codes.

// A credentialsError is a failure to get credentials.
type credentialsError struct {
	provider aws.CredentialsProvider
	err      error
}

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err } // the SDK's retryer looks inside

// A markingProvider wraps errors of getting credentials in a credentialsError.
type markingProvider struct{ aws.CredentialsProvider }

func (p markingProvider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.CredentialsProvider.Retrieve(ctx)
	switch {
	case err != nil:
	case !c.HasKeys():
		err = errors.New("the source returned no keys")
	case strings.ContainsFunc(c.AccessKeyID+c.SecretAccessKey+c.SessionToken, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }):
		err = errors.New("a key or the session token contains white space or control characters")
	default:
		return c, nil
	}
	return c, &credentialsError{p.CredentialsProvider, err}
}

// A source has a name and a suggested fix.
type source struct{ name, fix string }

var (
	sourceOther = source{"the client's own provider", "check the Credentials of AWSOptions.Client"}
	sourceSSO   = source{"SSO", "run aws sso login"}
	sourceIMDS  = source{"EC2 instance metadata", "give the server a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID " +
		"(in a container on EC2 the metadata's hop limit must be 2)"}
	sourceWebID = source{"STS AssumeRoleWithWebIdentity", "check AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, " +
		"and let the role's trust policy name the identity provider and the service account"}
	sources = map[aws.CredentialSource]source{
		aws.CredentialSourceEnvVars:              {"the environment", "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"},
		aws.CredentialSourceProfile:              {"the profile", "check the profile's keys"},
		aws.CredentialSourceProcess:              {"credential_process", "run the profile's credential_process manually"},
		aws.CredentialSourceLogin:                {"aws login", "run aws login"},
		aws.CredentialSourceHTTP:                 {"the container endpoint", "give the ECS task a task role, or the EKS service account a Pod Identity association"},
		aws.CredentialSourceSTSAssumeRole:        {"STS AssumeRole", "allow sts:AssumeRole on the role, and let the role's trust policy name the caller"},
		aws.CredentialSourceEnvVarsSTSWebIDToken: sourceWebID, aws.CredentialSourceProfileSTSWebIDToken: sourceWebID,
		aws.CredentialSourceSTSAssumeRoleWebID: sourceWebID,
		aws.CredentialSourceSSO:                sourceSSO, aws.CredentialSourceSSOLegacy: sourceSSO,
		aws.CredentialSourceIMDS: sourceIMDS,
	}
)

// chainOf returns the names of a provider's sources, each of which uses the credentials of
// the previous one, and their fixes.
func chainOf(p aws.CredentialsProvider) (names, fixes []string) {
	if s, ok := p.(aws.CredentialProviderSource); ok {
		for _, kind := range s.ProviderSources() {
			if known, ok := sources[kind]; ok {
				names, fixes = append(names, known.name), append(fixes, known.fix)
			}
		}
	}
	if names == nil {
		names, fixes = []string{sourceOther.name}, []string{sourceOther.fix}
	}
	return names, fixes
}

// diagnose returns the sentinel, if any, and what to do.
func (e *credentialsError) diagnose(exceeded time.Duration) (error, string) {
	names, fixes := chainOf(e.provider)
	sentinel, todo := diagnoseTransport("the source of the credentials", e.err, exceeded)
	switch {
	case errorCode(e.err) == "IDPCommunicationError": // "retry" (AWS STS, AssumeRoleWithWebIdentity)
		sentinel, todo = ErrUnavailable, "STS cannot reach the identity provider: try again later"
	case todo == "", slices.Contains(fixes, sourceIMDS.fix) && awsconfig.Status(e.err) == 0: // it may not be EC2 at all
		todo = strings.Join(fixes, "; ")
	}
	return sentinel, "no AWS credentials: " + todo + " (from " + strings.Join(names, ", then ") + ")"
}

// cause returns only the text, so that a missing file, a code or a status does not match as
// if it concerned the secret. It omits what may contain a key: a response that cannot be
// parsed, the output of a credential_process, and the address and error page of a container
// endpoint (the message of an error that has a status itself).
func (e *credentialsError) cause() error {
	api, _ := errors.AsType[smithy.APIError](e.err)
	_, page := api.(interface{ HTTPStatusCode() int })
	asked, sent := errors.AsType[*url.Error](e.err)
	switch {
	case page:
		return errors.New(strings.TrimSpace(fmt.Sprintf("HTTP status %d %s", awsconfig.Status(e.err), api.ErrorCode())))
	case is[*processcreds.ProviderError](e.err) && !is[*exec.ExitError](e.err), is[*smithy.DeserializationError](e.err),
		is[*json.SyntaxError](e.err), is[*json.UnmarshalTypeError](e.err), is[*time.ParseError](e.err):
		return errors.New("the response is not understood")
	case sent:
		return errors.New(asked.Err.Error())
	}
	return errors.New(e.Error())
}
