package fleetkey_test

import (
	"context"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/moto"
)

// Whole fleets on each real store: what a Signer and its store do together.

// A cellOf opens one cell of a store anew with each call.
type cellOf func(t *testing.T) (open func() fleetkey.KeyStore)

var cells = map[string]cellOf{
	"memory": func(*testing.T) func() fleetkey.KeyStore {
		s := fleetkeytest.NewStore()
		return func() fleetkey.KeyStore { return s.Open() }
	},
	"file": func(t *testing.T) func() fleetkey.KeyStore {
		path := filepath.Join(t.TempDir(), "keys", "keys.pem")
		return func() fleetkey.KeyStore { return fleetkey.NewFileStore(path) }
	},
	"awsfake": func(t *testing.T) func() fleetkey.KeyStore {
		fake := awsfake.Start(t)
		return func() fleetkey.KeyStore { return openAWS(t, fake, awsName) }
	},
	"moto": func(t *testing.T) func() fleetkey.KeyStore {
		client, name := moto.Client(moto.URL(t), "moto", moto.SecretKey), freshName()
		return func() fleetkey.KeyStore {
			return openAWS(t, awsfake.New(), name, func(o *fleetkey.AWSOptions) { o.Client = client })
		}
	},
}

// onEachStore runs a test with a fleet of signers that started at once on an
// absent cell.
func onEachStore(t *testing.T, n int, test func(t *testing.T, open func() fleetkey.KeyStore, fleet []*fleetkey.Signer)) {
	for name, cell := range cells {
		t.Run(name, func(t *testing.T) {
			open := cell(t)
			test(t, open, startAtOnce(t, n, func(int) fleetkey.KeyStore { return open() }))
		})
	}
}

func startAtOnce(t *testing.T, n int, open func(i int) fleetkey.KeyStore) []*fleetkey.Signer {
	t.Helper()
	fleet := make([]*fleetkey.Signer, n)
	var wg sync.WaitGroup
	for i := range n {
		store := open(i)
		wg.Go(func() {
			s, err := fleetkey.NewSigner(t.Context(), store, config())
			if assert.NoError(t, err) {
				fleet[i] = s
			}
		})
	}
	wg.Wait()
	for _, s := range fleet {
		require.NotNil(t, s)
		t.Cleanup(func() { s.Close() })
	}
	return fleet
}

// requireOneFleet: all know the same keys, and each accepts each one's tokens.
func requireOneFleet(t *testing.T, keys int, fleet ...*fleetkey.Signer) {
	t.Helper()
	for _, s := range fleet {
		require.Equal(t, jwks(t, fleet[0]), jwks(t, s))
		require.Len(t, s.PublicKeys(), keys)
		accepts(t, issue(t, s), fleet...)
	}
}

func TestFleetStartsAtOnce(t *testing.T) {
	onEachStore(t, 16, func(t *testing.T, _ func() fleetkey.KeyStore, fleet []*fleetkey.Signer) {
		requireOneFleet(t, 1, fleet...)
	})
}

func TestFleetRotatesAtOnce(t *testing.T) { // F10, A12
	onEachStore(t, 8, func(t *testing.T, _ func() fleetkey.KeyStore, fleet []*fleetkey.Signer) {
		var wg sync.WaitGroup
		for _, s := range fleet {
			wg.Go(func() { assert.NoError(t, s.Rotate(t.Context())) })
		}
		wg.Wait()
		refresh(t, fleet...)
		requireOneFleet(t, 2, fleet...)
	})
}

func refresh(t *testing.T, fleet ...*fleetkey.Signer) {
	t.Helper()
	for _, s := range fleet {
		require.NoError(t, s.Refresh(t.Context()))
	}
}

func TestFleetRevokes(t *testing.T) {
	onEachStore(t, 3, func(t *testing.T, _ func() fleetkey.KeyStore, fleet []*fleetkey.Signer) {
		stolen, kid := issue(t, fleet[0]), fleet[0].SigningKey().KeyID
		accepts(t, stolen, fleet...) // and now it is in every cache
		require.NoError(t, fleet[1].Revoke(t.Context(), kid))
		refresh(t, fleet...)
		refuses(t, fleetkey.ErrUnknownKey, stolen, fleet...)
		requireOneFleet(t, 1, fleet...)
	})
}

