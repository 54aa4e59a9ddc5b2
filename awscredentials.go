package fleetkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// This file tells failures of the sources of credentials (STS, SSO, container endpoints,
// instance metadata) from answers of Secrets Manager. They can carry the same codes, and
// come out of the same call of the SDK.

// A credentialsError is a failure to get credentials.
type credentialsError struct {
	provider aws.CredentialsProvider
	err      error
}

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err } // the SDK's retryer looks inside

// A markingProvider marks the errors of getting credentials.
type markingProvider struct{ aws.CredentialsProvider }

func (p markingProvider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.CredentialsProvider.Retrieve(ctx)
	unfit := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	switch {
	case err != nil:
	case !c.HasKeys():
		err = errors.New("the source holds no keys")
	case strings.ContainsFunc(c.AccessKeyID+c.SecretAccessKey+c.SessionToken, unfit):
		err = errors.New("a key or the session token contains white space")
	default:
		return c, nil
	}
	return c, &credentialsError{p.CredentialsProvider, err}
}

// sources says, by kind, how a source is called and what makes it work.
var sources = map[aws.CredentialSource]struct{ name, fix string }{
	aws.CredentialSourceUndefined:            {"the client's own provider", "check the Credentials of AWSOptions.Client"},
	aws.CredentialSourceEnvVars:              {"the environment", "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"},
	aws.CredentialSourceProfile:              {"the profile", "check the profile's keys"},
	aws.CredentialSourceProcess:              {"credential_process", "run the profile's credential_process by hand"},
	aws.CredentialSourceSSO:                  {"SSO", "run aws sso login"},
	aws.CredentialSourceSSOLegacy:            {"SSO", "run aws sso login"},
	aws.CredentialSourceLogin:                {"aws login", "run aws login"},
	aws.CredentialSourceEnvVarsSTSWebIDToken: webIdentity,
	aws.CredentialSourceProfileSTSWebIDToken: webIdentity,
	aws.CredentialSourceSTSAssumeRoleWebID:   webIdentity,
	aws.CredentialSourceSTSAssumeRole:        {"STS AssumeRole", "allow sts:AssumeRole on the role, and let the role's trust policy name the caller"},
	aws.CredentialSourceHTTP:                 {"the container endpoint", "give the ECS task a task role, or the EKS service account a Pod Identity association"},
	aws.CredentialSourceIMDS: {"EC2 instance metadata", "give the server a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID " +
		"(in a container on EC2 the metadata's hop limit must be 2)"},
}

var webIdentity = struct{ name, fix string }{"STS AssumeRoleWithWebIdentity", "check AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, " +
	"and let the role's trust policy name the identity provider and the service account"}

// chainOf names the sources of a provider, those first whose credentials the next one uses.
func chainOf(p aws.CredentialsProvider) (names []string, kinds []aws.CredentialSource) {
	if s, ok := p.(aws.CredentialProviderSource); ok {
		for _, kind := range s.ProviderSources() {
			if known, ok := sources[kind]; ok && kind != aws.CredentialSourceUndefined {
				names, kinds = append(names, known.name), append(kinds, kind)
			}
		}
	}
	if kinds == nil {
		return []string{sources[0].name}, []aws.CredentialSource{0}
	}
	return names, kinds
}

// diagnose returns what to match, if anything, and what to do.
func (e *credentialsError) diagnose(exceeded time.Duration) (error, string) {
	names, kinds := chainOf(e.provider)
	failed := kinds[0]
	// Of a chain, the last link has failed if its service has answered.
	if _, answered := errors.AsType[*smithyhttp.ResponseError](e.err); answered && serviceOf(e.err) == "STS" {
		failed = kinds[len(kinds)-1]
	}
	sentinel, todo := diagnoseTransport("the source of the credentials", e.err, exceeded)
	switch {
	case errorCode(e.err) == "IDPCommunicationError": // "retry" (AWS STS, AssumeRoleWithWebIdentity)
		sentinel, todo = ErrUnavailable, "STS cannot reach the identity provider: try again later"
	case todo == "" || failed == aws.CredentialSourceIMDS && httpStatus(e.err) == 0: // there may be no EC2 either
		todo = sources[failed].fix
	}
	return sentinel, fmt.Sprintf("no AWS credentials: %s (from %s)", todo, strings.Join(names, ", then "))
}

// serviceOf returns whom the innermost call went to.
func serviceOf(err error) (name string) {
	for {
		op, ok := errors.AsType[*smithy.OperationError](err)
		if !ok {
			return name
		}
		name, err = op.Service(), op.Err
	}
}

// cause returns the text alone: a missing file, a code or a status must not be found by
// those who ask about the secret. A credential_process can have printed its keys where
// JSON was expected.
func (e *credentialsError) cause() error {
	if _, garbled := errors.AsType[*json.SyntaxError](e.err); garbled {
		return errors.New("the answer is not understood")
	}
	return errors.New(e.Error())
}
