package lifecycle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file holds small cases that once broke a promise about keys, by their numbers.

// K3: a former key that was revoked stays so under every name, after a restart with another
// configuration, and when it is imported.
func TestK3_K4_RevokedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newSystem(t)
		cert := old.certificate(t, time.Now().AddDate(10, 0, 0))
		store := fleetkeytest.NewStore()
		cfg := former(fleetkey.Former{Certificate: cert, KeyID: "stolen"})
		cfg.Rotation.Every = 30 * testkit.Day
		s := testkit.Start(t, store, testkit.Lazily(cfg))
		require.NoError(t, s.Revoke(t.Context(), "stolen"))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, old.token(t, "stolen", nil), s)
		time.Sleep(200 * testkit.Day) // many rotations later

		cfg.Former[0].KeyID = ""
		other := testkit.Start(t, store.Open(), cfg)
		testkit.Refuses(t, fleetkey.ErrUnknownKey, old.token(t, sha1Name(cert), nil), other)
		current, _ := store.Content()
		store.Set(append(bytes.Clone(current), testkit.Bundle(t, old.private, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))...))
		third := testkit.Start(t, store.Open(), testkit.Config())
		forged, err := testkit.Forge(old.private, testkit.Thumbprint(old.private.Public()), time.Now(), time.Now().Add(time.Minute))
		require.NoError(t, err)
		testkit.Refuses(t, fleetkey.ErrUnknownKey, forged, s, other, third)
		testkit.Accepts(t, testkit.Issue(t, third), third)
	})
}

// K5: a store that holds only the fleet's public certificate, as an export does, is refused.
func TestK5_OnlyACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		store.Set(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.SigningKey().Certificate.Raw}))
		require.ErrorContains(t, s.Refresh(t.Context()), "a certificate without its private key")
		testkit.Accepts(t, testkit.Issue(t, s), s)
		require.Error(t, s.Status().LoadErr)
		id, err := s.Sign(t.Context(), "JWT", map[string]any{"sub": "alice", "aud": testkit.Issuer})
		require.NoError(t, err)
		testkit.Refuses(t, fleetkey.ErrWrongType, id, s)
	})
}

// P3: a set that cannot sign is refused while this instance can; it counts as fresh, and its
// revocations hold. A set that stops the key in so many words is taken over.
func TestSetThatCannotSign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		kid, stranger := s.SigningKey().KeyID, newSystem(t)
		good, _ := store.Content()
		expired := testkit.Bundle(t, stranger.private, time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour))
		store.Set(expired)
		require.ErrorContains(t, s.Refresh(t.Context()), "holds no key that can sign")
		testkit.Accepts(t, testkit.Issue(t, s), s)
		require.WithinDuration(t, time.Now(), s.Status().LastLoad, time.Second, "it is fresh")

		revoked := revokedBlock(t, kid)
		store.Set(append(bytes.Clone(expired), revoked...))
		require.NoError(t, s.Refresh(t.Context()), "it names the signing key")
		_, err := s.Issue(t.Context(), fleetkey.Claims{ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrKeyExpired)
		store.Set(good)
		require.NoError(t, s.Refresh(t.Context()))
		_, err = s.Issue(t.Context(), fleetkey.Claims{ClientID: "web"})
		require.ErrorIs(t, err, fleetkey.ErrNoSigningKey, "it was revoked, and the rollback does not bring it back")
	})
}

// P3: a set in which the signing key has a certificate that has ended says nothing about
// stopping it.
func TestSigningKeyUnderAnExpiredCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, mine := fleetkeytest.NewStore(), newSystem(t)
		store.Set(testkit.Bundle(t, mine.private, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)))
		s := testkit.Start(t, store, testkit.Config())
		store.Set(testkit.Bundle(t, mine.private, time.Now().AddDate(-1, 0, 0), time.Now().Add(-time.Hour)))
		require.ErrorContains(t, s.Refresh(t.Context()), "holds no key that can sign")
		testkit.Accepts(t, testkit.Issue(t, s), s)
	})
}

// revokedBlock is what an operator may write by hand.
func revokedBlock(t *testing.T, kid string) []byte {
	t.Helper()
	digest, err := base64.RawURLEncoding.DecodeString(kid)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "REVOKED KEY", Headers: map[string]string{"Kid": kid}, Bytes: digest})
}

