package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fleetkey/fleetkey"
)

// This file examines a secret in AWS Secrets Manager. Each permission is tried
// by a call that AWS refuses for another reason once it has found it allowed,
// or that changes nothing.

// action begins the name of each permission.
const action = "secretsmanager:"

// aws examines the store that the servers would use, through a client of its
// own that takes note of AWS's clock.
func (x *examination) aws(ctx context.Context, store *fleetkey.AWSStore) error {
	var secret, region string // both are in the store's name, and nowhere else to be read
	if _, err := fmt.Sscanf(store.String(), "AWS secret %s in %s", &secret, &region); err != nil {
		return fmt.Errorf("read the name of %s: %w", store, err)
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
	if err != nil {
		return err
	}
	x.found(fine, "region", region, "")
	credentials, err := cfg.Credentials.Retrieve(ctx)
	if err != nil { // nothing else can work
		x.found(wrong, "credentials", "none: "+err.Error(), "aws configure  # or give the instance a role, or set AWS_PROFILE")
		return errWrong
	}
	x.found(fine, "credentials", "from "+credentials.Source, "")
	var watch awsClock
	client := secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) { watch.HTTPClient, o.HTTPClient = o.HTTPClient, &watch })
	store, err = fleetkey.NewAWSStore(ctx, secret, func(o *fleetkey.AWSOptions) { o.Client = client })
	if err != nil {
		return err
	}
	bundle, version, err := store.Load(ctx)
	if watch.heard {
		x.clock("AWS", watch.ahead)
	} else {
		x.found(skipped, "clock", "AWS did not answer", "")
	}
	where := quote(secret) + " --region " + region
	policy := "fleetkey policy --secret " + where + " --account YOUR-ACCOUNT"
	const get = action + "GetSecretValue"
	switch {
	case err == nil:
		x.found(fine, get, "allowed", "")
		x.permissions(ctx, store, client, secret, string(bundle), string(version), policy)
		x.keys(ctx, store, bundle, version)
	case errors.Is(err, fleetkey.ErrNotExist):
		x.found(fine, get, "allowed", "")
		x.absent("secret")
		x.found(skipped, action+"CreateSecret", "not tried, since it would create the secret", "")
	case errors.Is(err, fleetkey.ErrDeletionPending):
		x.found(wrong, get, trimPrefix(err), "aws secretsmanager restore-secret --secret-id "+where)
	case errors.Is(err, fleetkey.ErrAccessDenied):
		x.found(wrong, get, trimPrefix(err), policy)
		x.found(skipped, "other permissions", "not tried, since the secret could not be read", "")
	default:
		x.found(wrong, get, trimPrefix(err), "")
	}
	return nil
}

// An awsClock is an HTTP client that takes down how far this machine's clock is ahead of
// AWS's, by the Date header of the answers, failures included.
type awsClock struct {
	secretsmanager.HTTPClient
	ahead time.Duration
	heard bool
}

func (c *awsClock) Do(r *http.Request) (*http.Response, error) {
	asked := time.Now()
	answer, err := c.HTTPClient.Do(r)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		middle := asked.Add(time.Since(asked) / 2)
		c.ahead, c.heard = middle.Sub(date), true
	}
	return answer, nil
}

// permissions tries those that write. Nothing comes of it.
func (x *examination) permissions(
	ctx context.Context, store *fleetkey.AWSStore, client *secretsmanager.Client, secret, bundle, version, policy string,
) {
	// The name is taken.
	_, err := store.Save(ctx, []byte(bundle), "")
	switch {
	case errors.Is(err, fleetkey.ErrConflict):
		x.found(fine, action+"CreateSecret", "allowed", "")
	case errors.Is(err, fleetkey.ErrAccessDenied):
		x.found(minor, action+"CreateSecret", "denied; no harm while the secret exists", policy)
	default:
		x.found(skipped, action+"CreateSecret", fmt.Sprint(err), "")
	}

	// The version exists with this very value: "the operation succeeds but does
	// nothing" (AWS, PutSecretValue, ClientRequestToken).
	_, err = client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: &secret, ClientRequestToken: &version, SecretString: &bundle, VersionStages: []string{"FLEETKEY_PENDING"},
	})
	x.write(action+"PutSecretValue", err, policy)

	// To move AWSCURRENT to where it is, from a version where it is not, fails.
	_, err = client.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: &secret, VersionStage: aws.String("AWSCURRENT"),
		MoveToVersionId: &version, RemoveFromVersionId: aws.String("00000000-0000-4000-8000-000000000000"),
	})
	x.write(action+"UpdateSecretVersionStage", err, policy)
}

// refusals are what AWS answers to one who is allowed what the probes ask for.
var refusals = []string{"ResourceExistsException", "InvalidParameterException", "InvalidRequestException", "ResourceNotFoundException"}

// write judges a permission to write by how AWS refused the call. The text of
// AWS's answer is left out: it can quote what was sent.
func (x *examination) write(check string, err error, policy string) {
	api, _ := errors.AsType[smithy.APIError](err)
	answer, _ := errors.AsType[*smithyhttp.ResponseError](err)
	switch {
	case err == nil, api != nil && slices.Contains(refusals, api.ErrorCode()):
		x.found(fine, check, "allowed", "")
	case api != nil && (strings.Contains(api.ErrorMessage(), "Access to KMS") || strings.Contains(api.ErrorMessage(), "perform: kms:")):
		x.cannotWrite(check, "the secret's KMS key denies kms:GenerateDataKey or kms:Decrypt", policy+" --rotation --kms-key YOUR-KEY-ARN")
	case api != nil && api.ErrorCode() == "AccessDeniedException", answer != nil && answer.HTTPStatusCode() == http.StatusForbidden:
		x.cannotWrite(check, "denied", policy+" --rotation")
	case api != nil:
		x.found(skipped, check, "AWS answered "+api.ErrorCode()+", which does not tell", "")
	default:
		x.found(skipped, check, "AWS did not answer", "")
	}
}