// An operator puts another bundle in place, and then garbage (F11, F15, A4, A10).
func TestFleetAdoptsAReplacedSecret(t *testing.T) {
	onEachStore(t, 3, func(t *testing.T, open func() fleetkey.KeyStore, fleet []*fleetkey.Signer) {
		operator, old := open(), issue(t, fleet[0])
		_, version, err := operator.Load(t.Context())
		require.NoError(t, err)
		version = mustSave(t, operator, foreignBundle(t, config()), version)

		newcomer := start(t, open(), config())
		accepts(t, issue(t, newcomer), fleet...) // the first token with the new key makes them look
		refresh(t, fleet...)
		requireOneFleet(t, 2, fleet...)
		accepts(t, old, fleet...) // as long as it lives

		mustSave(t, operator, []byte("garbage"), version)
		for _, s := range fleet {
			require.ErrorContains(t, s.Refresh(t.Context()), "is not a key bundle")
			accepts(t, issue(t, s), fleet...)
		}
		_, err = fleetkey.NewSigner(t.Context(), open(), config())
		require.ErrorContains(t, err, "is not a key bundle")
		bundle, _, err := open().Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, "garbage", string(bundle), "garbage is not overwritten")
	})
}

const awsARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"

func twoActions(resources ...string) *awsfake.Policy {
	return &awsfake.Policy{
		Actions:   []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret"},
		Resources: resources,
	}
}

// eachReading runs a test under both readings of a secret that does not exist.
func eachReading(t *testing.T, p *awsfake.Policy, test func(t *testing.T, fake *awsfake.Server)) {
	for name, bare := range map[string]bool{"made-up ARN": false, "bare name": true} {
		t.Run(name, func(t *testing.T) {
			fake, policy := awsfake.New(), *p
			policy.BareNames = bare
			fake.Enforce(&policy)
			test(t, fake)
		})
	}
}

// A7: a hundred instances under the literal two-action policy.
func TestHundredSignersOnAnAbsentSecret(t *testing.T) {
	eachReading(t, twoActions(awsARN+"indicium/openid-server-*"), func(t *testing.T, fake *awsfake.Server) {
		fleet := startAtOnce(t, 100, func(int) fleetkey.KeyStore { return openAWS(t, fake, awsName) })
		require.Equal(t, 1, fake.Versions(awsName), "one CreateSecret succeeded")
		tokens := map[string]string{}
		for _, s := range fleet {
			tokens[s.SigningKey().KeyID] = issue(t, s)
		}
		require.Len(t, tokens, 1, "one certificate")
		for _, token := range tokens {
			accepts(t, token, fleet...)
		}
		refresh(t, fleet...)
		require.Zero(t, fake.Calls("PutSecretValue"))
		require.Zero(t, fake.Calls("UpdateSecretVersionStage"))
		require.Zero(t, fake.Calls("DescribeSecret"))
	})
}

// A6: a policy whose pattern matches no bare name, judged by the bare name.
func TestSignerSaysWhichPolicyIsMissing(t *testing.T) {
	fake := awsfake.New()
	policy := twoActions(awsARN + awsName + "-??????")
	policy.BareNames = true
	fake.Enforce(policy)
	_, err := fleetkey.NewSigner(t.Context(), openAWS(t, fake, awsName), config())
	require.ErrorIs(t, err, fleetkey.ErrAccessDenied)
	for _, text := range []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret", "secret:" + awsName + "*"} {
		require.ErrorContains(t, err, text)
	}
}

