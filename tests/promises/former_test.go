package promises

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// Keys of other systems, and those that an instance had before it shared a store.

func TestFormerRefusals(t *testing.T) {
	type formers = []fleetkey.Former
	one, other := testkit.NewKey("ES256"), testkit.NewKey("ES256")
	issue := func(private crypto.Signer) fleetkey.Former {
		return fleetkey.Former{Certificate: testkit.Certificate(private, time.Now(), time.Now().AddDate(1, 0, 0))}
	}
	good := issue(one)
	elsewhere, both := good, good
	elsewhere.Issuer, both.Key = oldIssuer, one.Public()
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // to be refused
	require.NoError(t, err)
	many := make(formers, 60)
	for i := range many {
		many[i] = issue(testkit.NewKey("ES256"))
	}
	for want, given := range map[string]formers{
		"Config.Former[0]: neither Certificate nor Key":                {{}},
		"both Certificate and Key":                                     {both},
		"Config.Former[1]: a Key without a Certificate requires KeyID": {good, {Key: one.Public()}},
		"the kid (3 bytes)":                                            {{Key: one.Public(), KeyID: "a\nb"}},
		"1024 bits":                                                    {{Key: &weak.PublicKey, KeyID: "x"}},
		"not supported":                                                {{Key: "text", KeyID: "x"}},
		`two keys have the kid "x"`:                                    {{Key: one.Public(), KeyID: "x"}, {Key: other.Public(), KeyID: "x"}},
		"two issuers":                                                  {good, elsewhere},
		"not a valid key":                                              {{Key: (*rsa.PublicKey)(nil), KeyID: "x"}},
		"*ecdsa.PublicKey is not a valid key":                          {{Key: &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}, KeyID: "x"}}, //nolint:staticcheck // no other way to an invalid one
		"of the JWKS; at most":                                         many,
	} {
		store, cfg := fleetkeytest.NewStore(), testkit.Config()
		cfg.Former = given
		_, err := fleetkey.NewSigner(t.Context(), store, cfg)
		assert.ErrorContains(t, err, want)
		assert.Zero(t, store.Saves(), want)
	}
}

// Trust in a former key ends with its certificate, and in an adopted one with its tokens.
func TestTrustFromElsewhereEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, shared, cfg := fleetkeytest.NewStore(), fleetkeytest.NewStore(), testkit.Config()
		testkit.Start(t, shared, testkit.Config())
		testkit.Start(t, file, testkit.Config())
		former, now := testkit.NewKey("ES256"), time.Now()
		cfg.Adopt, cfg.Former = file, []fleetkey.Former{{Certificate: testkit.Certificate(former, now, now.Add(day))}}
		s, ends := testkit.Start(t, shared.Open(), cfg), []time.Duration{}
		for _, k := range s.Status().Keys {
			if k.Role == fleetkey.RoleFormer {
				ends = append(ends, k.TrustedUntil.Sub(now))
			}
		}
		require.ElementsMatch(t, []time.Duration{day, time.Hour + 2*time.Minute}, ends)
		kid := testkit.Thumbprint(former.Public())
		time.Sleep(day - time.Minute)
		testkit.Accepts(t, testkit.Forge(former, kid, "JWT", time.Now()), s)
		time.Sleep(time.Minute)
		testkit.Refuses(t, fleetkey.ErrUnknownKey, testkit.Forge(former, kid, "JWT", time.Now()), s)
	})
}

type named struct {
	*fleetkeytest.Store
	name string
}

func (n named) String() string { return n.name }

// The note in the old store is about one shared store: a trial elsewhere must not prevent the
// move to the real one. A path or secret name can contain five dashes and line breaks.
// Garbage is not adopted, and adopting from its own store changes no key.
func TestAdoptionNote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		adopting := func(old fleetkey.KeyStore) fleetkey.Config {
			cfg := testkit.Config()
			cfg.Adopt = old
			return cfg
		}
		file, shared := fleetkeytest.NewStore(), named{fleetkeytest.NewStore(), "secret production"}
		old := testkit.Start(t, file, testkit.Config())
		token := testkit.Issue(t, old)
		testkit.Start(t, named{fleetkeytest.NewStore(), "file /srv/a-----b\n-----BEGIN X-----/keys.pem"}, adopting(file))
		testkit.Start(t, file.Open(), testkit.Config()) // the old store can still be read
		s := testkit.Start(t, shared, adopting(file))
		testkit.Accepts(t, token, s)
		require.Equal(t, old.SigningKey().KeyID, s.SigningKey().KeyID)
		noted, _ := file.Content()
		require.Contains(t, string(noted), "Adopted by secret production at 2000-01-01T")

		same := testkit.Start(t, file.Open(), adopting(file.Open()))
		testkit.Accepts(t, testkit.Issue(t, same), s)
		file.Set([]byte("garbage"))
		_, err := fleetkey.NewSigner(t.Context(), fleetkeytest.NewStore(), adopting(file))
		require.ErrorContains(t, err, "adopt from")
	})
}
