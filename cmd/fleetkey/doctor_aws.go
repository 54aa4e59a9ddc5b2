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
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fleetkey/fleetkey"
)

// This file examines a secret in AWS Secrets Manager. Each permission is tried
// by a call that AWS refuses for another reason once it has found it allowed,
// or that changes nothing.

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
	if !x.credentials(ctx, cfg) {
		return nil // nothing else can work
	}
	var watch awsClock
	client := secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) { o.APIOptions = append(o.APIOptions, watch.listen) })
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
	x.permissions(ctx, store, client, secret, probe{bundle, version, err})
	if err == nil {
		x.keys(ctx, store, bundle, version)
	}
	return nil
}

func (x *examination) credentials(ctx context.Context, cfg aws.Config) bool {
	got, err := cfg.Credentials.Retrieve(ctx)
	switch {
	case err != nil:
		x.found(wrong, "credentials", "none: "+err.Error(), "aws configure  # or give the instance a role, or set AWS_PROFILE")
		return false
	case got.Expired():
		x.found(wrong, "credentials", fmt.Sprintf("from %s, expired at %s", got.Source, stamp(got.Expires)), "aws sso login  # or renew them where they come from")
		return false
	}
	x.found(fine, "credentials", "from "+got.Source, "")
	return true
}

// An awsClock is how far this machine's clock is ahead of AWS's, by the Date
// header of the answers, failures included.
type awsClock struct {
	ahead time.Duration
	heard bool
}

func (c *awsClock) listen(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("fleetkey clock",
		func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			asked := time.Now()
			out, metadata, err := next.HandleDeserialize(ctx, in)
			if answer, ok := out.RawResponse.(*smithyhttp.Response); ok {
				if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
					middle := asked.Add(time.Since(asked) / 2)
					c.ahead, c.heard = middle.Sub(date), true
				}
			}
			return out, metadata, err
		}), middleware.After)
}

// A probe is the outcome of the first read.
type probe struct {
	bundle  []byte
	version fleetkey.Version
	err     error
}

func (x *examination) permissions(ctx context.Context, store *fleetkey.AWSStore, client *secretsmanager.Client, secret string, p probe) {
	const action = "secretsmanager:"
	policy := "fleetkey policy --secret " + quote(secret) + " --region " + client.Options().Region + " --account YOUR-ACCOUNT"
	switch {
	case errors.Is(p.err, fleetkey.ErrNotExist):
		x.found(fine, action+"GetSecretValue", "allowed", "")
		x.absent("secret")
		x.found(skipped, action+"CreateSecret", "not tried, since it would create the secret", "")
		return
	case errors.Is(p.err, fleetkey.ErrDeletionPending):
		x.found(wrong, action+"GetSecretValue", trimPrefix(p.err), "aws secretsmanager restore-secret --secret-id "+quote(secret)+" --region "+client.Options().Region)
		return
	case errors.Is(p.err, fleetkey.ErrAccessDenied):
		x.found(wrong, action+"GetSecretValue", trimPrefix(p.err), policy)
		x.found(skipped, "other permissions", "not tried, since the secret could not be read", "")
		return
	case p.err != nil:
		x.found(wrong, action+"GetSecretValue", trimPrefix(p.err), "")
		return
	}
	x.found(fine, action+"GetSecretValue", "allowed", "")

	// The name is taken, so that nothing can come of it.
	_, err := store.Save(ctx, p.bundle, "")
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
	value := string(p.bundle)
	_, err = client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: &secret, ClientRequestToken: aws.String(string(p.version)),
		SecretString: &value, VersionStages: []string{"FLEETKEY_PENDING"},
	})
	x.write(action+"PutSecretValue", err, policy)

	// To move AWSCURRENT to where it is, from a version where it is not, fails.
	nowhere := "00000000-0000-4000-8000-000000000000"
	_, err = client.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: &secret, VersionStage: aws.String("AWSCURRENT"),
		MoveToVersionId: aws.String(string(p.version)), RemoveFromVersionId: &nowhere,
	})
	x.write(action+"UpdateSecretVersionStage", err, policy)
}

// refusals are what AWS answers to one who is allowed what the probes ask for.
var refusals = []string{"ResourceExistsException", "InvalidParameterException", "InvalidRequestException", "ResourceNotFoundException"}

// write judges a permission to write by how AWS refused the call. The text of
// AWS's answer is left out: it can quote what was sent.
func (x *examination) write(check string, err error, policy string) {
	var api smithy.APIError
	var answer *smithyhttp.ResponseError
	switch {
	case err == nil:
		x.found(fine, check, "allowed", "")
	case errors.As(err, &api) && (strings.Contains(api.ErrorMessage(), "Access to KMS") || strings.Contains(api.ErrorMessage(), "perform: kms:")):
		x.found(x.unless(), check, "the secret's KMS key denies kms:GenerateDataKey or kms:Decrypt", policy+" --rotation --kms-key YOUR-KEY-ARN")
	case errors.As(err, &api) && api.ErrorCode() == "AccessDeniedException",
		errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusForbidden:
		x.found(x.unless(), check, "denied"+x.consequence(), policy+" --rotation")
	case api != nil && slices.Contains(refusals, api.ErrorCode()):
		x.found(fine, check, "allowed", "")
	case api != nil:
		x.found(skipped, check, "AWS answered "+api.ErrorCode()+", which does not tell", "")
	default:
		x.found(skipped, check, "AWS did not answer", "")
	}
}