// The rows of the fault matrix that a running Signer has to outlive.
func TestSignerOnAWSGoesOn(t *testing.T) {
	for name, fault := range map[string]awsfake.Fault{
		"A1 throttled":           awsfake.Throttle(0),
		"A2 HTML with 503":       {Status: http.StatusServiceUnavailable, Body: "<html>"},
		"A3 no answer":           {Hang: true},
		"A4 garbage":             {Body: `{"SecretString":"{}","VersionId":"other"}`},
		"A5 expired credentials": awsfake.Expired(),
		"A6 KMS denied":          awsfake.KMSDenied("GetSecretValue"),
		"A8 deleted":             {Error: &awsfake.Error{Code: "ResourceNotFoundException", Message: "Secrets Manager can't find the specified secret."}},
		"A9 to be deleted":       {Error: &awsfake.Error{Code: "InvalidRequestException", Message: "You can't perform this operation on the secret because it was marked for deletion."}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := awsfake.New()
				s := start(t, openAWS(t, fake, awsName), config())
				token := issue(t, s)
				fake.Inject(fault)
				require.Error(t, s.Refresh(t.Context()))
				time.Sleep(30 * time.Minute)
				now := time.Now()
				accepts(t, token, s)
				accepts(t, issue(t, s), s)
				require.Equal(t, now, time.Now(), "without waiting")
				require.Error(t, s.Status().LoadErr)
				require.Equal(t, 1, fake.Calls("CreateSecret"), "no fresh keys")
				fake.Heal()
				time.Sleep(6 * time.Minute)
				require.NoError(t, s.Status().LoadErr)
			})
		})
	}
}

// A9 at the start, A13 and A14: what a first start meets.
func TestSignerOnAWSStarts(t *testing.T) {
	inSynctest := func(name string, test func(t *testing.T, fake *awsfake.Server)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, awsfake.New()) })
		})
	}
	inSynctest("A9 scheduled for deletion", func(t *testing.T, fake *awsfake.Server) {
		start(t, openAWS(t, fake, awsName), config())
		_, err := fake.Client().DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: aws.String(awsName)})
		require.NoError(t, err)
		_, err = fleetkey.NewSigner(t.Context(), openAWS(t, fake, awsName), config())
		require.ErrorIs(t, err, fleetkey.ErrDeletionPending)
		require.ErrorContains(t, err, "aws secretsmanager restore-secret")
		require.Equal(t, 1, fake.Calls("CreateSecret"), "no create loop")
	})
	inSynctest("A13 the reply to the create is lost", func(t *testing.T, fake *awsfake.Server) {
		fake.Inject(awsfake.Fault{Action: "CreateSecret", Times: 3, Lost: true})
		s := start(t, openAWS(t, fake, awsName), config())
		requireOneFleet(t, 1, s, start(t, openAWS(t, fake, awsName), config()))
	})
	inSynctest("A14 five seconds behind", func(t *testing.T, fake *awsfake.Server) {
		fake.Lag(5 * time.Second)
		requireOneFleet(t, 1, startAtOnce(t, 20, func(int) fleetkey.KeyStore { return openAWS(t, fake, awsName) })...)
		require.Equal(t, 1, fake.Versions(awsName))
	})
	inSynctest("A16 down at the start", func(t *testing.T, fake *awsfake.Server) {
		fake.Inject(awsfake.Fault{Status: 503, Times: 30})
		requireOneFleet(t, 1, start(t, openAWS(t, fake, awsName), config()))
		fake.Inject(awsfake.Fault{Status: 503})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := fleetkey.NewSigner(ctx, openAWS(t, fake, awsName), config())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "503")
	})
	inSynctest("an empty container, as Terraform makes one", func(t *testing.T, fake *awsfake.Server) {
		_, err := fake.Client().CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(awsName)})
		require.NoError(t, err)
		_, err = fleetkey.NewSigner(t.Context(), openAWS(t, fake, awsName), config())
		require.ErrorContains(t, err, "the secret exists but has no value")
	})
}

// A15: however long a fleet that may put but not promote tries to rotate, it
// stays below AWS's quota of about 100 versions in a day.
func TestRotationStaysBelowTheQuotaOfVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awsfake.New()
		cfg := rotating()
		cfg.Rotation.Every = day
		for range 10 {
			start(t, openAWS(t, fake, awsName), cfg)
		}
		policy := twoActions(awsARN + "*")
		policy.Actions = append(policy.Actions, "secretsmanager:PutSecretValue")
		fake.Enforce(policy)
		time.Sleep(day)
		require.Greater(t, fake.Calls("PutSecretValue"), 1)
		require.Less(t, fake.Versions(awsName), 100)
	})
}
