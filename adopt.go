package fleetkey

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// This file handles keys from elsewhere: those of other systems, and those that an instance
// had before it shared a store.

// A Former is a key of another system whose tokens stay valid during a migration. Its
// access tokens are verified by looser rules than those of RFC 9068: typ may be JWT or
// absent, iat and sub may be absent, and the lifetime is not limited. Tokens that declare
// another kind are rejected as with VerifierConfig.Legacy.
type Former struct {
	// Certificate contains the key. An RSA key is used for RS256, or for PS256 if the
	// certificate is self-signed with PSS. The certificate may have expired.
	Certificate *x509.Certificate
	// Key is a public key without a certificate: an *rsa.PublicKey, *ecdsa.PublicKey or
	// ed25519.PublicKey. It requires KeyID.
	Key crypto.PublicKey
	// KeyID is the kid in that system's tokens. Default: every kid that such systems derive
	// from a certificate. These are the certificate's thumbprints as x5t, as x5t#S256 and
	// in hexadecimal, with and without the algorithm (IdentityServer, AD FS), and the key's
	// RFC 7638 thumbprint.
	KeyID string
	// Issuer is the only iss accepted in tokens signed by this key. Default: Config.Issuer.
	// A key with another issuer is not published in the JWKS. If it were, clients of
	// Config.Issuer would accept tokens signed by it.
	Issuer string
	// Until is when the key stops being trusted. Default: the end of the certificate; for a
	// key without a certificate, never.
	Until time.Time
}

// maxJWKS is the largest JSON Web Key Set, in bytes: some clients refuse 50 KiB. It must
// have room for eight of the fleet's keys, two of them with a certificate.
const maxJWKS, roomForFleet = 48 << 10, 8*800 + 2*3<<10

// formerKeys returns the keys of Config.Former.
func formerKeys(cfg *Config) ([]*trust.Key, error) {
	var keys []*trust.Key
	for i, f := range cfg.Former {
		k, err := f.key(cfg.Issuer)
		if err != nil {
			return nil, fmt.Errorf("Config.Former[%d]: %w", i, err)
		}
		keys = append(keys, k)
	}
	// Of two certificates of one key, the one trusted for longer gets the names that both
	// share.
	slices.SortStableFunc(keys, func(a, b *trust.Key) int {
		if a.Until.IsZero() || b.Until.IsZero() {
			return a.Until.Compare(b.Until) // zero means never
		}
		return b.Until.Compare(a.Until)
	})
	if name, ok := trust.FindNames(keys); ok {
		return nil, fmt.Errorf("Config.Former: two keys have the kid %s, or one key has it for two issuers: set KeyID for each", jws.Quote(name))
	}
	if size, err := trust.JWKSSize(keys); err != nil || size > maxJWKS-roomForFleet {
		return nil, errors.Join(err, fmt.Errorf("Config.Former: these keys take %d bytes of the JWKS; at most %d are allowed, since clients refuse large key sets: set KeyID, so that each key has only one kid",
			size, maxJWKS-roomForFleet))
	}
	return keys, nil
}

func (f Former) key(ourIssuer string) (*trust.Key, error) {
	public, until := f.Key, f.Until
	var alg jws.Algorithm
	var err error
	switch {
	case f.Certificate != nil && f.Key != nil:
		return nil, errors.New("both Certificate and Key are set")
	case f.Certificate != nil:
		public = f.Certificate.PublicKey
		if until.IsZero() {
			until = f.Certificate.NotAfter
		}
		alg, err = keyset.AlgorithmOf(f.Certificate)
	case f.Key != nil && f.KeyID == "":
		return nil, errors.New("a Key without a Certificate requires KeyID, the kid in that system's tokens")
	case f.Key != nil:
		alg, err = jws.AlgorithmOf(f.Key, false)
	default:
		return nil, errors.New("neither Certificate nor Key is set")
	}
	if err == nil && f.KeyID != "" {
		err = jws.CheckKeyID(f.KeyID)
	}
	if err != nil {
		return nil, err
	}
	k := trust.Former(public, alg, f.Certificate, f.KeyID)
	k.Until = until
	if f.Issuer != "" && f.Issuer != ourIssuer {
		k.Issuer, k.Hidden = f.Issuer, true
	}
	return k, nil
}

