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

// This file is about keys that come from elsewhere: those of other systems, and those that
// an instance had before it shared a store.

// A Former is a key of another system whose tokens stay valid while you move from it. Its
// access tokens are checked by the rules from before RFC 9068: typ may be JWT or absent,
// iat and sub may be absent, and their lifetime is not limited. An ID token of that system
// passes as well if its audience is one of Config.Audience.
type Former struct {
	// Certificate holds the key. An RSA key means RS256, or PS256 if the certificate
	// signs itself so. The certificate may have expired.
	Certificate *x509.Certificate
	// Key is a public key without a certificate: an *rsa.PublicKey, *ecdsa.PublicKey or
	// ed25519.PublicKey. It requires KeyID.
	Key crypto.PublicKey
	// KeyID is the kid in that system's tokens. Default: every kid that such systems are
	// known to derive from a certificate, that is its thumbprints as x5t, x5t#S256 and in
	// hexadecimal, with and without the algorithm (IdentityServer, ADFS), and the RFC 7638
	// thumbprint of the key.
	KeyID string
	// Issuer is the iss of that system's tokens, and the only one that is accepted for
	// them. Default: Config.Issuer. A key of another issuer is not published in the JWKS:
	// there it could sign tokens with our issuer for everyone who reads that.
	Issuer string
	// Until is when the trust in the key ends. Default: the certificate's end; for a key
	// without a certificate, never.
	Until time.Time
}

// maxJWKS bounds the JSON Web Key Set, in bytes: some clients refuse 50 KiB. It must have
// room for eight of the fleet's keys, of which two have a certificate.
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
	// Of two certificates of one key, the one that is trusted for longer gets the names
	// that both have.
	slices.SortStableFunc(keys, func(a, b *trust.Key) int {
		if a.Until.IsZero() || b.Until.IsZero() {
			return a.Until.Compare(b.Until) // zero never ends
		}
		return b.Until.Compare(a.Until)
	})
	if name, ok := trust.FindNames(keys); ok {
		return nil, fmt.Errorf("Config.Former: two keys have the kid %s, or one key has it for two issuers: give each its KeyID", jws.Quote(name))
	}
	if size, err := trust.JWKSSize(keys); err != nil || size > maxJWKS-roomForFleet {
		return nil, errors.Join(err, fmt.Errorf("Config.Former: these keys take %d bytes of the JWKS; at most %d are allowed, since clients refuse large key sets: give KeyID, so that a key has one name",
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
		return nil, errors.New("both Certificate and Key are given")
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
		return nil, errors.New("neither Certificate nor Key is given")
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

// An adoption is a key set on its way from Config.Adopt.
type adoption struct {
	set     *keyset.Set
	bundle  []byte
	version Version   // of the store that it comes from
	since   time.Time // when this instance joined the fleet
	noted   bool      // it did so at an earlier start
}

// first returns the set that an empty store gets, or nil.
func (a *adoption) first() *keyset.Set {
	if a == nil || a.noted || a.set == nil {
		return nil
	}
	return a.set
}

// beginAdoption loads what Config.Adopt holds, and trusts it for as long as the tokens can
// live that this instance has issued with it. It writes nothing.
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

// noteAdoption adds to the bundle of Config.Adopt that it was adopted, and when, behind the
// PEM blocks, where it means nothing to a reader of the keys. The keys stay: nothing is
// lost if both stores turn out to be the same. Best effort: without the note, a later start
// renews the trust in the old keys.
func (s *Signer) noteAdoption(ctx context.Context, a *adoption) {
	if a == nil || a.set == nil || a.noted {
		return
	}
	s.cfg.Logger.Info("adopted the signing keys of another store", "from", storeName(s.cfg.Adopt), "store", storeName(s.store), "until", a.since.Add(s.cfg.MaxTokenTTL+2*s.cfg.ClockSkew))
	if isReadOnly(s.cfg.Adopt) {
		return // as when the note cannot be written, and no news
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := s.cfg.Adopt.Save(ctx, slices.Concat(a.bundle, []byte(adoptionNote(s.store, a.since))), a.version); err != nil {
		s.cfg.Logger.Warn("could not note in the old store that its keys were adopted; remove it yourself, or each start renews the trust in them",
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
