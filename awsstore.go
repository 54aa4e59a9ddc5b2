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

// An AWSStore is a [KeyStore] in a secret of AWS Secrets Manager.
//
// Reading requires secretsmanager:GetSecretValue. Creating the secret on the first start
// requires secretsmanager:CreateSecret. Replacing the value (rotation) requires
// secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage. The resource
// of each permission is
//
//	arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME*
//
// where the star stands for the hyphen and six characters that AWS adds to a name. A
// Version is the ID of the secret version that has the label AWSCURRENT.
//
// An AWSStore is safe for concurrent use.
type AWSStore struct {
	id       secretid.ID
	region   string
	timeout  time.Duration
	client   *secretsmanager.Client
	kmsKey   string
	replica  []types.ReplicaRegionType
	readOnly bool
}

// AWSOptions configures [NewAWSStore]. The zero value suits a server that runs in AWS with
// a role.
type AWSOptions struct {
	// Region is the AWS region, such as "eu-west-1". Default: the region of the ARN, the
	// environment, the shared configuration or the EC2 instance, in this order.
	Region string

	// Client replaces the client made from the SDK's default configuration, for example to
	// assume a role: secretsmanager.NewFromConfig(cfg).
	Client *secretsmanager.Client

	// KMSKeyID is the ID, ARN or alias of the customer managed key for a new secret.
	// Reading requires kms:Decrypt on it, and writing also kms:GenerateDataKey. Default:
	// aws/secretsmanager, which requires no permission.
	KMSKeyID string

	// ReplicaRegions lists regions to replicate a new secret to. It requires
	// secretsmanager:ReplicateSecretToRegions. Default: none.
	ReplicaRegions []string

	// ReadOnly is for servers that read a replica of the secret. The store writes nothing,
	// and Save returns [ErrReadOnly]. Default: false.
	ReadOnly bool

	// Timeout limits each call to AWS, including retries. CreateSecret gets three times as
	// long, since the first secret of an account can take "a one-time significant delay"
	// (AWS, CreateSecret). Default: 10 seconds.
	Timeout time.Duration
}

const (
	stageCurrent   = "AWSCURRENT"
	defaultTimeout = 10 * time.Second // of AWSOptions
)

// NewAWSStore returns a store in a secret, given by name or ARN. If the secret does not
// exist and is given by name, the first Save creates it.
//
// NewAWSStore does not contact Secrets Manager. It returns an error only for a malformed
// name, an unreadable AWS configuration or a missing region. ctx limits the search for the
// region.
//
// A name that ends in a hyphen and six letters or digits, such as "openid-server", is
// rejected, because AWS confuses it with a partial ARN (AWS, CreateSecret, parameter Name).
// Give the ARN of such a secret instead.
func NewAWSStore(ctx context.Context, secretName string, opts ...func(*AWSOptions)) (*AWSStore, error) {
	var o AWSOptions
	for _, opt := range opts {
		opt(&o)
	}
	id, err := secretid.Parse(secretName)
	if err == nil && id.Region != "" && o.Region != "" && id.Region != o.Region {
		err = fmt.Errorf("the region of the ARN differs from the option Region, %q", o.Region)
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
		id:       id,
		region:   cmp.Or(region, o.Client.Options().Region),
		timeout:  cmp.Or(o.Timeout, defaultTimeout),
		client:   o.Client,
		kmsKey:   o.KMSKeyID,
		readOnly: o.ReadOnly,
	}
	if s.region == "" {
		return nil, fmt.Errorf("AWS secret %q: the client has no region: set AWSOptions.Region", secretName)
	}
	for _, r := range append([]string{s.region}, o.ReplicaRegions...) {
		if !secretid.IsRegion(r) {
			return nil, fmt.Errorf("AWS secret %q: %q is not a region such as eu-west-1 (AWSOptions, AWS_REGION, or region in the profile)", secretName, r)
		}
	}
	for _, r := range o.ReplicaRegions {
		s.replica = append(s.replica, types.ReplicaRegionType{Region: aws.String(r)})
	}
	return s, nil
}

// String returns the name of the secret and its region.
func (s *AWSStore) String() string {
	return fmt.Sprintf("AWS secret %s in %s", s.id, s.region)
}

// ReadOnly reports whether [AWSOptions].ReadOnly is set.
func (s *AWSStore) ReadOnly() bool { return s.readOnly }

// Load reads the current value with one GetSecretValue. In addition to the errors of
// [KeyStore] it returns [ErrDeletionPending].
func (s *AWSStore) Load(ctx context.Context) ([]byte, Version, error) {
	bundle, v, err := s.get(ctx)
	if err != nil {
		err = fmt.Errorf("load %s: %w", s, err)
	}
	return bundle, v, err
}

// Save creates the secret if prev is zero, and otherwise replaces its current value. In
// addition to the errors of [KeyStore] it returns [ErrDeletionPending]. If several callers
// save the same bundle over the same prev, more than one of them may succeed. This is
// harmless: the content changes only once.
func (s *AWSStore) Save(ctx context.Context, bundle []byte, prev Version) (Version, error) {
	if s.readOnly {
		return "", fmt.Errorf("save %s: %w (AWSOptions.ReadOnly): make the change in the primary region", s, ErrReadOnly)
	}
	if n := len(bundle); n < 1 || n > MaxBundleSize {
		return "", fmt.Errorf("save %s: a secret can hold 1 to %d bytes, not %d", s, MaxBundleSize, n)
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

// get passes AWSCURRENT although it is the default, because IAM policies can require it.
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

// create creates the secret. It asks for no tags, and for no replicas unless told to,
// because both require more permissions. The SDK repeats the token when it retries, so AWS
// treats a retry as the same call.
func (s *AWSStore) create(ctx context.Context, bundle []byte, _ Version) (Version, error) {
	if s.id.Suffix != "" {
		return "", errors.New("the secret cannot be created by its ARN: give the name instead, " +
			"or, if the secret exists, store a first value with aws secretsmanager put-secret-value")
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

// secretValue returns the field for a bundle: text, which the AWS console shows, or binary.
func secretValue(bundle []byte) (*string, []byte) {
	if utf8.Valid(bundle) {
		return aws.String(string(bundle)), nil
	}
	return nil, bundle
}

// A lookingRetryer does not repeat a write that AWS throttles. If a whole fleet tries it,
// one instance succeeds, so the others must read before they try again.
type lookingRetryer struct{ aws.Retryer }

func (r lookingRetryer) IsErrorRetryable(err error) bool {
	return !isThrottled(err) && r.Retryer.IsErrorRetryable(err)
}

// call performs one AWS operation within a time limit. value is what it writes, and must
// not appear in an error.
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
		// A client configured to log bodies would log private keys.
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
