package promises

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// Keys of other systems, and those that an instance had before it shared a store.

// withFormer returns a configuration with keys of other systems.
func withFormer(formers ...fleetkey.Former) fleetkey.Config {
	cfg := testkit.Config()
	cfg.Former = formers
	return cfg
}

// K7: an expired certificate and its renewal have the same key, and tokens name either.
func TestK7_FormerCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, now := testkit.NewKey("ES256"), time.Now()
		expired, renewed := testkit.Certificate(old, now.AddDate(-2, 0, 0), now.Add(-time.Hour)), testkit.Certificate(old, now, now.AddDate(1, 0, 0))
		s := testkit.Start(t, fleetkeytest.NewStore(), withFormer(
			fleetkey.Former{Certificate: expired, Until: now.Add(48 * time.Hour)}, fleetkey.Former{Certificate: renewed}))
		published := testkit.PublishedKeyIDs(t, s)
		for _, kid := range append(namesOf(expired), namesOf(renewed)...) {
			forged := testkit.Forge(old, kid, "JWT", now, "iat", nil, "sub", nil, "scp", []string{"read", "write"}, "exp", now.Add(8*time.Hour).Unix())
			token, err := s.Verify(t.Context(), forged)
			require.NoError(t, err, kid)
			require.Equal(t, "read write", token.Scope(), "T5")
			require.Contains(t, published, kid)
		}
		time.Sleep(49 * time.Hour)
		testkit.Refuses(t, fleetkey.ErrUnknownKey, testkit.Forge(old, testkit.X5T(expired), "JWT", time.Now()), s)
		testkit.Accepts(t, testkit.Forge(old, testkit.X5T(renewed), "JWT", time.Now()), s)
	})
}

// P1: a key of another issuer serves only that, also for code that cannot check the issuer
// itself; and a former key that is also the fleet's keeps its rules to its own names.
func TestFormerRules(t *testing.T) {
	old, mine := testkit.NewKey("ES256"), newPair("ES256", time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	store, cert := fleetkeytest.NewStore(), testkit.Certificate(mine.Private, time.Now(), time.Now().AddDate(1, 0, 0))
	store.Set([]byte(mine.Text))
	s := testkit.Start(t, store, withFormer(fleetkey.Former{Key: old.Public(), KeyID: "2019", Issuer: oldIssuer}, fleetkey.Former{Certificate: cert}))
	ours, theirs := testkit.Forge(old, "2019", "JWT", time.Now()), testkit.Forge(old, "2019", "JWT", time.Now(), "iss", oldIssuer)
	testkit.Accepts(t, theirs, s)
	testkit.Refuses(t, fleetkey.ErrWrongIssuer, ours, s)
	_, err := jwt.Parse(theirs, s.Keyfunc)
	require.NoError(t, err)
	_, err = jwt.Parse(ours, s.Keyfunc, jwt.WithIssuer(testkit.Issuer))
	require.ErrorIs(t, err, fleetkey.ErrWrongIssuer)
	for _, k := range s.PublicKeys() {
		require.NotEqual(t, "2019", k.KeyID)
	}
	testkit.Accepts(t, testkit.Forge(mine.Private, testkit.X5T(cert), "JWT", time.Now()), s)
	testkit.Refuses(t, fleetkey.ErrWrongType, testkit.Forge(mine.Private, mine.ID, "JWT", time.Now()), s)
	id, err := s.Sign(t.Context(), "JWT", map[string]any{"sub": "alice", "aud": testkit.Issuer})
	require.NoError(t, err)
	testkit.Refuses(t, fleetkey.ErrWrongType, id, s)
}

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
		store := fleetkeytest.NewStore()
		_, err := fleetkey.NewSigner(t.Context(), store, withFormer(given...))
		assert.ErrorContains(t, err, want)
		assert.Zero(t, store.Saves(), want)
	}
}

func adopting(old fleetkey.KeyStore) fleetkey.Config {
	cfg := testkit.Config()
	cfg.Adopt = old
	return cfg
}

// K1, K2: 64 servers, each with keys in a file, move to one store at once, in which they may
// only create (80 ms a call). One CreateSecret is the only write; each still accepts its
// own old tokens, restarts included, and all sign with one key.
func TestK1_K2_AllAdoptAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 64
		shared := fleetkeytest.NewStore()
		slow := func() *fleetkeytest.Store {
			view := shared.Open()
			view.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Delay: 80 * time.Millisecond} })
			return view
		}
		files, tokens, fleet := make([]*fleetkeytest.Store, n), make([]string, n), make([]*fleetkey.Signer, n)
		for i := range n {
			files[i] = fleetkeytest.NewStore()
			s := testkit.Start(t, files[i], testkit.Config())
			tokens[i] = testkit.Issue(t, s)
			require.NoError(t, s.Close())
		}
		var starting sync.WaitGroup
		for i := range n {
			starting.Go(func() { fleet[i] = testkit.Start(t, slow(), adopting(files[i])) })
		}
		starting.Wait()
		_, created := shared.Content()
		for i, s := range fleet {
			require.NoError(t, s.Refresh(t.Context()))
			testkit.Accepts(t, tokens[i], s)
			testkit.Accepts(t, testkit.Issue(t, s), fleet...)
			require.Equal(t, []string{fleet[0].SigningKey().KeyID}, testkit.PublishedKeyIDs(t, s))
		}
		time.Sleep(30 * time.Minute)
		again := testkit.Start(t, slow(), adopting(files[1]))
		testkit.Accepts(t, tokens[1], again)
		_, version := shared.Content()
		require.Equal(t, created, version, "nothing was merged into the store")
		time.Sleep(40 * time.Minute)
		fleet[1] = testkit.Start(t, slow(), adopting(files[1])) // which renews nothing
		for i, s := range fleet {
			if kid := testkit.KeyID(tokens[i]); s.SigningKey().KeyID != kid {
				testkit.Refuses(t, fleetkey.ErrUnknownKey, signedBy(files[i], kid), s)
			}
		}
	})
}

type named struct {
	*fleetkeytest.Store
	name string
}

func (n named) String() string { return n.name }

// The note in the old store is about one store: a trial in one place must not stop the move
// to the real one. A path or a secret's name may hold five dashes and line breaks. What is
// no bundle is not adopted, and the own store's keys stay.
func TestAdoptionNote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