// K6: the bundle was exchanged by hand after a theft; a fresh process that has never seen the
// stolen key revokes it on all.
func TestK6_RevokeAKeyThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		running := testkit.Start(t, store, testkit.Config())
		kid, stolen := running.SigningKey().KeyID, signedBy(t, store, running.SigningKey().KeyID)
		store.Set(testkit.ForeignBundle(t, testkit.Config()))
		require.NoError(t, running.Refresh(t.Context()))
		testkit.Accepts(t, stolen, running)
		require.Contains(t, testkit.PublishedKeyIDs(t, running), kid)
		operator := testkit.Start(t, store.Open(), testkit.Config())
		require.NoError(t, operator.Revoke(t.Context(), kid))
		require.NoError(t, running.Refresh(t.Context()))
		testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, running, operator)
		require.ErrorIs(t, operator.Revoke(t.Context(), "x\nlevel=INFO\x1b[2J"), fleetkey.ErrUnknownKey)
		require.NotContains(t, operator.Revoke(t.Context(), "x\nlevel=INFO\x1b[2J").Error(), "\n", "T9")
	})
}

// K8: rotate, a rollback, and a revocation by the same instance.
func TestK8_RevokeRightAfterARollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s := testkit.Start(t, store, testkit.Config())
		_, first := store.Content()
		victim := s.SigningKey().KeyID
		require.NoError(t, s.Rotate(t.Context()))
		store.RollBack(first)
		begin := time.Now()
		require.NoError(t, s.Revoke(t.Context(), victim))
		require.Less(t, time.Since(begin), time.Second)
		testkit.Accepts(t, testkit.Issue(t, s), s)
		require.NotContains(t, testkit.PublishedKeyIDs(t, s), victim)
	})
}

// P2: a rollback to before a revocation is noticed. With rotation on, the revocation is
// written back; with rotation off, Status warns. Either way no instance accepts the key.
func TestRollbackDoesNotUndoARevocation(t *testing.T) {
	for _, every := range []time.Duration{0, 90 * testkit.Day} {
		t.Run(fmt.Sprintf("rotation every %v", every), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fleetkeytest.NewStore()
				cfg := testkit.Config()
				cfg.Rotation.Every = every
				a, b := testkit.Start(t, store, cfg), testkit.Start(t, store.Open(), cfg)
				victim := a.SigningKey().KeyID
				_, before := store.Content()
				stolen := signedBy(t, store, victim)
				require.NoError(t, a.Revoke(t.Context(), victim))
				require.NoError(t, b.Refresh(t.Context()))
				time.Sleep(2 * time.Minute)
				store.RollBack(before)
				_ = a.Refresh(t.Context())
				_ = b.Refresh(t.Context())
				synctest.Wait()
				for _, s := range []*fleetkey.Signer{a, b} {
					testkit.Refuses(t, fleetkey.ErrUnknownKey, stolen, s)
					testkit.Accepts(t, testkit.Issue(t, s), a, b)
				}
				time.Sleep(10 * time.Minute)
				bundle, _ := store.Content()
				require.Equal(t, every > 0, strings.Contains(string(bundle), "REVOKED KEY"))
				require.Equal(t, every == 0, a.Status().LostRevocations > 0)
				require.Equal(t, every == 0, len(a.Status().Warnings()) > 0, "%v", a.Status().Warnings())
				testkit.Accepts(t, testkit.Issue(t, a), a, b)
			})
		})
	}
}

// K10: NewSigner refuses a policy under which an instance could never sign.
func TestK10_PolicyThatCannotWork(t *testing.T) {
	cfg := testkit.Config()
	cfg.MaxTokenTTL, cfg.RefreshEvery, cfg.JWKSMaxAge, cfg.ClockSkew = 30*time.Second, 5*time.Second, time.Second, 500*time.Millisecond
	cfg.Rotation = fleetkey.Rotation{Every: time.Hour, Announce: 13 * time.Second, Retain: 31 * time.Second}
	_, err := fleetkey.NewSigner(t.Context(), fleetkeytest.NewStore(), cfg)
	require.ErrorContains(t, err, "MaxTokenTTL + 3 ClockSkew + 1 min + 2 RefreshEvery")
}

