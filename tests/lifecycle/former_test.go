package lifecycle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// The certificate of another system, whose tokens stay good during a move.
func TestTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testkit.Lazily(testkit.Config())
		cfg.FormerIssuers = []string{"http://adfs.example/adfs/services/trust"}
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, cfg)
		other := testkit.Start(t, fleetkeytest.NewStore(), testkit.Config()).SigningKey()
		require.NoError(t, s.Trust(t.Context(), other.Certificate, ""))
		require.NoError(t, s.Trust(t.Context(), other.Certificate, ""), "twice")
		again := testkit.Start(t, store.Open(), cfg)

		thumb := sha1.Sum(other.Certificate.Raw)
		kids := map[string]string{
			"RFC 7638":             other.KeyID,
			"x5t":                  base64.RawURLEncoding.EncodeToString(thumb[:]),
			"hex":                  strings.ToUpper(hex.EncodeToString(thumb[:])),
			"hex with algorithm":   strings.ToUpper(hex.EncodeToString(thumb[:])) + "ES256",
			"hex in lower letters": hex.EncodeToString(thumb[:]),
		}
		for name, kid := range kids {
			claims := jwt.MapClaims{"iss": cfg.FormerIssuers[0], "aud": testkit.Issuer, "exp": time.Now().Add(8 * time.Hour).Unix(), "scope": []string{"a", "b"}}
			token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
			token.Header["kid"], token.Header["x5t"] = kid, kids["x5t"]
			signed, err := token.SignedString(other.Signer)
			require.NoError(t, err)
			testkit.Accepts(t, signed, s, again)
			got, err := s.Verify(t.Context(), signed)
			require.NoError(t, err)
			require.True(t, got.HasScope("b"))
			require.Contains(t, testkit.PublishedKeyIDs(t, again), kid, name)
		}
		require.Equal(t, other.KeyID, testkit.KeyID(issueWith(t, other)))
		require.NotEqual(t, other.KeyID, s.SigningKey().KeyID, "it never signs")
		time.Sleep(2 * 365 * testkit.Day)
		testkit.Accepts(t, issueWith(t, other), s)
		require.NoError(t, s.Revoke(t.Context(), other.KeyID))
		require.NoError(t, again.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, issueWith(t, other), s, again)
	})
}

// issueWith signs an access token as another system would.
func issueWith(t *testing.T, k fleetkey.SigningKey) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": testkit.Issuer, "aud": testkit.Issuer, "sub": "alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	token.Header["kid"], token.Header["typ"] = k.KeyID, "at+jwt"
	signed, err := token.SignedString(k.Signer)
	require.NoError(t, err)
	return signed
}

func TestTrustUnderAGivenKeyID(t *testing.T) {
	store := fleetkeytest.NewStore()
	s := testkit.Start(t, store, testkit.Config())
	other := testkit.Start(t, fleetkeytest.NewStore(), testkit.Config()).SigningKey()
	require.NoError(t, s.Trust(t.Context(), other.Certificate, "key-2019/a"))
	again := testkit.Start(t, store.Open(), testkit.Config())
	other.KeyID = "key-2019/a"
	testkit.Accepts(t, issueWith(t, other), s, again)
	require.Contains(t, testkit.PublishedKeyIDs(t, again), "key-2019/a")
	bundle, _ := store.Content()
	require.Contains(t, string(bundle), "Kid: key-2019/a")
	require.Error(t, s.Trust(t.Context(), other.Certificate, "a\nb"))
}

func certificate(t *testing.T, subject, issuer string) *x509.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	name := func(cn string) pkix.Name { return pkix.Name{CommonName: cn} }
	child := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name(subject),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
	parent := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: name(testkit.Issuer)}
	signer := private
	if subject == testkit.Issuer {
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // self-issued, not self-signed
		require.NoError(t, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, child, parent, private.Public(), signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// Trust saves bundles that nobody can read.
func TestTrustSavesWhatNobodyCanRead(t *testing.T) {
	for name, names := range map[string][][2]string{
		"an authority beside its leaf":    {{"leaf", "Corp CA"}, {"Corp CA", "Root"}},
		"self-issued but not self-signed": {{"rollover", "rollover"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				s := testkit.Start(t, store, testkit.Config())
				for _, n := range names {
					if err := s.Trust(t.Context(), certificate(t, n[0], n[1]), ""); err != nil {
						return // refused: right
					}
				}
				_, err := fleetkey.NewSigner(t.Context(), store.Open(), testkit.Config())
				require.NoError(t, err, "no instance can start any more")
			})
		})
	}
}

// The other system renews its certificate for the same key.
func TestTrustARenewedCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		other := testkit.Start(t, fleetkeytest.NewStore(), testkit.Config()).SigningKey()
		another := testkit.Start(t, fleetkeytest.NewStore(), testkit.Config()).SigningKey()
		require.NoError(t, s.Trust(t.Context(), other.Certificate, "idp"))
		if err := s.Trust(t.Context(), another.Certificate, "idp"); err == nil {
			claims := jwt.MapClaims{"iss": testkit.Issuer, "aud": testkit.Issuer, "exp": time.Now().Add(time.Hour).Unix()}
			token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
			token.Header["kid"] = "idp"
			signed, err := token.SignedString(another.Signer)
			require.NoError(t, err)
			testkit.Accepts(t, signed, s) // Trust said that it would be
		}
	})
}

// Audience is copied, FormerIssuers is not.
func TestFormerIssuersAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testkit.Config()
		cfg.FormerIssuers = []string{"https://old.example"}
		s := testkit.Start(t, fleetkeytest.NewStore(), cfg)
		other := testkit.Start(t, fleetkeytest.NewStore(), testkit.Config()).SigningKey()
		require.NoError(t, s.Trust(t.Context(), other.Certificate, ""))
		cfg.FormerIssuers[0] = "https://evil.example"
		token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": "https://evil.example", "aud": testkit.Issuer, "exp": time.Now().Add(time.Hour).Unix()})
		token.Header["kid"] = other.KeyID
		signed, err := token.SignedString(other.Signer)
		require.NoError(t, err)
		testkit.Refuses(t, fleetkey.ErrWrongIssuer, signed, s)
	})
}

func TestOddKid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		again := testkit.Start(t, store.Open(), testkit.Config())
		other := testkit.Start(t, fleetkeytest.NewStore(), testkit.Config()).SigningKey()
		const kid = "//a b?#%2F/:@<&>'"
		require.NoError(t, s.Trust(t.Context(), other.Certificate, kid))
		require.NoError(t, again.Refresh(t.Context()))
		require.NoError(t, s.Revoke(t.Context(), kid))
		require.NoError(t, again.Refresh(t.Context()))
		require.ErrorIs(t, again.Trust(t.Context(), other.Certificate, kid), fleetkey.ErrUnknownKey)
	})
}
