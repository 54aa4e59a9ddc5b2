package fleetkey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/fleetkey/fleetkey/internal/awsconfig"
	"github.com/fleetkey/fleetkey/internal/secretid"
)

// An AWSStore is a [KeyStore] in one secret of AWS Secrets Manager.
//
// Reading requires secretsmanager:GetSecretValue, and creating the secret at the first
// start secretsmanager:CreateSecret. Replacing the value (rotation) also requires
// secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage. Each on
//
//	arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME*
//
// where the star stands for the hyphen and six characters that AWS adds to a name. A
// Version is the id of the secret's version that carries the label AWSCURRENT.
//
// An AWSStore is safe for concurrent use.
type AWSStore struct {
	id      secretid.ID
	region  string
	timeout time.Duration
	client  *secretsmanager.Client
	kmsKey  string
	replica []types.ReplicaRegionType
}

// AWSOptions are the choices of [NewAWSStore]. The zero value suits a server
// that runs in AWS with a role.
type AWSOptions struct {
	// Region, such as "eu-west-1". Empty: that of the ARN, of the environment
	// and shared configuration, or of the EC2 instance, in this order.
	Region string

	// Client replaces the client made from the SDK's default configuration,
	// for instance to assume a role: secretsmanager.NewFromConfig(cfg).
	Client *secretsmanager.Client

	// KMSKeyID is the id, ARN or alias of the customer managed key for a new
	// secret; empty: aws/secretsmanager, which needs no permission. Reading
	// requires kms:Decrypt on it, and writing also kms:GenerateDataKey.
	KMSKeyID string

	// ReplicaRegions get a copy of a new secret. This requires
	// secretsmanager:ReplicateSecretToRegions.
	ReplicaRegions []string

	// Timeout bounds each call to AWS, retries included; zero: 10 s.
	// CreateSecret has three times as long, since the first secret of an
	// account can take "a one-time significant delay" (AWS, CreateSecret).
	Timeout time.Duration
}

const (
	stageCurrent   = "AWSCURRENT"
	defaultTimeout = 10 * time.Second // of AWSOptions
)

// NewAWSStore returns the store for a secret, given by name or by ARN. The
// secret need not exist: the first Save creates it, if it was given by name.
//
// Nothing is asked of Secrets Manager yet, so that only a malformed name,
// unreadable AWS configuration and a missing region are errors here. ctx bounds
// the search for the region.
//
// A name ending in a hyphen and six letters or digits, such as "openid-server",
// is refused: AWS confuses it with an ARN that lacks its ending (AWS,
// CreateSecret, parameter Name). Such a secret works by its ARN.
func NewAWSStore(ctx context.Context, secretName string, opts ...func(*AWSOptions)) (*AWSStore, error) {
	var o AWSOptions
	for _, opt := range opts {
		opt(&o)
	}
	id, err := secretid.Parse(secretName)
	if err == nil && id.Region != "" && o.Region != "" && id.Region != o.Region {
		err = fmt.Errorf("the ARN is of another region than the option Region, %q", o.Region)
	}
	if err != nil {
		return nil, fmt.Errorf("AWS secret %q: %w", secretName, err)
	}
	region := cmp.Or(id.Region, o.Region)
	if o.Client == nil {
		cfg, err := awsconfig.Load(ctx, region, 4*cmp.Or(o.Timeout, defaultTimeout))
		if err != nil {
			return nil, fmt.Errorf("AWS secret %q: %w", secretName, printable{err})
		}
		o.Client = secretsmanager.NewFromConfig(cfg)
	} else if c, ok := o.Client.Options().HTTPClient.(*awshttp.BuildableClient); ok {
		o.Client = secretsmanager.New(o.Client.Options(), func(o *secretsmanager.Options) { o.HTTPClient = awsconfig.NoteProxy(c) })
	}
	if at := o.Client.Options().BaseEndpoint; at != nil && !awsconfig.IsEndpoint(*at) {
		return nil, fmt.Errorf("AWS secret %q: AWS_ENDPOINT_URL, or the client's BaseEndpoint, is not a URL such as http://localhost:4566", secretName)
	}
	s := &AWSStore{
		id:      id,
		region:  cmp.Or(region, o.Client.Options().Region),
		timeout: cmp.Or(o.Timeout, defaultTimeout),
		client:  o.Client,
		kmsKey:  o.KMSKeyID,
	}
	if s.region == "" {
		return nil, fmt.Errorf("AWS secret %q: the client has no region: set AWSOptions.Region", secretName)
	}
	for _, r := range append([]string{s.region}, o.ReplicaRegions...) {
		if !secretid.IsRegion(r) {
			return nil, fmt.Errorf("AWS secret %q: %q is not a region: want one such as eu-west-1 (AWSOptions, AWS_REGION, or region in the profile)", secretName, r)
		}
	}
	for _, r := range o.ReplicaRegions {
		s.replica = append(s.replica, types.ReplicaRegionType{Region: aws.String(r)})
	}
	return s, nil
}

