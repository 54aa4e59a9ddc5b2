package aws

import (
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/moto"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// stores open the same absent bundle with each call, as another instance would.
var stores = map[string]func(t *testing.T) (open func() fleetkey.KeyStore){
	"memory": func(*testing.T) func() fleetkey.KeyStore {
		s := fleetkeytest.NewStore()
		return func() fleetkey.KeyStore { return s.Open() }
	},
	"file": func(t *testing.T) func() fleetkey.KeyStore {
		path := filepath.Join(t.TempDir(), "keys", "keys.pem")
		return func() fleetkey.KeyStore { return fleetkey.NewFileStore(path) }
	},
	"awsfake":    func(t *testing.T) func() fleetkey.KeyStore { return opens(t, awsfake.New().Client(), freshName()) },
	"moto":       func(t *testing.T) func() fleetkey.KeyStore { return opens(t, moto.Client(t), freshName()) },
	"LocalStack": func(t *testing.T) func() fleetkey.KeyStore { return opens(t, moto.LocalStack(t), freshName()) },
}

// startAtOnce starts n signers at the same moment.
func startAtOnce(t *testing.T, n int, open func() fleetkey.KeyStore) []*fleetkey.Signer {
	t.Helper()
	fleet := make([]*fleetkey.Signer, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, err := fleetkey.NewSigner(t.Context(), open(), testkit.Config())
			if assert.NoError(t, err) {
				fleet[i] = s
			}
		})
	}
	wg.Wait()
	for _, s := range fleet {
		require.NotNil(t, s)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
	}
	return fleet
}

func refresh(t *testing.T, fleet []*fleetkey.Signer) {
	t.Helper()
	for _, s := range fleet {
		require.NoError(t, s.Refresh(t.Context()))
	}
}

// requireOneFleet requires that all signers trust the same keys and accept each other's tokens.
func requireOneFleet(t *testing.T, keys int, fleet ...*fleetkey.Signer) {
	t.Helper()
	for _, s := range fleet {
		require.Equal(t, fleet[0].PublicKeys(), s.PublicKeys())
		require.Len(t, s.PublicKeys(), keys)
		testkit.Accepts(t, testkit.Issue(t, s), fleet...)
	}
}

// TestFleet runs a fleet through its life on each store (rows A4, A10, A12, F10, F11, F15 and W5).
func TestFleet(t *testing.T) {
	for name, cell := range stores {
		t.Run(name, func(t *testing.T) {
			open := cell(t)
			fleet := startAtOnce(t, 16, open)
			requireOneFleet(t, 1, fleet...)

			var wg sync.WaitGroup
			for _, s := range fleet {
				wg.Go(func() { assert.NoError(t, s.Rotate(t.Context())) })
			}
			wg.Wait()
			refresh(t, fleet)
			requireOneFleet(t, 2, fleet...)

			replace(t, open, fleet)
		})
	}
}

// replace simulates an operator who stores the keys of another fleet, revokes one of them,
// and then stores garbage.
func replace(t *testing.T, open func() fleetkey.KeyStore, fleet []*fleetkey.Signer) {
	t.Helper()
	old, operator := testkit.Issue(t, fleet[0]), open()
	put := func(bundle []byte) {
		_, version, err := operator.Load(t.Context())
		require.NoError(t, err)
		_, err = operator.Save(t.Context(), bundle, version)
		require.NoError(t, err)
	}
	var log testkit.LogBuffer
	cfg := testkit.Config()
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	watched := testkit.Start(t, open(), cfg)
	put(testkit.ForeignBundle(t, testkit.Config()))
	require.NoError(t, watched.Refresh(t.Context()))
	require.Regexp(t, "keys disappeared from the store.*"+fleet[0].SigningKey().KeyID, log.String())
	newcomer := testkit.Start(t, open(), testkit.Config())
	stolen, kid := testkit.Issue(t, newcomer), newcomer.SigningKey().KeyID
	testkit.Accepts(t, stolen, fleet...) // the first token of the new key makes them reload
	requireOneFleet(t, 2, fleet...)

	require.NoError(t, fleet[1].Revoke(t.Context(), kid))
	fleet = append(fleet, newcomer)
	refresh(t, fleet)
	testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, fleet...)
	testkit.Accepts(t, old, fleet[0]) // until it expires

	put([]byte("garbage"))
	for _, s := range fleet {
		for _, err := range []error{s.Refresh(t.Context()), s.Rotate(t.Context()), s.Revoke(t.Context(), s.SigningKey().KeyID), s.Status().LoadErr} {
			require.Regexp(t, "version .* in .* is not a key bundle: .* no PEM block", err)
		}
		testkit.Accepts(t, testkit.Issue(t, s), fleet...)
	}
	_, err := fleetkey.NewSigner(t.Context(), open(), testkit.Config())
	require.ErrorContains(t, err, "is not a key bundle")
	bundle, _, err := open().Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "garbage", string(bundle), "garbage is not overwritten")
}

// A7, A14: a hundred instances start under the documented policy, while reads lag. If bare,
// AWS matches the policy against the name of a secret that does not exist yet.
func TestHundredSignersOnAnAbsentSecret(t *testing.T) {
	for name, bare := range map[string]bool{"made-up ARN": false, "bare name": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := awsfake.New()
				fake.Lag(5 * time.Second)
				fake.Enforce(&awsfake.Policy{Actions: []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret"},
					Resources: []string{"arn:aws:secretsmanager:eu-west-1:123456789012:secret:indicium/openid-server-*"}, BareNames: bare})
				fleet := startAtOnce(t, 100, opens(t, fake.Client(), awsName))
				require.Equal(t, 1, fake.Versions(awsName), "one CreateSecret succeeded")
				for _, s := range fleet {
					require.Equal(t, fleet[0].PublicKeys(), s.PublicKeys())
				}
				testkit.Accepts(t, testkit.Issue(t, fleet[0]), fleet...)
				refresh(t, fleet)
				for _, action := range []string{"PutSecretValue", "UpdateSecretVersionStage", "DescribeSecret"} {
					require.Zero(t, fake.Calls(action), action)
				}
			})
		})
	}
}

// W9: an outage of 24 hours logs its start, a reminder at most once an hour, and its end.
func TestSignerOnAWS_W9_OutageOfADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awsfake.New()
		var log testkit.LogBuffer
		cfg := testkit.Config()
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := testkit.Start(t, open(t, fake.Client(), awsName), cfg)
		fake.Inject(awsfake.Fault{Status: http.StatusServiceUnavailable})
		time.Sleep(6 * time.Minute)
		require.Error(t, s.Refresh(t.Context()))
		require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), "the change of state")
		time.Sleep(testkit.Day)
		fake.Heal()
		time.Sleep(6 * time.Minute)
		require.LessOrEqual(t, strings.Count(log.String(), "level=ERROR"), 1+24)
		require.GreaterOrEqual(t, strings.Count(log.String(), "level=ERROR"), 1+20)
		require.NotContains(t, log.String(), `hint=""`)
		require.Equal(t, 1, strings.Count(log.String(), "refreshed the signing keys after earlier failures"))
	})
}
