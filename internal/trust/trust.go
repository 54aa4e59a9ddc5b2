// Package trust knows which keys are trusted at one moment, and by which names tokens
// call them. A View is made from a key set, or from plain public keys, together with
// everything that verification needs of it: precomputed headers and the JWKS. It never
// changes; whoever holds one replaces it as a whole.
package trust

import (
	"crypto"
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // names certificates, as RFC 7515 section 4.1.7 defines
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// A View is what an instance trusts. All methods may be called at the same time.
type View struct {
	Version string
	Set     *keyset.Set // that it was made from; empty if it was made from public keys
	Keys    []*Key      // newest first, then those kept from an earlier view

	JWKS []byte // RFC 7517 section 5: the keys trusted when it was made; nil: none
	ETag string // of JWKS

	byName   map[string]*Key // every name of every key
	byHeader map[string]*Key // and the encoded header of the access tokens that it signs
	replaced []replaced      // versions that this instance has lately moved on from
	made     time.Time       // by the wall clock
	changes  time.Time       // when a key of it stops being trusted; zero: never
}

// A Key is a trusted key and the time until which its tokens are accepted.
type Key struct {
	ID     string // the name under which it is reported
	Alg    jws.Algorithm
	Public crypto.PublicKey
	Cert   *x509.Certificate // nil: a plain public key
	Until  time.Time         // zero: no end
	Header string            // of every access token that it signs: alg, kid and typ, encoded
	Kept   bool              // not in the set any more, see keepVanished
	Former bool              // of another system, whose tokens follow the rules from before RFC 9068

	Source *keyset.Key // in the set; nil: a plain public key
}

// A PublicKey is a trusted key about which nothing else is known.
type PublicKey struct {
	ID     string
	Alg    jws.Algorithm
	Key    crypto.PublicKey
	Former bool // see Key
}

// FromSet returns the view of a set at a time. If old is the view before, the result
// also trusts those of its keys that the set has lost by accident.
func FromSet(set *keyset.Set, version string, old *View, now Moment, p *keyset.Policy) (*View, error) {
	v := &View{Version: version, Set: set}
	for _, k := range set.Keys {
		v.Keys = append(v.Keys, &Key{ID: k.ID, Alg: k.Alg, Public: k.Public, Cert: k.Cert, Until: set.TrustEnd(k, p.Retain),
			Header: jws.EncodeHeader(k.Alg, k.ID, jws.AccessTokenType), Former: k.Private == nil && !k.IsRetired(), Source: k})
	}
	if old != nil {
		v.Keys = append(v.Keys, keepVanished(old, set, now.Wall, p)...)
		v.replaced = old.lately(version, now.Monotonic)
	}
	return v, v.index(now.Wall)
}

// FromKeys returns the view of plain public keys, which are trusted until they are
// replaced.
func FromKeys(keys []PublicKey, version string, now Moment) (*View, error) {
	v := &View{Version: version, Set: keyset.New()}
	for _, k := range keys {
		v.Keys = append(v.Keys, &Key{ID: k.ID, Alg: k.Alg, Public: k.Key, Former: k.Former,
			Header: jws.EncodeHeader(k.Alg, k.ID, jws.AccessTokenType)})
	}
	return v, v.index(now.Wall)
}

// Trusted reports whether the key's tokens are accepted at a time.
func (k *Key) Trusted(at time.Time) bool { return k.Until.IsZero() || at.Before(k.Until) }

// What a key does at a moment of its life, in the order of its life. The root package
// repeats and documents these roles.
const (
	RoleAnnounced = "announced"
	RoleSigning   = "signing"
	RoleRetired   = "retired"
	RoleFormer    = "former"
	RoleGone      = "gone"
)

// Role returns what the key does at a time, when another key, or this one, signs.
func (k *Key) Role(now time.Time, signing *Key) string {
	switch {
	case !k.Trusted(now):
		return RoleGone
	case k.Former || k.Source == nil:
		return RoleFormer
	case k == signing:
		return RoleSigning
	case k.Source.Private != nil && k.Cert.NotBefore.After(now):
		return RoleAnnounced
	}
	return RoleRetired
}

// index works out by which names the keys are found, and the JSON Web Key Set of those
// that are trusted at a time.
//
// Keys past their trust come along: whoever uses a key looks at the time, and it may
// be this clock that is wrong.
func (v *View) index(now time.Time) (err error) {
	v.made = now.Round(0) // without the monotonic reading, which no step of the clock changes
	v.byName, v.byHeader = make(map[string]*Key), make(map[string]*Key)
	var published []jose.JSONWebKey
	for _, k := range v.Keys {
		trusted := k.Trusted(now)
		if trusted && !k.Until.IsZero() && (v.changes.IsZero() || k.Until.Before(v.changes)) {
			v.changes = k.Until
		}
		for _, name := range k.names() {
			if v.byName[name] != nil {
				continue // the newest key has the name
			}
			v.byName[name] = k
			if trusted {
				published = append(published, k.jwk(name))
			}
		}
		if v.byName[k.ID] == k {
			v.byHeader[k.Header] = k
		}
	}
	if len(published) > 0 {
		v.JWKS, v.ETag, err = jws.EncodeJWKS(published)
	}
	return err
}

// Outdated reports whether a view of the same set made now would differ.
func (v *View) Outdated(now time.Time) bool {
	return now.Before(v.made) || !v.changes.IsZero() && !now.Before(v.changes)
}

// ByName returns the key of a kid, or nil.
func (v *View) ByName(kid string) *Key { return v.byName[kid] }

// Signing returns the key that signs at a time, or nil. The newest keys come first, so
// it looks at one or two, however many there are.
func (v *View) Signing(at time.Time) *Key {
	k := v.Set.Signing(at)
	if k == nil {
		return nil
	}
	return v.byName[k.ID]
}

// KeyFor returns the trusted key that the encoded header of an access token names.
// The headers that the fleet itself writes are the same bytes for each key; only
// others are parsed. Access tokens of other systems may lack that typ (it came with
// RFC 9068) and carry a certificate's thumbprint.
func (v *View) KeyFor(header string, now time.Time) (*Key, error) {
	k := v.byHeader[header]
	if k == nil {
		h, err := jws.ParseHeader(header)
		if err != nil {
			return nil, err
		}
		k = v.byName[h.KeyID]
		if former := k != nil && k.Former; !h.IsAccessToken() && !(former && h.IsUntyped()) {
			return nil, fmt.Errorf("%w: its typ is not %s", jws.ErrWrongType, jws.AccessTokenType)
		}
		if k == nil {
			return nil, fmt.Errorf("%w: kid %q", jws.ErrUnknownKey, h.KeyID)
		}
		if h.Algorithm != k.Alg.Name {
			return nil, fmt.Errorf("%w: the key's is %s", jws.ErrWrongAlgorithm, k.Alg.Name)
		}
		if h.Thumbprint && !k.Former {
			return nil, fmt.Errorf("%w: x5t in the header", jws.ErrMalformed)
		}
	}
	if !k.Trusted(now) {
		return nil, fmt.Errorf("%w: kid %q was trusted until %s", jws.ErrUnknownKey, k.ID, k.Until.Format(time.RFC3339))
	}
	return k, nil
}

// names returns the kids by which tokens name the key. For another system's key whose
// kid nobody has given these are all in use: the RFC 7638 thumbprint, and the
// certificate's thumbprints (RFC 7515 sections 4.1.7 and 4.1.8) in base64url and, as
// .NET writes them, in hexadecimal, to which IdentityServer appends the algorithm.
func (k *Key) names() []string {
	if !k.Former || k.Cert == nil || k.ID != jws.Thumbprint(k.Public) {
		return []string{k.ID}
	}
	var digest1 [sha1.Size]byte
	// A name that others have given, on which no security rests.
	fips140.WithoutEnforcement(func() { digest1 = sha1.Sum(k.Cert.Raw) })
	digest256 := sha256.Sum256(k.Cert.Raw)
	upper := strings.ToUpper(hex.EncodeToString(digest1[:]))
	base64url := base64.RawURLEncoding.EncodeToString
	return []string{k.ID, base64url(digest1[:]), base64url(digest256[:]), upper, upper + k.Alg.Name, strings.ToLower(upper)}
}

// jwk returns the public half under a name, with the certificate (x5c) and its SHA-256
// thumbprint (x5t#S256) under the first one.
func (k *Key) jwk(name string) jose.JSONWebKey {
	jwk := jws.JWK(k.Public, name, k.Alg)
	if name == k.ID && k.Cert != nil {
		digest := sha256.Sum256(k.Cert.Raw)
		jwk.Certificates, jwk.CertificateThumbprintSHA256 = []*x509.Certificate{k.Cert}, digest[:]
	}
	return jwk
}