// RevokeAll is for a leaked bundle: one save revokes every private key, the announced one
// included, and makes a fresh one.
func TestRevokeAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleetkeytest.NewStore()
		s, other := testkit.Start(t, store, testkit.Config()), testkit.Start(t, store.Open(), testkit.Config())
		require.NoError(t, s.Rotate(t.Context()))
		leaked := s.PublicKeys()
		saves := store.Saves()
		require.NoError(t, s.RevokeAll(t.Context()))
		require.Equal(t, saves+1, store.Saves())
		require.NoError(t, other.Refresh(t.Context()))
		testkit.Accepts(t, testkit.Issue(t, s), s, other)
		for _, k := range leaked {
			require.NotContains(t, testkit.PublishedKeyIDs(t, other), k.KeyID)
		}
		require.Len(t, slices.DeleteFunc(roles(other), func(r fleetkey.Role) bool { return r != fleetkey.RoleRevoked }), len(leaked))
	})
}

// K9: a first start, or a revocation, on a machine whose clock is off stops nobody.
func TestK9_WrongClocks(t *testing.T) {
	lazy, rotating := testkit.Lazily(testkit.Config()), testkit.Lazily(testkit.Rotating())
	for _, off := range []time.Duration{15 * time.Minute, 3 * time.Hour, 45 * testkit.Day, -15 * time.Minute, -3 * time.Hour, -45 * testkit.Day} {
		for _, revoke := range []bool{false, true} {
			t.Run(fmt.Sprintf("clock off by %v, revoke=%v", off, revoke), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := fleetkeytest.NewStore()
					if revoke {
						testkit.Start(t, store, lazy)
					}
					wrong := testkit.StartBy(t, testkit.Off(off), store.Open(), lazy)
					if revoke {
						require.NoError(t, wrong.Revoke(t.Context(), wrong.Status().Keys[0].KeyID))
					}
					right, also := testkit.Start(t, store.Open(), rotating), testkit.Start(t, store.Open(), lazy)
					testkit.Accepts(t, testkit.Issue(t, right), right, also)
					testkit.Issue(t, wrong)
					warned := strings.Contains(fmt.Sprint(right.Status().Warnings()), "is the clock right?")
					require.Equal(t, off > testkit.Day, warned, "%v", right.Status().Warnings())
					first := right.SigningKey().KeyID
					time.Sleep(150 * testkit.Day)
					testkit.Accepts(t, testkit.Issue(t, right), right, also)
					require.NotEqual(t, first, right.SigningKey().KeyID, "rotation continues")
					require.Empty(t, right.Status().Warnings())
				})
			})
		}
	}
}

// K11: a successor has the algorithm and the size of its predecessor, unless Config says
// otherwise. In all directions, this is TestSuccessorsMatch of internal/keyset.
func TestK11_SuccessorsMatch(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	long, err := rsa.GenerateKey(rand.Reader, 3072)
	require.NoError(t, err)
	for _, tc := range []struct {
		private         crypto.Signer
		algorithm, want string
		bits            int
	}{{ec, "", "ES384", 384}, {long, "", "RS256", 3072}, {ec, "EdDSA", "EdDSA", 0}} {
		synctest.Test(t, func(t *testing.T) {
			store := fleetkeytest.NewStore()
			store.Set(testkit.Bundle(t, tc.private, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)))
			cfg := testkit.Config()
			cfg.Algorithm = tc.algorithm
			s := testkit.Start(t, store, cfg)
			require.NoError(t, s.Rotate(t.Context()))
			time.Sleep(25 * time.Hour)
			next := s.SigningKey()
			require.NotEqual(t, testkit.Thumbprint(tc.private.Public()), next.KeyID)
			require.Equal(t, tc.want, next.Algorithm)
			switch public := next.Signer.Public().(type) {
			case *rsa.PublicKey:
				require.Equal(t, tc.bits, public.N.BitLen())
			case *ecdsa.PublicKey:
				require.Equal(t, tc.bits, public.Curve.Params().BitSize)
			}
			testkit.Accepts(t, testkit.Issue(t, s), s)
		})
	}
}
