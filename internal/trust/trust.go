// Package trust knows which keys are trusted at one moment, and by which names tokens
// call them. A View is made from a key set and from keys that configuration adds, or from
// plain public keys, together with everything that verification needs of it: precomputed
// headers and the JWKS. It never changes; whoever holds one replaces it as a whole.
package trust

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// A View is what an instance trusts. All methods may be called at the same time.
type View struct {
	Version string
	Set     *keyset.Set // that it was made from; empty if it was made from public keys
	Keys    []*Key      // newest first, retired ones, those kept from an earlier view, others

	JWKS []byte // RFC 7517 section 5: the keys trusted when it was made; nil: none
	ETag string // of JWKS

	former   bool            // keys that might appear follow the rules from before RFC 9068, too
	byName   map[string]*Key // every name of every key
	byPair   map[pair]*Key   // the same with the algorithm: a JWKS may give one name to a key for each
	byHeader map[string]*Key // and the encoded header of the access tokens that it signs
	made     time.Time       // by the wall clock
	changes  time.Time       // when a key of it stops being trusted or begins to sign; zero: never
	replaced []replaced      // versions that this instance has lately moved on from
}

type pair struct{ name, alg string }

// A Source is what a view is made of.
type Source struct {
	Set     *keyset.Set
	Version string
	Others  []*Key // keys of former systems and adopted ones; a fleet key's own name wins
}

// New returns the view of a source at a time. If old is the view before, the result also
// trusts those of its keys that the set has lost by accident.
func New(src Source, old *View, now Moment, p *keyset.Policy) (*View, error) {
	v := &View{Version: src.Version, Set: src.Set}
	for _, k := range src.Set.Keys {
		v.Keys = append(v.Keys, &Key{ID: k.ID, Alg: k.Alg, Public: k.Public, Cert: k.Cert, Until: src.Set.TrustEnd(k, p.Retain),
			Header: jws.EncodeHeader(k.Alg, k.ID, jws.AccessTokenType), Source: k})
	}
	for _, r := range src.Set.Retired {
		v.Keys = append(v.Keys, &Key{ID: r.ID, Alg: r.Alg, Public: r.Public, Until: r.Until,
			Header: jws.EncodeHeader(r.Alg, r.ID, jws.AccessTokenType)})
	}
	if old != nil {
		v.Keys = append(v.Keys, keepVanished(old, src.Set, now.Wall, p)...)
		v.replaced = old.lately(src.Version, now.Monotonic)
	}
	for _, k := range src.Others {
		adopted := !k.IssuedBefore.IsZero() && src.Set.Mentions(k.ID)
		if !adopted && !src.Set.IsRevoked(jws.Thumbprint(k.Public)) {
			v.Keys = append(v.Keys, k)
		}
	}
	v.changes = src.Set.NextChange(now.Wall, p.Retain)
	return v, v.index(now.Wall)
}

// FromKeys returns the view of plain public keys, which are trusted until they are
// replaced. With former, their tokens follow the rules from before RFC 9068, as those of
// keys that replace them will.
func FromKeys(keys []*Key, version string, former bool, now Moment) (*View, error) {
	v := &View{Version: version, Set: &keyset.Set{}, Keys: keys, former: former}
	return v, v.index(now.Wall)
}

// index works out by which names the keys are found, and the JSON Web Key Set of those
// that are trusted at a time.
//
// Keys past their trust come along: whoever uses a key looks at the time, and it may be
// this clock that is wrong.
func (v *View) index(now time.Time) (err error) {
	v.made = now.Round(0) // without the monotonic reading, which no step of the clock changes
	v.byName, v.byPair, v.byHeader = make(map[string]*Key), make(map[pair]*Key), make(map[string]*Key)
	signing, _ := v.Set.Signing(now)
	var published []jose.JSONWebKey
	for _, k := range v.Keys {
		if !k.Until.IsZero() && k.Until.After(now) && (v.changes.IsZero() || k.Until.Before(v.changes)) {
			v.changes = k.Until
		}
		for _, name := range k.names() {
			if other := v.byName[name]; other == nil {
				v.byName[name] = k
			} else if !k.Published || v.byPair[pair{name, k.Alg.Name}] != nil {
				continue // the first key has the name
			}
			v.byPair[pair{name, k.Alg.Name}] = k
			if name == k.ID && k.Header != "" {
				v.byHeader[k.Header] = k
			}
			if k.Trusted(now) && !k.Hidden {
				published = append(published, k.jwk(name, k.signsFrom(signing)))
			}
		}
	}
	if len(published) > 0 {
		v.JWKS, v.ETag, err = jws.EncodeJWKS(published)
	}
	return err
}