// An adoption is a key set being adopted from Config.Adopt.
type adoption struct {
	set     *keyset.Set
	bundle  []byte
	version Version   // in Config.Adopt
	since   time.Time // when this instance joined the fleet
	noted   bool      // at an earlier start
}

// first returns the set to save in an empty store, or nil.
func (a *adoption) first() *keyset.Set {
	if a == nil || a.noted || a.set == nil {
		return nil
	}
	return a.set
}

// beginAdoption loads Config.Adopt and trusts its keys until the tokens that this instance
// has issued with them have expired. It writes nothing.
func (s *Signer) beginAdoption(ctx context.Context) (*adoption, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	bundle, version, err := s.cfg.Adopt.Load(ctx)
	if errors.Is(err, ErrNotExist) {
		return &adoption{}, nil
	}
	a := &adoption{bundle: bundle, version: version, since: s.verifier.clock.Now()}
	if err == nil {
		a.set, err = keyset.Parse(bundle)
	}
	if err != nil {
		return nil, fmt.Errorf("adopt from %s: %w", storeName(s.cfg.Adopt), err)
	}
	if noted, ok := findNote(bundle, s.store); ok {
		a.since, a.noted = noted, true
	}
	p := s.policy()
	if k, _ := a.set.Signing(a.since); k == nil && !a.noted {
		if a.set, err = a.set.Rotate(a.since, p); err != nil {
			return nil, fmt.Errorf("adopt from %s: %w", storeName(s.cfg.Adopt), err)
		}
	}
	s.verifier.others = append(s.verifier.others, trust.Adopted(a.set, a.since, a.since.Add(p.MaxTokenTTL+2*p.ClockSkew))...)
	return a, nil
}

// noteAdoption appends a note to the bundle of Config.Adopt saying when it was adopted. The
// note follows the PEM blocks, where readers of the keys ignore it. The keys stay: nothing
// is lost if both stores turn out to be the same. Best effort: without the note, a later
// start extends the trust in the old keys.
func (s *Signer) noteAdoption(ctx context.Context, a *adoption) {
	if a == nil || a.set == nil || a.noted {
		return
	}
	s.cfg.Logger.Info("adopted the signing keys of another store", "from", storeName(s.cfg.Adopt), "store", storeName(s.store), "until", a.since.Add(s.cfg.MaxTokenTTL+2*s.cfg.ClockSkew))
	if isReadOnly(s.cfg.Adopt) {
		return // expected, so not worth a warning
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := s.cfg.Adopt.Save(ctx, slices.Concat(a.bundle, []byte(adoptionNote(s.store, a.since))), a.version); err != nil {
		s.cfg.Logger.Warn("could not record the adoption in the old store; delete that store, or each start extends the trust in its keys",
			"from", storeName(s.cfg.Adopt), "err", err)
	}
}

func adoptionNote(store KeyStore, since time.Time) string {
	return "\n" + notePrefix(store) + since.UTC().Format(time.RFC3339) + "\n"
}

func notePrefix(store KeyStore) string {
	name := strings.ReplaceAll(storeName(store), "--", "- -") // five dashes would look like PEM
	return "Adopted by " + strings.Join(strings.Fields(name), " ") + " at "
}

func findNote(bundle []byte, store KeyStore) (since time.Time, ok bool) {
	for line := range bytes.Lines(bundle) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(string(line)), notePrefix(store)); ok {
			if since, err := time.Parse(time.RFC3339, text); err == nil {
				return since, true
			}
		}
	}
	return time.Time{}, false
}
