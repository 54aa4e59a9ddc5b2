package fleetkey

import (
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // names certificates, as RFC 7515 section 4.1.7 defines
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A snapshot is what an instance knows at one moment: the key set that it
// loaded last, and all that the hot path needs of it, worked out beforehand. It
// never changes; a Signer replaces it as a whole.
type snapshot struct {
	version  Version
	set      *keySet
	keys     []*trustedKey          // newest first, then those kept from before
	byKID    map[string]*trustedKey // all of them by kid
	byHeader map[string]*trustedKey // and by the encoded header of their access tokens
	cache    *tokenCache
	replaced []replaced // what this instance has moved on from lately

	jwks    []byte // RFC 7517 section 5: the keys trusted when it was made; nil: none
	etag    string
	made    time.Time // when, by the wall clock
	changes time.Time // when a key of it ends to be trusted; zero: never
}

// A trustedKey is a key and the time until which its tokens are accepted.
type trustedKey struct {
	*key
	until  time.Time
	header string // of every access token that it signs: alg, kid and typ, encoded
	kept   bool   // not in the set any more, see keepVanished
	// foreign keys sign for another system, see Signer.Trust. Their tokens are
	// checked by the rules of before RFC 9068.
	foreign bool
}

// newSnapshot works out what a set means at a time. Of the keys that old had and
// the set lacks it takes those that keepVanished has a reason for.
func newSnapshot(set *keySet, version Version, old *snapshot, now time.Time, cfg *Config) (*snapshot, error) {
	s := &snapshot{version: version, set: set, cache: newTokenCache(cfg.CachedTokens),
		byKID: make(map[string]*trustedKey), byHeader: make(map[string]*trustedKey)}
	for _, k := range set.keys {
		s.keys = append(s.keys, &trustedKey{key: k, until: set.trustEnd(k, cfg.Rotation.Retain),
			header: k.header(accessTokenType), foreign: k.private == nil && !k.isRetired()})
	}
	if old != nil {
		s.keys = append(s.keys, keepVanished(old, set, now, cfg)...)
		s.replaced = old.lately(version)
	}
	// Keys that are past their trust come along: whoever uses one looks at the
	// time, and it may be this clock that is wrong.
	for _, k := range s.keys {
		s.byHeader[k.header] = k
		for _, kid := range k.keyIDs() {
			if s.byKID[kid] == nil {
				s.byKID[kid] = k
			}
		}
	}
	return s, s.publish(now)
}

// publish makes the JSON Web Key Set of the keys that are trusted at a time.
func (s *snapshot) publish(now time.Time) error {
	var set jose.JSONWebKeySet
	for _, k := range s.keys {
		if !now.Before(k.until) {
			continue
		}
		if s.changes.IsZero() || k.until.Before(s.changes) {
			s.changes = k.until
		}
		for _, kid := range k.keyIDs() {
			if s.byKID[kid] == k {
				set.Keys = append(set.Keys, k.jwk(kid))
			}
		}
	}
	s.made = now.Round(0) // without the monotonic reading, which no step of the clock changes
	if len(set.Keys) == 0 {
		return nil
	}
	var err error
	// go-jose computes a SHA-1 thumbprint of each certificate, if only to compare it.
	fips140.WithoutEnforcement(func() { s.jwks, err = json.Marshal(set) })
	if err != nil {
		return fmt.Errorf("encode the JSON Web Key Set: %w", err)
	}
	digest := sha256.Sum256(s.jwks)
	s.etag = `"` + hex.EncodeToString(digest[:16]) + `"`
	return nil
}

// A replaced version is one that another took the place of.
type replaced struct {
	version Version
	at      time.Time // by the monotonic clock
}

// lately returns the versions replaced a short while ago, with s's own if next
// is another.
func (s *snapshot) lately(next Version) []replaced {
	var recent []replaced
	for _, r := range s.replaced {
		if time.Since(r.at) < staleRead && r.version != next {
			recent = append(recent, r)
		}
	}
	if s.version != next && s.version != "" {
		recent = append(recent, replaced{s.version, time.Now()})
	}
	return recent
}

// isStale reports whether a version that was read is one that this instance has
// just moved on from: a replica of the store has not heard of the newest yet.
// What an operator rolls back lasts longer.
func (s *snapshot) isStale(version Version) bool {
	return slices.ContainsFunc(s.replaced, func(r replaced) bool {
		return r.version == version && time.Since(r.at) < staleRead
	})
}

// outdated reports whether a snapshot made of the same set now would differ.
func (s *snapshot) outdated(now time.Time) bool {
	return now.Before(s.made) || !s.changes.IsZero() && !now.Before(s.changes)
}

// keepVanished returns the keys that old trusted, that set lacks, and whose
// tokens nevertheless stay good for as long as they can live. That is so when
// the loss looks like an accident: the whole bundle was exchanged for a foreign
// one, or rolled back to an older one, after which another instance may have
// announced a key. A key is gone at once if it was revoked, or taken out of a
// set that still has a newer one of before.
func keepVanished(old *snapshot, set *keySet, now time.Time, cfg *Config) []*trustedKey {
	known := func(k *key) bool { return old.set.find(k.id) != nil }
	foreign, revoked := !slices.ContainsFunc(set.keys, known), set.revoked()
	// Others may sign with a key that is lost until they have read that, too.
	slowest := 2*cfg.RefreshEvery + 2*cfg.ClockSkew
	var kept []*trustedKey
	for _, k := range old.keys {
		rolledBack := k.private != nil && !slices.ContainsFunc(set.keys, func(other *key) bool {
			ours := other.private != nil || other.isRetired()
			return ours && known(other) && other.cert.NotBefore.After(k.cert.NotBefore)
		})
		// No clock of the fleet will have let it sign, so there are no tokens.
		unused := k.cert.NotBefore.After(now.Add(slowest))
		if set.find(k.id) != nil || !now.Before(k.until) || unused || slices.Contains(revoked, k.id) {
			continue
		}
		switch {
		case k.kept:
			kept = append(kept, k)
		case foreign || rolledBack:
			kept = append(kept, k.keep(now.Add(cfg.MaxTokenTTL+slowest)))
		}
	}
	return kept
}

// keep returns a copy that only verifies, until a time or the end of k's trust.
func (k *trustedKey) keep(until time.Time) *trustedKey {
	verifyOnly := *k.key
	verifyOnly.private = nil
	if k.until.Before(until) {
		until = k.until
	}
	return &trustedKey{key: &verifyOnly, until: until, header: k.header, foreign: k.foreign, kept: true}
}

// signing returns the key that signs at a time, or nil. The newest keys come
// first, so it looks at one or two, however many there are.
func (s *snapshot) signing(at time.Time) *trustedKey {
	k := s.set.signing(at)
	if k == nil {
		return nil
	}
	return s.byKID[k.id]
}

// keyIDs returns the kids by which tokens name the key. Of another system's key
// whose kid nobody has given, those are the ones in use: beside the RFC 7638
// thumbprint the certificate's (RFC 7515 sections 4.1.7 and 4.1.8), in base64url
// and, as .NET writes it, in hexadecimal, to which IdentityServer appends the
// algorithm.
func (k *trustedKey) keyIDs() []string {
	if !k.foreign || k.id != thumbprint(k.cert) {
		return []string{k.id}
	}
	var digest1 [sha1.Size]byte
	// A name that others have given, on which no security rests.
	fips140.WithoutEnforcement(func() { digest1 = sha1.Sum(k.cert.Raw) })
	digest256 := sha256.Sum256(k.cert.Raw)
	hex := strings.ToUpper(hex.EncodeToString(digest1[:]))
	base64url := base64.RawURLEncoding.EncodeToString
	return []string{k.id, base64url(digest1[:]), base64url(digest256[:]), hex, hex + k.alg.name, strings.ToLower(hex)}
}

// jwk returns the public half under a kid, as RFC 7517 has it, with the
// certificate (x5c) and its SHA-256 thumbprint (x5t#S256) under the first one.
func (k *key) jwk(kid string) jose.JSONWebKey {
	jwk := jose.JSONWebKey{Key: k.cert.PublicKey, KeyID: kid, Algorithm: k.alg.name, Use: "sig"}
	if kid == k.id {
		digest := sha256.Sum256(k.cert.Raw)
		jwk.Certificates, jwk.CertificateThumbprintSHA256 = []*x509.Certificate{k.cert}, digest[:]
	}
	return jwk
}

// header returns the encoded JOSE header of the tokens of a type that k signs.
// It is the same for each of them. All three values are printable ASCII without
// quotes, by construction or by check, so that nothing needs escaping.
func (k *key) header(typ string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + k.alg.name + `","kid":"` + k.id + `","typ":"` + typ + `"}`))
}