// Outdated reports whether a view of the same source made now would differ.
func (v *View) Outdated(now time.Time) bool {
	return now.Before(v.made) || !v.changes.IsZero() && !now.Before(v.changes)
}

// ByName returns the key of a kid, or nil.
func (v *View) ByName(kid string) *Key { return v.byName[kid] }

// Find returns the key of a kid for an algorithm, or that of the kid for another, or nil.
func (v *View) Find(kid, alg string) *Key {
	if sameAlgorithm(alg, "EdDSA") {
		alg = "EdDSA"
	}
	if k := v.byPair[pair{kid, alg}]; k != nil {
		return k
	}
	return v.byName[kid]
}

// Signing returns the key that signs at a time, or nil, and whether it signs before its
// certificate says so.
func (v *View) Signing(at time.Time) (k *Key, early bool) {
	source, early := v.Set.Signing(at)
	if source == nil {
		return nil, false
	}
	return v.byName[source.ID], early
}

// KeyFor returns the trusted key that the encoded header of an access token names. The
// headers that the fleet itself writes are the same bytes for each key; only others are
// parsed. Access tokens of other systems may lack that typ (it came with RFC 9068) and
// carry a certificate's thumbprint.
//
// The error matches jws.ErrUnknownKey for an unknown kid of any typ; ask is whether a key
// that might appear under that kid would accept typ and alg.
func (v *View) KeyFor(header string, now time.Time) (k *Key, ask bool, err error) {
	if k = v.byHeader[header]; k == nil {
		h, err := jws.ParseHeader(header)
		if err != nil {
			return nil, false, err
		}
		k = v.Find(h.KeyID, h.Algorithm)
		switch {
		case k == nil && v.Set.IsRevoked(h.KeyID):
			return nil, false, fmt.Errorf("%w: kid %q is revoked", jws.ErrUnknownKey, h.KeyID)
		case k == nil:
			return nil, h.Supported() && (h.IsAccessToken() || v.former && h.IsUntyped()), fmt.Errorf("%w: kid %q", jws.ErrUnknownKey, h.KeyID)
		case !h.IsAccessToken() && !(k.Former && h.IsUntyped()):
			return nil, false, fmt.Errorf("%w: its typ is not %s", jws.ErrWrongType, jws.AccessTokenType)
		case h.Thumbprint && !k.Former:
			return nil, false, fmt.Errorf("%w: x5t in the header", jws.ErrMalformed)
		}
		if h.Algorithm != k.Alg.Name && !(k.Published && sameAlgorithm(h.Algorithm, k.Alg.Name)) {
			return nil, false, fmt.Errorf("%w: the key's is %s", jws.ErrWrongAlgorithm, k.Alg.Name)
		}
	}
	if !k.Trusted(now) {
		return nil, true, fmt.Errorf("%w: kid %q was trusted until %s", jws.ErrUnknownKey, k.ID, k.Until.Format(time.RFC3339))
	}
	return k, false, nil
}

// sameAlgorithm reports whether a name is the one that RFC 9864 section 2.2 gives to an
// algorithm of an older, less specific name.
func sameAlgorithm(name, older string) bool { return name == "Ed25519" && older == "EdDSA" }

// FindNames returns a name that two of some keys have although they are not the same key,
// or not for the same issuer.
func FindNames(keys []*Key) (name string, found bool) {
	owners := map[string]string{}
	for _, k := range keys {
		whose := jws.Thumbprint(k.Public) + " " + k.Issuer
		for _, name := range k.names() {
			if owner, ok := owners[name]; ok && owner != whose {
				return name, true
			}
			owners[name] = whose
		}
	}
	return "", false
}

// Named returns the key among some that has a name, or nil.
func Named(keys []*Key, name string) *Key {
	for _, k := range keys {
		if slices.Contains(k.names(), name) {
			return k
		}
	}
	return nil
}

// JWKSSize returns how many bytes some keys take in a JSON Web Key Set.
func JWKSSize(keys []*Key) (int, error) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k *Key) bool { return k.Hidden })
	v, err := FromKeys(keys, "", false, Moment{})
	if err != nil {
		return 0, err
	}
	return len(v.JWKS), nil
}
