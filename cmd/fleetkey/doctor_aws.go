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
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsconfig"
)

// This file examines a secret in AWS Secrets Manager. It never writes, not even to an
// emulator that departs from AWS: it tests each write permission with a call that has
// nothing to change, which AWS rejects after checking permissions.

// action is the prefix of each permission.
const action = "secretsmanager:"

// aws examines the store that the servers would use, with a client that records AWS's
// clock.
func (x *examination) aws(ctx context.Context, store *fleetkey.AWSStore) error {
	secret, region := secretOf(store)
	cfg, err := awsconfig.Load(ctx, region, 40*time.Second)
	if err != nil {
		return err
	}
	x.found(fine, "region", region, "")
	var watch awsWatch
	client := secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) { watch.HTTPClient, o.HTTPClient = o.HTTPClient, &watch })
	store, err = fleetkey.NewAWSStore(ctx, secret, func(o *fleetkey.AWSOptions) { o.Client = client })
	if err != nil {
		return err
	}
	bundle, version, err := store.Load(ctx)
	again, cancel := context.WithTimeout(ctx, 5*time.Second)
	credentials, noCredentials := cfg.Credentials.Retrieve(again) // from the cache, if there are any
	cancel()
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](noCredentials); ok && answer.Response != nil {
		watch.hear(time.Now(), answer.Response.Response)
	}
	if noCredentials == nil {
		x.found(fine, "credentials", "from "+credentials.Source, "")
	}
	if watch.heard {
		x.clock("AWS", watch.ahead)
	} else {
		x.found(skipped, "clock", "AWS did not respond", "")
	}
	if err != nil && noCredentials != nil { // nothing else can succeed
		x.found(wrong, "credentials", trimPrefix(err), "")
		return errWrong
	}
	where := quote(secret) + " --region " + region
	policy := "fleetkey policy --secret " + where + " --account YOUR-ACCOUNT"
	const get = action + "GetSecretValue"
	switch {
	case err == nil:
		x.found(fine, get, "allowed", "")
		x.permissions(ctx, client, secret, string(bundle), string(version), policy)
		x.keys(store, bundle, version)
	case errors.Is(err, fleetkey.ErrNotExist) && hasNoValue(ctx, client, secret, err):
		x.found(wrong, get, "the secret exists but has no value, so no server can start", putFirst(store, "--issuer https://YOUR-ISSUER"))
	case errors.Is(err, fleetkey.ErrNotExist):
		x.found(fine, get, "allowed", "")
		x.absent("secret")
		x.found(skipped, action+"CreateSecret", "not tested, since that would create the secret", "")
	case errors.Is(err, fleetkey.ErrDeletionPending):
		x.found(wrong, get, trimPrefix(err), "aws secretsmanager restore-secret --secret-id "+where)
	case errors.Is(err, fleetkey.ErrAccessDenied):
		x.found(wrong, get, trimPrefix(err), policy)
		x.found(skipped, "other permissions", "not tested, since the secret could not be read", "")
	default:
		x.found(wrong, get, trimPrefix(err), "")
	}
	return nil
}

// secretOf returns the name and region of a store's secret, which are only in the name of
// the store.
func secretOf(store fleetkey.KeyStore) (secret, region string) {
	_, _ = fmt.Sscanf(name(store), "AWS secret %s in %s", &secret, &region)
	return secret, region
}

// putFirst returns the command that gives an empty secret its first value, made by init with
// these flags. The new directory keeps it from removing a keys.pem that is in use.
func putFirst(store fleetkey.KeyStore, flags string) string {
	secret, region := secretOf(store)
	return fmt.Sprintf("d=$(mktemp -d) && fleetkey init --file \"$d/keys.pem\" %s && aws secretsmanager put-secret-value --secret-id %s --region %s "+
		"--secret-string \"file://$d/keys.pem\" && rm -r \"$d\"", flags, quote(secret), region)
}

