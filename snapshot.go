package fleetkey

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A snapshot is what an instance knows at one moment: the key set that it
// loaded last, and all that the hot path needs of it, worked out beforehand. It
// never changes; a Signer replaces it as a whole.
type snapshot struct {
	version  Version
	set      *keySet
	trusted  []*trustedKey          // newest first, then those kept from before
	byKID    map[string]*trustedKey // the trusted keys by kid
	byHeader map[string]*trustedKey // and by the encoded header of their access tokens
	jwks     []byte                 // RFC 7517 section 5
	etag     string
	changes  time.Time // when a key ends to be trusted; zero: never
}

// A trustedKey is a key and the time until which its tokens are accepted.
type trustedKey struct {
	*key
	until  time.Time
	header string // of every access token that it signs: alg, kid and typ, encoded
	kept   bool   // not in the set any more, see keepVanished
}

// newSnapshot works out what a set means at a time. The keys that old trusted
// and the set lacks are dropped, unless keepVanished has a reason.
func newSnapshot(set *keySet, version Version, old *snapshot, now time.Time, cfg *Config) (*snapshot, error) {
	s := &snapshot{version: version, set: set,
		byKID: make(map[string]*trustedKey), byHeader: make(map[string]*trustedKey)}
	for _, k := range set.keys {
		s.trusted = append(s.trusted, &trustedKey{key: k, until: set.trustEnd(k, cfg.Rotation.Retain), header: k.header(accessTokenType)})
	}
	if old != nil {
		s.trusted = append(s.trusted, keepVanished(old, set, now, cfg)...)
	}
	document := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range s.trusted {
		if !now.Before(k.until) {
			continue
		}
		s.byKID[k.id], s.byHeader[k.header] = k, k
		document.Keys = append(document.Keys, k.jwk())
		if s.changes.IsZero() || k.until.Before(s.changes) {
			s.changes = k.until
		}
	}
	var err error
	if s.jwks, err = json.Marshal(document); err != nil {
		return nil, fmt.Errorf("encode the JSON Web Key Set: %w", err)
	}
	digest := sha256.Sum256(s.jwks)
	s.etag = `"` + hex.EncodeToString(digest[:16]) + `"`
	return s, nil
}

// keepVanished returns the keys that old trusted, that set lacks, and whose
// tokens nevertheless stay good for as long as they can live. That is so when
// the loss looks like an accident: the whole bundle was exchanged for a foreign
// one, or rolled back to an older one. A key that is missing beside a newer one
// of the same fleet was taken out on purpose and is gone at once.
func keepVanished(old *snapshot, set *keySet, now time.Time, cfg *Config) []*trustedKey {
	foreign := true
	for _, k := range old.set.keys {
		foreign = foreign && set.find(k.id) == nil
	}
	var kept []*trustedKey
	for _, k := range old.trusted {
		rolledBack := k.cert.NotBefore.After(set.keys[0].cert.NotBefore)
		// No clock of the fleet has let it sign yet, so there are no tokens.
		unused := k.cert.NotBefore.After(now.Add(2 * cfg.ClockSkew))
		if set.find(k.id) != nil || !now.Before(k.until) || unused || !(k.kept || foreign || rolledBack) {
			continue
		}
		if !k.kept {
			verifyOnly := *k.key
			verifyOnly.private = nil
			until := now.Add(cfg.MaxTokenTTL + 2*cfg.ClockSkew)
			if k.until.Before(until) {
				until = k.until
			}
			k = &trustedKey{key: &verifyOnly, until: until, header: k.header, kept: true}
		}
		kept = append(kept, k)
	}
	return kept
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

// jwk returns the public half as RFC 7517 has it, with the certificate (x5c)
// and its SHA-256 thumbprint (x5t#S256).
func (k *key) jwk() jose.JSONWebKey {
	digest := sha256.Sum256(k.cert.Raw)
	return jose.JSONWebKey{
		Key: k.cert.PublicKey, KeyID: k.id, Algorithm: k.alg.name, Use: "sig",
		Certificates: []*x509.Certificate{k.cert}, CertificateThumbprintSHA256: digest[:],
	}
}

// header returns the encoded JOSE header of the tokens of a type that k signs.
// It is the same for each of them. All three values are plain ASCII by
// construction or by check, so that nothing needs escaping.
func (k *key) header(typ string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + k.alg.name + `","kid":"` + k.id + `","typ":"` + typ + `"}`))
}
