package fleetkey_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	api, otherAPI = jwstest.API, jwstest.OtherAPI
	skew          = time.Minute
	longest       = time.Hour
)

// noon is the time on every clock of these tests.
var noon = jwstest.Noon

var payload, unix = jwstest.Payload, jwstest.Unix

// A party is a signer together with its private key, so that a test can sign tokens that the
// signer would not.
type party struct {
	*fleetkey.Signer
	jwstest.Forger
	store *fleetkeytest.Store
}

func testConfig(change ...func(*fleetkey.Config)) fleetkey.Config {
	cfg := testkit.Config()
	cfg.Audience = []string{api, otherAPI}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func newParty(t testing.TB, alg string, change ...func(*fleetkey.Config)) *party {
	t.Helper()
	change = append(change, func(c *fleetkey.Config) { c.Algorithm = alg })
	return openParty(t, fleetkeytest.NewStore(), testConfig(change...))
}

// openParty starts a signer on a store.
func openParty(t testing.TB, store *fleetkeytest.Store, cfg fleetkey.Config) *party {
	t.Helper()
	return openPartyBy(t, func() time.Time { return noon }, store, cfg)
}

func openPartyBy(t testing.TB, now func() time.Time, store *fleetkeytest.Store, cfg fleetkey.Config) *party {
	t.Helper()
	s, err := fleetkey.NewSigner(testkit.By(now), store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	k := s.SigningKey()
	return &party{s, jwstest.Forger{Private: k.Signer, Alg: k.Algorithm, KID: k.KeyID}, store}
}

// good returns a token that p.Verify has accepted once, so it is cached.
func (p *party) good() string {
	token := p.Forge(p.Header(), payload())
	if _, err := p.Verify(context.Background(), token); err != nil {
		panic(err)
	}
	return token
}

// fixedParty returns a party with the same key in every process, so that a token found by one
// fuzz worker has a valid signature for all.
func fixedParty(t testing.TB) *party {
	t.Helper()
	bundle, err := os.ReadFile("fleetkeytest/testdata/ES256.pem")
	require.NoError(t, err)
	store := fleetkeytest.NewStore()
	store.Set(bundle)
	return openParty(t, store, testConfig())
}

// inside decodes a segment of a token: 0 is the header, 1 the payload.
func inside(t *testing.T, token string, n int) (members map[string]any) {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[n])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &members))
	return members
}