// hasNoValue reports whether a secret exists without a current value. If the role may not
// describe it, the message of the refusal decides.
func hasNoValue(ctx context.Context, client *secretsmanager.Client, secret string, refusal error) bool {
	_, err := client.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &secret})
	return err == nil || saysNoValue(refusal)
}

func saysNoValue(refusal error) bool {
	api, ok := errors.AsType[smithy.APIError](refusal)
	return ok && errors.Is(refusal, fleetkey.ErrNotExist) && strings.Contains(api.ErrorMessage(), "secret value")
}

// An awsWatch forwards the SDK's requests. It records how far this machine's clock is ahead
// of AWS's, from the Date header of all responses.
type awsWatch struct {
	secretsmanager.HTTPClient
	ahead time.Duration
	heard bool
}

func (w *awsWatch) Do(r *http.Request) (*http.Response, error) {
	asked := time.Now()
	answer, err := w.HTTPClient.Do(r)
	if err == nil {
		w.hear(asked.Add(time.Since(asked)/2), answer)
	}
	return answer, err
}

func (w *awsWatch) hear(at time.Time, answer *http.Response) {
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		w.ahead, w.heard = at.Sub(date), true
	}
}

// permissions tests the write permissions. An existing secret is not created; at worst the
// current value is stored again under the ID of the current version.
func (x *examination) permissions(ctx context.Context, client *secretsmanager.Client, secret, bundle, version, policy string) {
	if !strings.HasPrefix(secret, "arn:") { // servers cannot create a secret by ARN
		_, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: &secret, ClientRequestToken: &version, SecretString: &bundle})
		x.write(action+"CreateSecret", err, policy)
	}
	// Without a value there is nothing to put.
	_, err := client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: &secret})
	x.write(action+"PutSecretValue", err, policy)
	// Moving AWSCURRENT to where it already is fails: "if you do not specify
	// RemoveFromVersionId and the label is attached, the operation fails" (AWS,
	// UpdateSecretVersionStage).
	_, err = client.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: &secret, VersionStage: aws.String("AWSCURRENT"), MoveToVersionId: &version,
	})
	x.write(action+"UpdateSecretVersionStage", err, policy)
}

// refusals are AWS's errors for a caller that has the tested permission.
var refusals = []string{"ResourceExistsException", "InvalidParameterException", "InvalidRequestException", "ResourceNotFoundException"}

// write reports the result for a write permission.
func (x *examination) write(check string, err error, policy string) {
	switch verdict, why := judge(err); {
	case verdict != wrong:
		x.found(verdict, check, why, "")
	case check == action+"CreateSecret":
		x.found(minor, check, why+"; harmless while the secret exists", policy)
	case why == deniedByKMS:
		x.cannotWrite(check, why, policy+" --kms-key YOUR-KEY-ARN --rotation")
	default:
		x.cannotWrite(check, why, policy+" --rotation")
	}
}

const deniedByKMS = "the secret's KMS key denies kms:GenerateDataKey or kms:Decrypt"

// judge returns what AWS's response to a call that changes nothing reveals about the
// permission. It omits the text of the response, which can quote the request.
func judge(err error) (verdict, string) {
	api, _ := errors.AsType[smithy.APIError](err)
	answer, _ := errors.AsType[*smithyhttp.ResponseError](err)
	switch {
	case err == nil, api != nil && slices.Contains(refusals, api.ErrorCode()):
		return fine, "allowed"
	case api != nil && (strings.Contains(api.ErrorMessage(), "Access to KMS") || strings.Contains(api.ErrorMessage(), "perform: kms:")):
		return wrong, deniedByKMS
	case api != nil && api.ErrorCode() == "AccessDeniedException", answer != nil && answer.HTTPStatusCode() == http.StatusForbidden:
		return wrong, "denied"
	case api != nil:
		return skipped, "AWS responded " + api.ErrorCode() + ", which does not say"
	}
	return skipped, "AWS did not respond"
}
