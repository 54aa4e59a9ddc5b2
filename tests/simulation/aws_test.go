package simulation

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const secretName = "indicium/openid-server-production"

// chaotic returns a small fleet on AWS, under a policy that people use.
func chaotic(seed uint64) *scenario {
	sc := &scenario{
		onAWS: true, seed: seed, instances: 3, externals: 3, span: testkit.Long(2*day, 20*day), clocks: time.Minute,
		policy: policyOf(6*time.Hour, 2*time.Hour, 2*time.Hour), tokenEvery: 5 * time.Minute, burst: 10,
		restartEvery: 2 * time.Hour, sleepEvery: 12 * time.Hour,
		// AWS allows 100 versions a day. The long form would reach that on a busy day.
		rotateEvery: testkit.Long(time.Hour, 2*time.Hour), revokeEvery: testkit.Long(time.Hour, 2*time.Hour),
	}
	sc.policy.ClockSkew, sc.policy.RefreshEvery, sc.policy.JWKSMaxAge = time.Minute, 5*time.Minute, 15*time.Minute
	return sc
}

// The same fleet on awsfake, while every kind of fault that a network or an overloaded
// service causes happens at random. Each error names the secret and its cause. After the
// faults all have the same keys within a refresh.
func TestChaos_A1toA6_A13_A16(t *testing.T) {
	for seed := range testkit.Long[uint64](1, 40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := chaotic(seed).run(t)
				t.Log(m.row(), m.done, m.beyond)
				assert.Empty(t, m.faults)
				assert.Empty(t, m.wrong)
				assert.Equal(t, 1, m.firsts, "first keys")
				for _, kind := range awsfake.Kinds() {
					assert.NotZero(t, m.f.aws.fake.Calls(kind), kind)
				}
				for _, act := range []string{"rotate", "revoke"} {
					assert.NotZero(t, m.done[act], act)
				}
				assert.Greater(t, m.checks, 2*m.tokens)
			})
		})
	}
}

// An aws is the store of a fleet. It tells the model what becomes current.
type aws struct {
	f      *fleet
	fake   *awsfake.Server
	stored map[fleetkey.Version]string
	now    fleetkey.Version
}

func newAWS(f *fleet) *aws {
	a := &aws{f: f, fake: awsfake.New(), stored: map[fleetkey.Version]string{}}
	a.fake.Watch(a.served)
	a.weather()
	return a
}

// open opens the secret as a separate process does.
func (a *aws) open(t *testing.T) *fleetkey.AWSStore {
	s, err := fleetkey.NewAWSStore(t.Context(), secretName, func(o *fleetkey.AWSOptions) {
		o.Timeout = 10 * time.Second
		o.Client = a.fake.Client(func(o *secretsmanager.Options) {
			o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = 20 * time.Second })
		})
	})
	require.NoError(t, err)
	return s
}

// weather changes what calls meet: some kinds of fault, rarely or often, or for a while no
// call succeeds at all.
func (a *aws) weather() {
	rng, kinds := a.f.rng, awsfake.Kinds()
	rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	probability := []float64{0, 0.1, 0.3, 0.6, 1}[rng.IntN(5)]
	a.fake.Random(rng.Uint64(), probability, 5*time.Second, kinds[:1+rng.IntN(6)]...)
	a.f.after(a.f.upTo(20*time.Minute), a.weather)
}

// served follows the secret by what the server has granted.
func (a *aws) served(action string, request, reply []byte) {
	var in struct {
		SecretString, VersionStage, MoveToVersionId, RemoveFromVersionId string
		VersionStages                                                    []string
	}
	var out struct{ VersionId fleetkey.Version }
	if err := errors.Join(json.Unmarshal(request, &in), json.Unmarshal(reply, &out)); err != nil {
		a.f.model.fault("%s: %v", action, err)
		return
	}
	before := a.now
	switch action {
	case "CreateSecret":
		a.now, a.stored[out.VersionId] = out.VersionId, in.SecretString
	case "PutSecretValue":
		a.stored[out.VersionId] = in.SecretString
		if len(in.VersionStages) == 0 || slices.Contains(in.VersionStages, "AWSCURRENT") {
			a.now = out.VersionId
			a.f.model.fault("PutSecretValue made a version current without a comparison")
		}
	case "UpdateSecretVersionStage":
		if a.now = fleetkey.Version(in.MoveToVersionId); in.VersionStage != "AWSCURRENT" || in.RemoveFromVersionId != string(before) {
			a.f.model.fault("%s moved from %s, which was not current", in.VersionStage, in.RemoveFromVersionId)
		}
	}
	if a.now != before {
		a.f.model.observe(func() ([]byte, fleetkey.Version) { return []byte(a.stored[a.now]), a.now })
	}
}

// told notes how an act on the store went. Its error has to name the secret and the cause.
func (m *model) told(act string, err error) {
	if err == nil {
		m.count(m.done, act)
	}
	if err == nil || m.f.aws == nil || errors.Is(err, fleetkey.ErrUnknownKey) || errors.Is(err, fleetkey.ErrClosed) {
		return
	}
	caused := func(cause string) bool { return strings.Contains(err.Error(), cause) }
	if !caused("AWS secret " + secretName + " in ") {
		m.fault("%s: the error does not name the secret: %v", act, err)
	}
	if !slices.ContainsFunc([]string{
		"throttles", "HTTP status 5", "no response within", "cannot be reached", "cut off", "does not come from Secrets Manager", "have expired",
		"rejects the credentials", "allow secretsmanager:", "KMS key", "another writer saved first", "other writers stored a version",
		"no key bundle exists",
	}, caused) {
		m.fault("%s: the error does not tell the cause: %v", act, err)
	}
}

// requireConverged heals the network and requires that within one refresh every instance
// has what is current, by itself and without an error.
func (f *fleet) requireConverged() {
	f.aws.fake.Heal()
	behind := func(in *instance) bool {
		s := in.signer.Load()
		now, _ := f.model.current()
		return s == nil || s.Status().LoadErr != nil || s.Status().Version != now
	}
	end := time.Now().Add(f.sc.policy.RefreshEvery + 20*time.Second)
	for slices.ContainsFunc(f.instances, behind) && time.Now().Before(end) {
		time.Sleep(3 * time.Second)
	}
	for _, in := range f.instances {
		require.False(f.t, behind(in), "after the faults the instances do not come to the same keys")
		kids := map[string]bool{}
		for _, k := range in.signer.Load().Status().Keys {
			kids[k.KeyID] = k.Role != fleetkey.RoleRevoked
		}
		_, keys := f.model.current()
		for _, k := range keys {
			assert.True(f.t, kids[k.ID], "the key %s is missing", k.ID)
		}
	}
}
