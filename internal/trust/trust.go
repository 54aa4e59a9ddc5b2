// Package trust models which keys are trusted at a given moment, and by which names tokens
// refer to them. A View is made from a key set and configured keys, or from plain public
// keys. It contains everything that verification needs, including precomputed headers and
// the JWKS. A View is immutable and is replaced as a whole.
package trust

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// A View is what an instance trusts. All methods are safe for concurrent use.
type View struct {
	Version string
	Set     *keyset.Set // its source; empty if made from public keys
	Keys    []*Key      // the set's, newest first; then retired, kept from an earlier view, others

	JWKS []byte // RFC 7517 section 5: the keys trusted when it was made; nil: none
	ETag string // of JWKS

	former   bool                     // keys added later also follow the rules from before RFC 9068
	byName   map[string]*Key          // every name of every key
	byPair   map[pair]*Key            // by name and algorithm, since a JWKS can use a name once per algorithm
	byHeader map[string]*Key          // by the encoded header of their access tokens
	made     time.Time                // by the wall clock
	changes  time.Time                // when a key next stops being trusted or begins to sign; zero: never
	replaced map[string]time.Duration // recently replaced versions; see lately
}

type pair struct{ name, alg string }

// A Source is the input of a view.
type Source struct {
	Set     *keyset.Set
	Version string
	Others  []*Key // keys of former systems, and adopted keys; names of fleet keys win
}

// New returns the view of a source at a time. If old is the previous view, the result also
// trusts those of its keys that the set lost by accident.
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
	return v, v.index(now.Wall)
}

// FromKeys returns the view of plain public keys, which are trusted until they are
// replaced. With former, tokens of these keys and of their replacements follow the rules
// from before RFC 9068.
func FromKeys(keys []*Key, version string, former bool, now Moment) (*View, error) {
	v := &View{Version: version, Set: &keyset.Set{}, Keys: keys, former: former}
	return v, v.index(now.Wall)
}

// index builds the maps from names to keys, and the JSON Web Key Set of the keys trusted at
// a time.
//
// Keys past their trust are included, because it may be this clock that is wrong; users of
// a key check the time.
func (v *View) index(now time.Time) (err error) {
	v.made = now.Round(0) // without the monotonic reading, to compare wall clocks
	v.changes = v.NextChange(now)
	v.byName, v.byPair, v.byHeader = make(map[string]*Key), make(map[pair]*Key), make(map[string]*Key)
	signing, _ := v.Set.Signing(now)
	var published []jose.JSONWebKey
	for _, k := range v.Keys {
		for _, name := range k.names() {
			if other := v.byName[name]; other == nil {
				v.byName[name] = k
			} else if !k.Published || v.byPair[pair{name, k.Alg.Name}] != nil {
				continue // the first key keeps the name
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

// NextChange returns the first time after at when a key begins to sign or stops being
// trusted, or the zero time.
func (v *View) NextChange(at time.Time) (next time.Time) {
	consider := func(t time.Time) {
		if t.After(at) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, k := range v.Keys {
		consider(k.Until)
		if k.Source != nil {
			consider(k.Cert.NotBefore)
		}
	}
	return next
}

// Outdated reports whether a view made now from the same source would differ.
func (v *View) Outdated(now time.Time) bool {
	return now.Before(v.made) || !v.changes.IsZero() && !now.Before(v.changes)
}

// ByName returns the key with a kid, or nil.
func (v *View) ByName(kid string) *Key { return v.byName[kid] }

// Find returns the key with a kid for an algorithm, or the key with that kid for another
// algorithm, or nil.
func (v *View) Find(kid, alg string) *Key {
	if sameAlgorithm(alg, "EdDSA") {
		alg = "EdDSA"
	}
	if k := v.byPair[pair{kid, alg}]; k != nil {
		return k
	}
	return v.byName[kid]
}

// Signing returns the key that signs at a time, or nil, and whether it signs before the
// start of its certificate.
func (v *View) Signing(at time.Time) (k *Key, early bool) {
	source, early := v.Set.Signing(at)
	if source == nil {
		return nil, false
	}
	return v.byName[source.ID], early
}

// KeyFor returns the trusted key named by the encoded header of an access token. The fleet
// writes the same header bytes for each key; only other headers are parsed. Access tokens
// of other systems may lack the typ of RFC 9068 and carry a certificate's thumbprint.
//
// The error matches jws.ErrUnknownKey for an unknown kid of any typ. ask reports whether a
// key that might appear under that kid would accept typ and alg.
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
			return nil, false, fmt.Errorf("%w: typ is not %s", jws.ErrWrongType, jws.AccessTokenType)
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

// sameAlgorithm reports whether name is the RFC 9864 section 2.2 name of an algorithm with
// an older, less specific name.
func sameAlgorithm(name, older string) bool { return name == "Ed25519" && older == "EdDSA" }

// FindNames returns a name shared by two keys that differ, or that are for different
// issuers.
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

// Named returns the key with a name, or nil.
func Named(keys []*Key, name string) *Key {
	for _, k := range keys {
		if slices.Contains(k.names(), name) {
			return k
		}
	}
	return nil
}

// JWKSSize returns the size in bytes that keys take in a JSON Web Key Set.
func JWKSSize(keys []*Key) (int, error) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k *Key) bool { return k.Hidden })
	v, err := FromKeys(keys, "", false, Moment{})
	if err != nil {
		return 0, err
	}
	return len(v.JWKS), nil
}