// String names the secret and its region.
func (s *AWSStore) String() string {
	return fmt.Sprintf("AWS secret %s in %s", s.id, s.region)
}

// Load reads the current value by one GetSecretValue. Besides the errors of
// [KeyStore] it returns [ErrDeletionPending].
func (s *AWSStore) Load(ctx context.Context) ([]byte, Version, error) {
	bundle, v, err := s.get(ctx)
	if err != nil {
		err = fmt.Errorf("load %s: %w", s, err)
	}
	return bundle, v, err
}

// Save creates the secret if prev is zero, and otherwise replaces its current
// value. Besides the errors of [KeyStore] it returns [ErrDeletionPending]. When
// several callers save equal bytes over the same prev, that is one change, and
// more than one of them may be told that it succeeded.
func (s *AWSStore) Save(ctx context.Context, bundle []byte, prev Version) (Version, error) {
	if n := len(bundle); n < 1 || n > MaxBundleSize {
		return "", fmt.Errorf("save %s: a secret holds 1 to %d bytes, not %d", s, MaxBundleSize, n)
	}
	save := s.replace
	if prev == "" {
		save = s.create
	}
	v, err := save(ctx, bundle, prev)
	if err != nil {
		err = fmt.Errorf("save %s: %w", s, err)
	}
	return v, err
}

// get names AWSCURRENT although it is the default: IAM policies can make it a
// condition, which a call without it fails.
func (s *AWSStore) get(ctx context.Context) ([]byte, Version, error) {
	out, err := call(ctx, s, s.timeout, s.client.GetSecretValue, &secretsmanager.GetSecretValueInput{
		SecretId:     aws.String(s.id.String()),
		VersionStage: aws.String(stageCurrent),
	}, nil)
	if err != nil {
		return nil, "", err
	}
	bundle := out.SecretBinary
	if out.SecretString != nil {
		bundle = []byte(*out.SecretString)
	}
	v := aws.ToString(out.VersionId)
	if v == "" || len(bundle) == 0 {
		return nil, "", errForeign("GetSecretValue")
	}
	return bundle, Version(v), nil
}

// create makes the secret. It asks for no tags, and for no replicas unless
// told to, because both need more permissions. A retry by the SDK repeats the
// same token, which AWS treats as the same call.
func (s *AWSStore) create(ctx context.Context, bundle []byte, _ Version) (Version, error) {
	if s.id.Suffix != "" {
		return "", errors.New("an ARN names a secret that exists already: give the name instead and it will be created, " +
			"or store a first value yourself by aws secretsmanager put-secret-value")
	}
	in := &secretsmanager.CreateSecretInput{
		Name:              aws.String(s.id.Name),
		Description:       aws.String("Signing keys of an OpenID server fleet (PEM)"),
		AddReplicaRegions: s.replica,
	}
	if s.kmsKey != "" {
		in.KmsKeyId = aws.String(s.kmsKey)
	}
	in.SecretString, in.SecretBinary = secretValue(bundle)
	out, err := call(ctx, s, 3*s.timeout, s.client.CreateSecret, in, bundle)
	if err != nil {
		return "", err
	}
	if aws.ToString(out.VersionId) == "" {
		return "", errForeign("CreateSecret")
	}
	return Version(*out.VersionId), nil
}

// secretValue picks the field for a bundle: text, which the AWS console shows,
// or bytes.
func secretValue(bundle []byte) (*string, []byte) {
	if utf8.Valid(bundle) {
		return aws.String(string(bundle)), nil
	}
	return nil, bundle
}

// A lookingRetryer does not repeat a write that AWS throttles. If a whole fleet tries it,
// one instance succeeds, so the others have to look before they try again.
type lookingRetryer struct{ aws.Retryer }

func (r lookingRetryer) IsErrorRetryable(err error) bool {
	return !isThrottled(err) && r.Retryer.IsErrorRetryable(err)
}

// call performs one AWS operation within its own time limit. value is what
// it writes and must not appear in an error.
func call[In, Out any](ctx context.Context, s *AWSStore, limit time.Duration,
	op func(context.Context, *In, ...func(*secretsmanager.Options)) (*Out, error), in *In, value []byte,
) (*Out, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := op(limited, in, func(o *secretsmanager.Options) {
		o.Region = s.region
		o.HTTPClient = markingClient{o.HTTPClient}
		if o.Credentials == nil {
			o.Credentials = aws.AnonymousCredentials{}
		}
		o.Credentials = markingProvider{o.Credentials}
		if value != nil {
			o.Retryer = lookingRetryer{o.Retryer}
		}
		// A client that was set to log bodies would log private keys.
		o.ClientLogMode &^= aws.LogRequestWithBody | aws.LogResponseWithBody
	})
	if err == nil {
		return out, nil
	}
	name := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", in), "*secretsmanager."), "Input")
	if end := ctx.Err(); end != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, end, withoutValue(name, err, value))
	}
	if limited.Err() == nil {
		limit = 0
	}
	return nil, s.explain(name, err, limit, value)
}
